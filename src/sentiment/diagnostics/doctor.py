"""All checks of an installation, and their report."""

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
from sentiment.display.console import COLUMNS, format_table, sanitize

Checks = Mapping[str, Callable[[], CheckResult]]

# They need only Python, and their results explain why later checks fail.
WITHOUT_TORCH: Checks = {
    "Python": check_python,
    "libraries": check_libraries,
    "memory": check_memory,
    "cache folder": check_cache_folder,
    "current folder": check_current_folder,
    "environment": check_environment,
}
# They load torch into this process, so they run only if it loads in another one.
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

_NAME_WIDTH = 14
_STATUS_WIDTH = 4


def run_checks() -> Iterator[tuple[str, CheckResult]]:
    """Yield the name and result of each check; if torch does not load, of those without it."""
    for name, check in WITHOUT_TORCH.items():
        yield name, _run(check)
    torch = _run(check_torch)
    yield "torch", torch
    if torch.status != "fail":
        for name, check in WITH_TORCH.items():
            yield name, _run(check)


def _run(check: Callable[[], CheckResult]) -> CheckResult:
    """Run a check; any exception is a failure, as an installation may be broken in any way."""
    try:
        return check()
    except Exception as error:
        return CheckResult(
            f"{type(error).__name__}: {error}",
            "fail",
            "the check itself failed: reinstall the package (make setup); if that does not help, "
            "report it with the output of sentiment doctor --json",
        )


def format_result(name: str, result: CheckResult) -> str:
    """The row of the table for one check; a long message takes several lines."""
    widths = (_NAME_WIDTH, COLUMNS - _NAME_WIDTH - _STATUS_WIDTH - 4, _STATUS_WIDTH)
    row = (name, result.message, result.status)
    return format_table([row], align="<", min_widths=widths, flexible=1, wrap=True, indent=0)


def format_advice(results: Mapping[str, CheckResult]) -> str:
    """The advice of each check that is not ok, failures first."""
    paragraphs = [
        textwrap.fill(
            f"{status}  {name}: {sanitize(result.advice)}",
            COLUMNS,
            subsequent_indent=" " * (_STATUS_WIDTH + 2),
            break_long_words=False,  # so that commands and paths can be copied
            break_on_hyphens=False,
        )
        for status in ("fail", "warn")
        for name, result in results.items()
        if result.status == status
    ]
    return "\n".join(paragraphs)


def results_json(results: Mapping[str, CheckResult]) -> str:
    checks = [{"name": name, **asdict(result)} for name, result in results.items()]
    return json.dumps({"is_sound": not count_failures(results), "checks": checks}, indent=2)


def count_failures(results: Mapping[str, CheckResult]) -> int:
    return sum(result.status == "fail" for result in results.values())
