"""The examination of an installation, and its report."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict

from sentiment.diagnostics.installation import (
    check_corpus,
    check_libraries,
    check_python,
    check_recurrence,
    check_tensorboard,
    check_tokenizer,
    check_torch,
    check_training,
)
from sentiment.diagnostics.machine import (
    CheckResult,
    check_cache_folder,
    check_cores,
    check_current_folder,
    check_device,
    check_environment,
    check_huge_pages,
    check_memory,
    check_precision,
)
from sentiment.display.console import pad, sanitize

Checks = Mapping[str, Callable[[], CheckResult]]

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


def examine() -> Iterator[tuple[str, CheckResult]]:
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


def _run(check: Callable[[], CheckResult]) -> CheckResult:
    """Whatever goes wrong in a check is a finding: an installation may be broken in any way."""
    try:
        return check()
    except Exception as error:
        return CheckResult(
            f"{type(error).__name__}: {error}",
            "mend",
            "this check could not be done, which should not be: install the package anew (make "
            "setup); if it stays, report it with the output of sentiment doctor --json",
        )


_WIDTH = 80
_NAME_WIDTH = 16
_VERDICT_WIDTH = 4


def row(name: str, finding: CheckResult) -> str:
    """A line of the table, or several where more was found than fits one."""
    width = _WIDTH - _NAME_WIDTH - _VERDICT_WIDTH - 2
    first, *others = textwrap.wrap(sanitize(finding.found), width) or [""]
    lines = [f"{pad(name, _NAME_WIDTH)}{pad(first, width)}  {finding.verdict}"]
    return "\n".join(lines + [" " * _NAME_WIDTH + each for each in others])


def advice(findings: Mapping[str, CheckResult]) -> str:
    """What to do about each finding that is not ok: what must be mended first."""
    paragraphs = [
        textwrap.fill(
            f"{verdict}  {name}: {sanitize(finding.advice)}",
            _WIDTH,
            subsequent_indent=" " * (_VERDICT_WIDTH + 2),
            break_long_words=False,  # commands and paths are there to be copied
            break_on_hyphens=False,
        )
        for verdict in ("mend", "note")
        for name, finding in findings.items()
        if finding.verdict == verdict
    ]
    return "\n".join(paragraphs)


def as_json(findings: Mapping[str, CheckResult]) -> str:
    """The same for programs."""
    checks = [{"name": name, **asdict(finding)} for name, finding in findings.items()]
    return json.dumps({"is_sound": not num_to_mend(findings), "checks": checks}, indent=2)


def num_to_mend(findings: Mapping[str, CheckResult]) -> int:
    """How many findings must be mended."""
    return sum(finding.verdict == "mend" for finding in findings.values())
