"""What a reproduction came to: the run and its second training side by side, and a verdict."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

from sentiment.reproducing.circumstances import Circumstances, Difference, Receipt, plain
from sentiment.reproducing.reproducing import Outcome, Plan
from sentiment.shown import pad, printable, shorten

_WIDTH = 80
_NAME_WIDTH = 38
_MOST_NAMED = 4


def differences_text(plan: Plan) -> str:
    """What differs between then and now: a line for each."""
    lines = [shorten(str(each), _WIDTH) for each in plan.differences]
    if not lines:
        lines = ["versions, revision, device, threads and precision: as then"]
    sides = {"then": plan.then.circumstances.is_dirty, "now": plan.here.is_dirty}
    if any(sides.values()):
        when = " and ".join(name for name, is_dirty in sides.items() if is_dirty)
        lines.append(f"uncommitted changes {when}: git cannot tell whether the code is the same")
    if plan.here.ranks > 1:
        lines.append(f"trained by {plan.here.ranks} ranks, as then, all of them on this machine")
    if teachers := plan.then.teachers:
        lines.append(f"labelled by {len(teachers)} teacher{'s' * (len(teachers) > 1)}, as then")
    if plan.then.pretraining is not None:
        lines.append("started from the same pre-training, as then")
    return "\n".join(lines)


def outcome_table(outcome: Outcome) -> str:
    """Figures then and now, and the largest differences, in 80 columns."""
    then, now, likeness = outcome.then, outcome.now, outcome.likeness
    low, high = then.interval
    figures = [
        ("validation accuracy, best epoch", _percent(then.accuracy), _percent(now.accuracy)),
        ("  its 95 % interval", f"{100 * low:.1f} to {100 * high:.1f}", ""),
        ("validation loss, best epoch", f"{then.loss:.6f}", f"{now.loss:.6f}"),
        *[(name, str(then.result[key]), str(now.result[key]))
          for name, key in (("best epoch", "best_epoch"), ("epochs", "num_epochs"))],
        ("seconds of training", f"{then.result['seconds']:.0f}", f"{now.result['seconds']:.0f}"),
    ]  # fmt: skip
    distances = [
        ("weights, best and last", likeness.weights),
        ("metrics of all epochs", likeness.metrics),
        (f"{likeness.num_points:,} points of curves", likeness.curves),
    ]
    lines = [_row("", "then", "now"), *[_row(*each) for each in figures], ""]
    lines.append(_row("largest difference", "", ""))
    lines += [_row(f"  {name}", "", _number(value)) for name, value in distances]
    lines += [shorten(f"differs: {each}", _WIDTH) for each in outcome.problems[:_MOST_NAMED]]
    return "\n".join(lines)


def _row(name: str, then: str, now: str) -> str:
    columns = (_WIDTH - _NAME_WIDTH) // 2
    line = pad(name, _NAME_WIDTH) + pad(then, columns, right=True) + pad(now, columns, right=True)
    return line.rstrip()


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def _number(distance: float) -> str:
    return f"{distance:.3g}" if math.isfinite(distance) else "not comparable"


def verdict_text(outcome: Outcome) -> str:
    """One sentence: what the reproduction came to, and the likely cause where it is not equal."""
    if outcome.verdict == "equal":
        others = outcome.differences
        despite = f", though {_names(others)} differ{'s' * (len(others) == 1)}" if others else ""
        return f"equal to the bit: weights, metrics and curves{despite}"
    low, high = outcome.then.interval
    interval = f"{100 * low:.1f} to {100 * high:.1f} %"
    accuracy = f"validation accuracy is {_percent(outcome.now.accuracy)}"
    if outcome.verdict == "within":
        distance = _number(outcome.likeness.largest)
        return (
            f"equal within {distance}, not to the bit: {accuracy}, in the 95 % interval of then "
            f"({interval}); the likely cause: {_cause(outcome)}"
        )
    if outcome.may_differ:
        return (
            f"differs: {accuracy}, outside of the 95 % interval of then ({interval}); the likely "
            f"cause: {_cause(outcome)}"
        )
    return (
        "differs, where versions, revision, device, threads and precision are the same and "
        f"equality to the bit was expected; the likely cause: {_cause(outcome)}"
    )


def _cause(outcome: Outcome) -> str:
    then, now = outcome.then.circumstances, outcome.now.circumstances
    if outcome.differences:
        return f"other {_names(outcome.differences)}"
    if outcome.may_differ:
        return f"{now.device_type} adds up in any order"
    if then.is_dirty or now.is_dirty:
        return "code that was changed after its revision, or a run that was changed after training"
    if outcome.then.result.get("num_resumed"):
        return "the run was resumed, perhaps elsewhere, or changed after its training"
    return "the run was changed after its training"


def _names(differences: Sequence[Difference]) -> str:
    named = [each.name for each in differences[:_MOST_NAMED]]
    more = len(differences) - len(named)
    if more:
        named.append(f"{more} more")
    *others, last = named
    return f"{', '.join(others)} and {last}" if others else last


def outcome_json(outcome: Outcome) -> str:
    """All of it for programs; a distance is null where values could not be compared."""
    likeness = outcome.likeness
    distances = {name: getattr(likeness, name) for name in ("weights", "metrics", "curves")}
    values = {
        "verdict": outcome.verdict,
        "sentence": printable(verdict_text(outcome)),
        "differences": [each._asdict() for each in outcome.differences],
        "largest_difference": {
            name: value if math.isfinite(value) else None for name, value in distances.items()
        },
        "num_points": likeness.num_points,
        "problems": outcome.problems,
        "then": _receipt(outcome.then),
        "now": _receipt(outcome.now),
    }
    return json.dumps(values, indent=2, allow_nan=False)


def _receipt(receipt: Receipt) -> dict[str, object]:
    circumstances: Circumstances = receipt.circumstances
    return {**plain(circumstances), "result": receipt.result}
