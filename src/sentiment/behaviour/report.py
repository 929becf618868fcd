"""What a check came to: a table for the terminal, JSON for programs, a page to read."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sentiment.behaviour.checks import BehaviourOutcome, CapabilityOutcome, Failure, Proportion, add
from sentiment.behaviour.contrast import PairsOutcome
from sentiment.display.console import pad, sanitize, truncate
from sentiment.display.pages import write_page
from sentiment.runtime.errors import UserError
from sentiment.runtime.files import write_json

_WIDTH = 80
_NAME_WIDTH = 36
_BAR_WIDTH = 6
_EXAMPLES_PRINTED = 4
_EXAMPLES_ON_PAGE = 10  # of each test
_PAIRS_ON_PAGE = 20


@dataclass(frozen=True)
class Check:
    """All that was found of a run.

    Attributes:
        run: its folder.
        checkpoint: which weights.
        epoch: of the weights.
        seed: what the cases were drawn by.
        behaviours: the capabilities tested, or none.
        pairs: what contrast pairs came to, or None.
    """

    run: str
    checkpoint: str
    epoch: int
    seed: int
    behaviours: tuple[CapabilityOutcome, ...]
    pairs: PairsOutcome | None = None

    @property
    def failed(self) -> Proportion:
        """How many cases of all behaviour tests fail."""
        return add(each.failed for each in self.behaviours)

    @property
    def num_tests(self) -> int:
        """Behaviour tests, of all capabilities."""
        return sum(len(each.tests) for each in self.behaviours)

    def refuse_above(self, max_failure_rate: float | None) -> None:
        """Raise UserError if more than this share of all cases fail; None allows all."""
        if max_failure_rate is not None and self.failed.share > max_failure_rate:
            raise UserError(
                f"{self.failed.count:,} of {self.failed.total:,} cases fail, "
                f"{100 * self.failed.share:.2f} %: more than --max-failure-rate {max_failure_rate}"
            )


def report_text(check: Check) -> str:
    """Tables of at most 80 columns, and the worst failures."""
    weights = f" ({check.checkpoint}, epoch {check.epoch})"
    lines = [truncate(check.run, _WIDTH - len(weights), keep_end=True) + weights]
    if check.behaviours:
        lines += ["", *_behaviour_lines(check), *_worst_lines(check)]
    if check.pairs is not None:
        lines += ["", *_pairs_lines(check.pairs)]
    return "\n".join(lines)


def _behaviour_lines(check: Check) -> Iterator[str]:
    yield _header("failures", "cases", "fail", "rate")
    for capability in check.behaviours:
        yield _row(capability.capability.name, capability.failed, _bar(capability.failed))
        for test in capability.tests:
            yield _row("  " + test.behaviour.name, test.failed)
    yield _row("all", check.failed, _bar(check.failed))


def _header(name: str, total: str, count: str, share: str) -> str:
    return f"{pad(name, _NAME_WIDTH)} {total:>6} {count:>5} {share:>7}   95 % interval"


def _row(name: str, tally: Proportion, bar: str = "") -> str:
    low, high = (f"{100 * bound:.1f}" for bound in tally.interval)
    row = (
        f"{pad(truncate(name, _NAME_WIDTH), _NAME_WIDTH)} {tally.total:>6,} {tally.count:>5,} "
        f"{100 * tally.share:>5.1f} %  {low:>4} to {high:<5}  {bar}"
    )
    return row.rstrip()


def _bar(tally: Proportion) -> str:
    eighths = round(tally.share * _BAR_WIDTH * 8)
    return "█" * (eighths // 8) + ("", *"▏▎▍▌▋▊▉")[eighths % 8]


def _worst_lines(check: Check) -> Iterator[str]:
    """The worst failure of the tests that fail most."""
    tests = [test for each in check.behaviours for test in each.tests if test.failures]
    tests.sort(key=lambda test: -test.failed.share)
    for test in tests[:_EXAMPLES_PRINTED]:
        failure = test.failures[0]
        yield ""
        yield truncate(f"{test.behaviour.name}: {_verdict(test, failure)}", _WIDTH)
        yield from _wrapped(failure.text)
        if failure.changed is not None:
            yield from _wrapped(failure.changed, mark="→ ")


def _verdict(test: BehaviourOutcome, failure: Failure) -> str:
    if failure.probability_before is None:
        return f"{failure.got} ({failure.probability:.2f}), not {failure.expected}"
    probabilities = f"{failure.probability_before:.2f} → {failure.probability:.2f}"
    if test.behaviour.must_not is not None:
        return f"{failure.expected} must not {_fall(test)}, {probabilities}"
    return f"{failure.expected} → {failure.got}, its probability {probabilities}"


def _fall(test: BehaviourOutcome) -> str:
    return "fall" if test.behaviour.must_not == "lower" else "rise"


def _pairs_lines(pairs: PairsOutcome) -> Iterator[str]:
    yield _header("contrast pairs", "of", "hits", "share")
    for name, tally in _pair_rows(pairs):
        yield _row(name, tally)


def _pair_rows(pairs: PairsOutcome) -> list[tuple[str, Proportion]]:
    rows = [
        ("originals right", pairs.original),
        ("contrasts right", pairs.contrast),
        ("both right (consistency)", pairs.consistent),
        ("prediction flips as the label does", pairs.flipped),
        ("prediction stays as the label does", pairs.kept),
    ]
    return [(name, tally) for name, tally in rows if tally.total]


def _wrapped(text: str, mark: str = "") -> list[str]:
    return textwrap.wrap(
        sanitize(" ".join(text.split())),
        _WIDTH,
        initial_indent=f"  {mark}",
        subsequent_indent=" " * (2 + len(mark)),
        max_lines=4,
        placeholder=" …",
    )


def write_reports(check: Check, folder: Path) -> None:
    """Write ``check.json``, with every failure, and ``check.html``, with the worst of them."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "check.json", as_json(check))
    write_page(
        folder / "check.html",
        "check.html",
        check=check,
        verdict=_verdict,
        pair_rows=_pair_rows(check.pairs) if check.pairs else [],
        most_failures=_EXAMPLES_ON_PAGE,
        most_pairs=_PAIRS_ON_PAGE,
    )


def as_json(check: Check) -> dict[str, Any]:
    """All figures and all failures, as plain values."""
    values: dict[str, Any] = {
        "run": check.run,
        "checkpoint": check.checkpoint,
        "epoch": check.epoch,
        "seed": check.seed,
        "behaviours": None,
        "pairs": None,
    }
    if check.behaviours:
        values["behaviours"] = {
            **_failures(check.failed),
            "capabilities": [_capability_json(each) for each in check.behaviours],
        }
    if check.pairs is not None:
        names = ("original", "contrast", "consistent", "flipped", "kept")
        values["pairs"] = {
            "files": list(check.pairs.files),
            **{
                name: getattr(check.pairs, name).as_dict("count", "total", "share")
                for name in names
            },
            "broken": [asdict(pair) for pair in check.pairs.broken],
        }
    return values


def _failures(tally: Proportion) -> dict[str, Any]:
    return tally.as_dict("num_failures", "num_cases", "failure_rate")


def _capability_json(outcome: CapabilityOutcome) -> dict[str, Any]:
    return {
        "capability": outcome.capability.name,
        **_failures(outcome.failed),
        "tests": [
            {
                "name": test.behaviour.name,
                "kind": test.behaviour.kind,
                **_failures(test.failed),
                "failures": [asdict(failure) for failure in test.failures],
            }
            for test in outcome.tests
        ],
    }
