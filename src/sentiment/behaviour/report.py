"""The results of a check: a table for the terminal, JSON and an HTML page."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sentiment.behaviour.checks import (
    BehaviourOutcome,
    CapabilityOutcome,
    Failure,
    PairsOutcome,
    Proportion,
    add,
)
from sentiment.display.console import COLUMNS, format_table, sanitize, truncate
from sentiment.display.plots import write_page
from sentiment.runtime.files import write_json

_BAR_COLUMNS = 6


@dataclass(frozen=True)
class Check:
    """The results of ``sentiment check`` for one run: behaviour tests, contrast pairs or both."""

    run: str
    checkpoint: str
    epoch: int
    seed: int
    behaviours: tuple[CapabilityOutcome, ...]
    pairs: PairsOutcome | None = None

    @property
    def failed(self) -> Proportion:
        return add(outcome.failed for outcome in self.behaviours)


def report_text(check: Check) -> str:
    """Tables and the worst failures, in at most 80 columns."""
    weights = f" ({check.checkpoint}, epoch {check.epoch})"
    lines = [truncate(check.run, COLUMNS - len(weights), keep_end=True) + weights]
    if check.behaviours:
        rows: list[tuple[str, ...]] = [("failures", "cases", "fail", "rate", "95 % interval")]
        for outcome in check.behaviours:
            rows.append(_row(outcome.capability.name, outcome.failed, with_bar=True))
            rows += [_row(f"  {test.behaviour.name}", test.failed) for test in outcome.tests]
        rows.append(_row("all", check.failed, with_bar=True))
        lines += ["", _table(rows), *_worst_failures(check)]
    if check.pairs is not None:
        rows = [("contrast pairs", "of", "hits", "share", "95 % interval")]
        rows += [_row(name, proportion) for name, proportion in _pair_rows(check.pairs)]
        lines += ["", _table(rows)]
    return "\n".join(lines)


def _table(rows: list[tuple[str, ...]]) -> str:
    return format_table(rows, align="<>>><", min_widths=(33, 6, 5, 7), indent=0)


def _row(name: str, proportion: Proportion, *, with_bar: bool = False) -> tuple[str, ...]:
    low, high = (f"{100 * bound:.1f}" for bound in proportion.interval)
    share = f"{100 * proportion.share:.1f} %"
    cells = (name, f"{proportion.total:,}", f"{proportion.count:,}", share, f"{low:>4} to {high}")
    if not with_bar:
        return cells
    eighths = round(proportion.share * _BAR_COLUMNS * 8)
    return (*cells, "█" * (eighths // 8) + ("", *"▏▎▍▌▋▊▉")[eighths % 8])


def _worst_failures(check: Check) -> Iterator[str]:
    """The worst failure of each of the four tests that fail most often."""
    tests = [test for outcome in check.behaviours for test in outcome.tests if test.failures]
    tests.sort(key=lambda test: -test.failed.share)
    for test in tests[:4]:
        failure = test.failures[0]
        yield ""
        yield truncate(f"{test.behaviour.name}: {_verdict(test, failure)}", COLUMNS)
        yield from _wrap(failure.text)
        if failure.changed is not None:
            yield from _wrap(failure.changed, mark="→ ")


def _verdict(test: BehaviourOutcome, failure: Failure) -> str:
    if failure.probability_before is None:
        return f"{failure.got} ({failure.probability:.2f}), not {failure.expected}"
    probabilities = f"{failure.probability_before:.2f} → {failure.probability:.2f}"
    if test.behaviour.must_not is not None:
        verb = "fall" if test.behaviour.must_not == "lower" else "rise"
        return f"{failure.expected} must not {verb}, {probabilities}"
    return f"{failure.expected} → {failure.got}, its probability {probabilities}"


def _pair_rows(pairs: PairsOutcome) -> list[tuple[str, Proportion]]:
    rows = [
        ("originals right", pairs.original),
        ("contrasts right", pairs.contrast),
        ("both right (consistency)", pairs.consistent),
        ("prediction flips with the label", pairs.flipped),
        ("prediction stays with the label", pairs.kept),
    ]
    return [(name, proportion) for name, proportion in rows if proportion.total]


def _wrap(text: str, mark: str = "") -> list[str]:
    text, indent = sanitize(" ".join(text.split())), " " * (2 + len(mark))
    return textwrap.wrap(
        text, COLUMNS, initial_indent=f"  {mark}", subsequent_indent=indent,
        max_lines=4, placeholder=" …",
    )  # fmt: skip


def write_reports(check: Check, folder: Path) -> None:
    """Write ``check.json`` with every failure and ``check.html`` with the worst ones."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "check.json", as_json(check))
    write_page(
        folder / "check.html",
        "check.html",
        check=check,
        verdict=_verdict,
        pair_rows=_pair_rows(check.pairs) if check.pairs else [],
        most_failures=10,  # per test
        most_pairs=20,
    )


def as_json(check: Check) -> dict[str, Any]:
    """All figures and failures as plain values."""
    names = ("run", "checkpoint", "epoch", "seed")
    values: dict[str, Any] = {name: getattr(check, name) for name in names}
    values |= {"behaviours": None, "pairs": None}
    if check.behaviours:
        values["behaviours"] = {
            **_failures_json(check.failed),
            "capabilities": [
                {
                    "capability": outcome.capability.name,
                    **_failures_json(outcome.failed),
                    "tests": [_test_json(test) for test in outcome.tests],
                }
                for outcome in check.behaviours
            ],
        }
    if check.pairs is not None:
        values["pairs"] = {"files": list(check.pairs.files)}
        for name in ("original", "contrast", "consistent", "flipped", "kept"):
            proportion: Proportion = getattr(check.pairs, name)
            values["pairs"][name] = proportion.as_dict("count", "total", "share")
        values["pairs"]["broken"] = [asdict(pair) for pair in check.pairs.broken]
    return values


def _test_json(test: BehaviourOutcome) -> dict[str, Any]:
    return {
        "name": test.behaviour.name,
        "kind": test.behaviour.kind,
        **_failures_json(test.failed),
        "failures": [asdict(failure) for failure in test.failures],
    }


def _failures_json(failed: Proportion) -> dict[str, Any]:
    return failed.as_dict("num_failures", "num_cases", "failure_rate")
