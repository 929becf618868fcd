"""Training a run again from its provenance, and the comparison with it."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from sentiment.config.config import Config
from sentiment.config.parser import save_config
from sentiment.diagnostics.run_diff import (
    Difference,
    Provenance,
    RunDiff,
    RunEnvironment,
    check_inputs,
    check_reviews,
    compare_runs,
    current_environment,
    read_provenance,
)
from sentiment.display.console import COLUMNS, format_table, sanitize, truncate
from sentiment.runs.run import load_run, load_settings
from sentiment.runtime.errors import UserError
from sentiment.runtime.files import check_writable
from sentiment.runtime.processes import Output, check_exit, run_module
from sentiment.tuning.search_space import with_values

Verdict = Literal["equal", "within", "differs"]

_COMPARED_RESULTS = ("num_epochs", "best_epoch", "metrics")
_COMPARED_FILES = ("metrics.json", "tensorboard/train", "tensorboard/validation")
_MAX_LISTED = 4


@dataclass(frozen=True)
class ReproductionPlan:
    """A training to repeat."""

    run: Path
    config: Config  # the run's settings, adapted to this machine
    provenance: Provenance
    environment: RunEnvironment  # of the new training


@dataclass(frozen=True)
class Reproduction:
    """A run and the training that repeated it."""

    diff: RunDiff
    then: Provenance
    now: Provenance

    @property
    def differences(self) -> list[Difference]:
        return self.then.environment.differences(self.now.environment)

    @property
    def problems(self) -> list[str]:
        """Differences other than numbers."""
        changed = [
            f"run.json: {name} of the result"
            for name in _COMPARED_RESULTS
            if self.then.result.get(name) != self.now.result.get(name)
        ]
        return [*self.diff.problems, *changed]

    @property
    def may_differ(self) -> bool:
        """Whether the last digits may differ: GPUs, for example, sum in any order."""
        return bool(self.differences) or self.now.environment.device_type != "cpu"

    @property
    def verdict(self) -> Verdict:
        """Equal to the bit; or, where last digits may differ, within the interval; or different."""
        if self.diff.is_equal and not self.problems:
            return "equal"
        low, high = self.then.interval
        return "within" if self.may_differ and low <= self.now.accuracy <= high else "differs"


def plan_reproduction(run: Path, output: Path, overrides: Mapping[str, str]) -> ReproductionPlan:
    """Plan to train a run again in ``output``, after checking everything that could fail.

    ``overrides`` are a device and paths by their dotted keys, to use instead of the run's.

    Raises:
        FileNotFoundError, FileExistsError: a file of the run is missing, or ``output`` not empty.
        UserError: the run is damaged or not finished, its inputs have changed, or its device is not
            available.
    """
    check_writable(output)
    if output.is_dir() and any(output.iterdir()):
        raise FileExistsError(f"{output} is not empty: give --output a new folder")
    provenance = read_provenance(run)
    config = _adapt_config(load_settings(run), provenance, output, overrides)
    for name in ("best", "last"):
        load_run(run, checkpoint=name)
    for name in _COMPARED_FILES:
        if not (run / name).exists():
            raise FileNotFoundError(f"{run / name} is missing: copy it from where it was trained")
    ranks, threads = provenance.environment.ranks, _num_threads(provenance.environment)
    environment = current_environment(config, ranks=ranks, threads=threads)
    _check_gpus(environment)
    check_inputs(provenance, config, run)
    return ReproductionPlan(run, config, provenance, environment)


def _adapt_config(
    config: Config, provenance: Provenance, output: Path, overrides: Mapping[str, str]
) -> Config:
    values: dict[str, Any] = {"output_dir": str(output)}
    if config.device == "auto" or provenance.environment.ranks > 1:
        values["device"] = provenance.environment.device_type
    if provenance.pretraining is not None:  # also if the run pre-trained by itself
        values["pretraining.path"] = provenance.pretraining["path"]
    if config.distillation.trains_teachers:
        teachers = tuple(teacher["path"] for teacher in provenance.teachers)
        values |= {"distillation.teachers": teachers, "distillation.num_teachers": 0}
    return with_values(config, {**values, **overrides})


def _num_threads(then: RunEnvironment) -> int:
    """As many threads as the run had, if there are enough cores."""
    import joblib  # counts cores as sentiment.runtime.device does

    share = max(1, joblib.cpu_count() // then.ranks)
    # With several ranks, one thread is also the launcher's default.
    return share if then.ranks > 1 and then.threads == 1 else min(then.threads, share)


def _check_gpus(environment: RunEnvironment) -> None:
    """All ranks start on this machine; on GPUs, each needs its own."""
    if environment.ranks == 1 or environment.device_type == "cpu":
        return
    import torch

    count = torch.cuda.device_count()
    if count < environment.ranks:
        raise UserError(
            f"the run was trained by {environment.ranks} ranks with a GPU each, and this machine "
            f"has {count}: reproduce it on a machine with as many, or give --device cpu"
        )


def train_again(plan: ReproductionPlan, output: Output = "shown") -> None:
    """Train as planned, in child processes.

    ``UserError`` if that fails.
    """
    ranks, threads = plan.environment.ranks, plan.environment.threads
    with tempfile.TemporaryDirectory(prefix="reproduce-") as folder:
        path = Path(folder) / "config.yaml"
        save_config(plan.config, path)
        train = ["sentiment", "train", f"--config={path}"]
        process = run_module(train, num_ranks=ranks, num_threads=threads, output=output)
    check_exit(process)


def reproduce(
    plan: ReproductionPlan, train: Callable[[ReproductionPlan], None] = train_again
) -> Reproduction:
    """Train as planned, and compare; ``UserError`` if that fails or the reviews have changed."""
    train(plan)
    output = Path(plan.config.output_dir)
    now = read_provenance(output)
    check_reviews(plan.provenance.data, now.data, plan.run)
    return Reproduction(compare_runs(plan.run, output), plan.provenance, now)


def differences_text(plan: ReproductionPlan) -> str:
    """What has changed since the run was trained, one line each."""
    provenance = plan.provenance
    differences = provenance.environment.differences(plan.environment)
    lines = [truncate(str(difference), COLUMNS) for difference in differences]
    if not lines:
        lines = ["versions, revision, device, threads and precision: unchanged"]
    is_dirty = {"then": provenance.environment.is_dirty, "now": plan.environment.is_dirty}
    if any(is_dirty.values()):
        when = " and ".join(name for name, dirty in is_dirty.items() if dirty)
        lines.append(f"uncommitted changes {when}: git cannot tell whether the code is the same")
    if plan.environment.ranks > 1:
        lines.append(f"trained by {plan.environment.ranks} ranks, as before, all on this machine")
    if count := len(provenance.teachers):
        lines.append(f"labelled by {count} teacher{'s' * (count > 1)}, as before")
    if provenance.pretraining is not None:
        lines.append("started from the same pre-training, as before")
    return "\n".join(lines)


def reproduction_table(reproduction: Reproduction) -> str:
    """Figures of both runs, and the largest differences, in 80 columns."""
    then, now, diff = reproduction.then, reproduction.now, reproduction.diff
    low, high = then.interval
    rows = [
        ("", "then", "now"),
        ("validation accuracy, best epoch", _percent(then.accuracy), _percent(now.accuracy)),
        ("  its 95 % interval", f"{100 * low:.1f} to {100 * high:.1f}"),
        ("validation loss, best epoch", f"{then.loss:.6f}", f"{now.loss:.6f}"),
        ("best epoch", str(then.result["best_epoch"]), str(now.result["best_epoch"])),
        ("epochs", str(then.result["num_epochs"]), str(now.result["num_epochs"])),
        ("seconds of training", f"{then.result['seconds']:.0f}", f"{now.result['seconds']:.0f}"),
        (),
        ("largest difference",),
        ("  weights, best and last", "", _number(diff.weights)),
        ("  metrics of all epochs", "", _number(diff.metrics)),
        (f"  {diff.num_points:,} points of curves", "", _number(diff.curves)),
    ]
    lines = [format_table(rows, min_widths=(36, 18, 18), indent=0)]
    lines += [
        truncate(f"differs: {problem}", COLUMNS) for problem in reproduction.problems[:_MAX_LISTED]
    ]
    return "\n".join(lines)


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def _number(difference: float) -> str:
    return f"{difference:.3g}" if math.isfinite(difference) else "not comparable"


def verdict_text(reproduction: Reproduction) -> str:
    """The verdict in one sentence, with the likely cause of a difference."""
    if reproduction.verdict == "equal":
        changed = reproduction.differences
        despite = f", though {_names(changed)} differ{'s' * (len(changed) == 1)}" if changed else ""
        return f"equal to the bit: weights, metrics and curves{despite}"
    low, high = reproduction.then.interval
    interval = f"95 % interval of the run ({100 * low:.1f} to {100 * high:.1f} %)"
    accuracy = f"validation accuracy is {_percent(reproduction.now.accuracy)}"
    if reproduction.verdict == "within":
        text = (
            f"equal within {_number(reproduction.diff.largest)}, not to the bit: {accuracy}, in "
            f"the {interval}"
        )
    elif reproduction.may_differ:
        text = f"differs: {accuracy}, outside the {interval}"
    else:
        text = (
            "differs, although versions, revision, device, threads and precision are the same and "
            "equality to the bit was expected"
        )
    return f"{text}; the likely cause: {_likely_cause(reproduction)}"


def _likely_cause(reproduction: Reproduction) -> str:
    then, now = reproduction.then.environment, reproduction.now.environment
    if reproduction.differences:
        return f"other {_names(reproduction.differences)}"
    if reproduction.may_differ:
        return f"{now.device_type} sums in any order"
    if then.is_dirty or now.is_dirty:
        return "code changed after its revision, or a run changed after its training"
    if reproduction.then.result.get("num_resumed"):
        return "the run was resumed, perhaps elsewhere, or changed after its training"
    return "the run was changed after its training"


def _names(differences: Sequence[Difference]) -> str:
    names = [difference.name for difference in differences[:_MAX_LISTED]]
    if len(differences) > len(names):
        names.append(f"{len(differences) - len(names)} more")
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def reproduction_json(reproduction: Reproduction) -> str:
    """Everything as JSON; a difference is null where values could not be compared."""
    diff = reproduction.diff
    largest = {"weights": diff.weights, "metrics": diff.metrics, "curves": diff.curves}
    values = {
        "verdict": reproduction.verdict,
        "sentence": sanitize(verdict_text(reproduction)),
        "differences": [difference._asdict() for difference in reproduction.differences],
        "largest_difference": {
            name: value if math.isfinite(value) else None for name, value in largest.items()
        },
        "num_points": diff.num_points,
        "problems": reproduction.problems,
        "then": _provenance_values(reproduction.then),
        "now": _provenance_values(reproduction.now),
    }
    return json.dumps(values, indent=2, allow_nan=False)


def _provenance_values(provenance: Provenance) -> dict[str, object]:
    return {**asdict(provenance.environment), "result": provenance.result}
