"""All checks, one after another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from sentiment.doctoring.findings import Finding
from sentiment.doctoring.installation import check_libraries, check_python, check_torch
from sentiment.doctoring.libraries_at_work import check_corpus, check_tensorboard, check_tokenizer
from sentiment.doctoring.machine import (
    check_cores,
    check_device,
    check_environment,
    check_huge_pages,
    check_memory,
    check_precision,
)
from sentiment.doctoring.recurrence import check_recurrence
from sentiment.doctoring.storage import check_cache_folder, check_current_folder
from sentiment.doctoring.trial import check_training

Checks = Mapping[str, Callable[[], Finding]]

# Those that need nothing but Python come first: they say why others fail.
FIRST: Checks = {
    "Python": check_python,
    "libraries": check_libraries,
    "memory": check_memory,
    "cache folder": check_cache_folder,
    "current folder": check_current_folder,
    "environment": check_environment,
}
# Those that load torch into this process, which it would end if it crashed.
WITH_TORCH: Checks = {
    "device": check_device,
    "precision": check_precision,
    "cores": check_cores,
    "huge pages": check_huge_pages,
    "tokenizer": check_tokenizer,
    "TensorBoard": check_tensorboard,
    "corpus": check_corpus,
    "recurrence": check_recurrence,
    "training": check_training,
}


def examine() -> Iterator[tuple[str, Finding]]:
    """Run all checks; where torch cannot be loaded, all but those that load it.

    Yields:
        The name of each check and what it found, as soon as it did.
    """
    for name, check in FIRST.items():
        yield name, _run(check)
    torch = _run(check_torch)
    yield "torch", torch
    if torch.verdict != "mend":
        for name, check in WITH_TORCH.items():
            yield name, _run(check)


def _run(check: Callable[[], Finding]) -> Finding:
    """Whatever goes wrong in a check is a finding: an installation may be broken in any way."""
    try:
        return check()
    except Exception as error:
        return Finding(
            f"{type(error).__name__}: {error}",
            "mend",
            "this check could not be done, which should not be: install the package anew (make "
            "setup); if it stays, report it with the output of sentiment doctor --json",
        )
