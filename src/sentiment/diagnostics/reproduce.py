"""Training a run again from its receipt, and the comparison with it."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from sentiment.config.config import Config
from sentiment.config.parser import save_config
from sentiment.diagnostics.run_diff import (
    Difference,
    Receipt,
    RunDiff,
    RunEnvironment,
    check_pretraining_here,
    check_reviews,
    check_reviews_here,
    check_teachers_here,
    check_vectors,
    compare_runs,
    current_environment,
    plain,
    read_receipt,
)
from sentiment.display.console import pad, sanitize, truncate
from sentiment.runs.run import load_run, load_settings
from sentiment.runtime.errors import UserError
from sentiment.runtime.files import check_writable
from sentiment.runtime.processes import Output, check_end, run_module

Verdict = Literal["equal", "within", "differs"]

# What a training came to, but for the clock.
_DECIDED = ("num_epochs", "best_epoch", "metrics")
_COMPARED = ("metrics.json", "tensorboard/train", "tensorboard/validation")


@dataclass(frozen=True)
class Places:
    """Where things are now; None where they were then.

    Attributes:
        device: where to compute; None takes the kind of device that the run was trained on.
        data: the folder of the reviews.
        cache: the folder for tokens and downloads.
        vectors: the file of vectors.
    """

    device: str | None = None
    data: str | None = None
    cache: str | None = None
    vectors: str | None = None


@dataclass(frozen=True)
class Plan:
    """A training that is to be done again.

    Attributes:
        run: the run's folder.
        config: its settings, for here.
        then: its receipt.
        here: what it will be done by and on now.
    """

    run: Path
    config: Config
    then: Receipt
    here: RunEnvironment

    @property
    def differences(self) -> list[Difference]:
        return self.then.circumstances.differences(self.here)


@dataclass(frozen=True)
class Outcome:
    """A run and its reproduction.

    Attributes:
        likeness: how far they are from each other.
        then, now: their receipts.
    """

    likeness: RunDiff
    then: Receipt
    now: Receipt

    @property
    def differences(self) -> list[Difference]:
        """What was otherwise."""
        return self.then.circumstances.differences(self.now.circumstances)

    @property
    def problems(self) -> list[str]:
        """What differs and is no number."""
        found = list(self.likeness.problems)
        for name in _DECIDED:
            if self.then.result.get(name) != self.now.result.get(name):
                found.append(f"run.json: {name} of the result")
        return found

    @property
    def may_differ(self) -> bool:
        """Whether equality to the bit was not to be expected: GPUs may add up in any order."""
        return bool(self.differences) or self.now.circumstances.device_type != "cpu"

    @property
    def verdict(self) -> Verdict:
        """Equal to the bit; or near enough where that was not to be expected; or neither."""
        if self.likeness.is_equal and not self.problems:
            return "equal"
        low, high = self.then.interval
        return "within" if self.may_differ and low <= self.now.accuracy <= high else "differs"


def plan_training(run: Path, output: Path, places: Places) -> Plan:
    """Look at everything that could go wrong, before anything is trained.

    Args:
        run: the run's folder.
        output: where it is to be trained again.
        places: what lies elsewhere now.

    Raises:
        FileNotFoundError: the folder is not a run, or a file of it is missing.
        FileExistsError: ``output`` is not empty.
        UserError: the run is damaged or not finished; its reviews, vectors, teachers or
            pre-training are others now; its device is not there.
    """
    check_writable(output)
    if output.is_dir() and any(output.iterdir()):
        raise FileExistsError(f"{output} is not empty: give --output a new folder")
    then = read_receipt(run)
    config = _config_here(load_settings(run), then, output, places)
    _check_comparable(run)
    here = current_environment(
        config, ranks=then.circumstances.ranks, threads=_threads_here(then.circumstances)
    )
    _check_ranks(here)
    check_teachers_here(then.teachers, config, run)
    check_pretraining_here(then.pretraining, run)
    check_reviews_here(then.data, config, run)
    check_vectors(then.vectors, config, run)
    return Plan(run, config, then, here)


def _config_here(own: Config, receipt: Receipt, output: Path, places: Places) -> Config:
    then = receipt.circumstances
    kind = then.device_type if own.device == "auto" or then.ranks > 1 else own.device
    pretraining = own.pretraining
    if receipt.pretraining is not None:  # that of then, also one that the run has made itself
        pretraining = replace(pretraining, path=receipt.pretraining["path"])
    distillation = own.distillation
    if distillation.trains_teachers:
        named = tuple(each["path"] for each in receipt.teachers)
        distillation = replace(distillation, teachers=named, num_teachers=0)
    return replace(
        own,
        output_dir=str(output),
        device=places.device or kind,
        pretraining=pretraining,
        distillation=distillation,
        data=replace(
            own.data,
            path=own.data.path if places.data is None else places.data,
            cache_dir=own.data.cache_dir if places.cache is None else places.cache,
        ),
        vectors=replace(
            own.vectors, path=own.vectors.path if places.vectors is None else places.vectors
        ),
    )


def _check_comparable(run: Path) -> None:
    """Meet now what comparing would miss after the training."""
    for name in ("best", "last"):
        load_run(run, checkpoint=name)
    for name in _COMPARED:
        if not (run / name).exists():
            raise FileNotFoundError(
                f"the run has no {run / name}: copy it from where it was trained"
            )


def _threads_here(then: RunEnvironment) -> int:
    """As many as then, where there are cores for them."""
    import joblib  # as sentiment.runtime.device does

    share = max(1, joblib.cpu_count() // then.ranks)
    # Of several ranks, one thread each cannot be told from the launcher's default.
    return share if then.ranks > 1 and then.threads == 1 else min(then.threads, share)


def _check_ranks(here: RunEnvironment) -> None:
    """All ranks are started on this machine, and on GPUs each needs one of its own."""
    if here.ranks == 1 or here.device_type == "cpu":
        return
    import torch

    count = torch.cuda.device_count()
    if count < here.ranks:
        raise UserError(
            f"the run was trained by {here.ranks} ranks with a GPU each, and this machine has "
            f"{count}: reproduce it on one with as many, or give --device cpu"
        )


def train_again(plan: Plan, output: Output = "shown") -> None:
    """Train as planned, in processes of their own.

    Raises:
        UserError: it failed.
    """
    with tempfile.TemporaryDirectory(prefix="reproduce-") as folder:
        file = Path(folder) / "config.yaml"
        save_config(plan.config, file)
        done = run_module(
            ["sentiment", "train", f"--config={file}"],
            num_ranks=plan.here.ranks,
            num_threads=plan.here.threads,
            output=output,
        )
    check_end(done)


def reproduce(plan: Plan, train: Callable[[Plan], None] = train_again) -> Outcome:
    """Train as planned, and compare.

    Raises:
        UserError: the training failed, or it found other reviews than were there before.
    """
    train(plan)
    again = Path(plan.config.output_dir)
    now = read_receipt(again)
    check_reviews(plan.then.data, now.data, plan.run)
    return Outcome(compare_runs(plan.run, again), plan.then, now)


_WIDTH = 80
_NAME_WIDTH = 38
_MOST_NAMED = 4


def differences_text(plan: Plan) -> str:
    """What differs between then and now: a line for each."""
    lines = [truncate(str(each), _WIDTH) for each in plan.differences]
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
    lines += [truncate(f"differs: {each}", _WIDTH) for each in outcome.problems[:_MOST_NAMED]]
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
        "sentence": sanitize(verdict_text(outcome)),
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
    circumstances: RunEnvironment = receipt.circumstances
    return {**plain(circumstances), "result": receipt.result}
