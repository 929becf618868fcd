"""Training a run again and comparing: from its provenance, or killed on the way and resumed."""

from __future__ import annotations

import json
import logging
import math
import random
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
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
from sentiment.runs.manifest import read_manifest
from sentiment.runs.run import load_run, load_settings
from sentiment.runs.weights import read_weights
from sentiment.runtime.errors import UserError
from sentiment.runtime.files import check_writable
from sentiment.runtime.processes import KILLED, Output, check_exit, run_module
from sentiment.tuning.search_space import with_values

Verdict = Literal["equal", "within", "differs"]

_COMPARED_FILES = ("metrics.json", "tensorboard/train", "tensorboard/validation")
_MAX_LISTED = 4
_CHECKPOINT_UPDATES = 7  # a prime, so that epochs end between two checkpoints

logger = logging.getLogger(__name__)


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
        """Differences that are not numeric."""
        changed = [
            f"run.json: {name} of the result"
            for name in ("num_epochs", "best_epoch", "metrics")
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
    if config.distillation.has_teachers:  # also if they were trained for the run
        teachers = tuple(teacher["path"] for teacher in provenance.teachers)
        values |= {
            "distillation.teachers": teachers, "distillation.num_teachers": 0,
            "distillation.baseline": False,
        }  # fmt: skip
    return with_values(config, {**values, **overrides})


def _num_threads(then: RunEnvironment) -> int:
    """As many threads as the run had, if there are enough cores."""
    import joblib  # counts cores as sentiment.runtime.device does

    share = max(1, joblib.cpu_count() // then.ranks)
    # With several ranks, one thread is also the launcher's default.
    return share if then.ranks > 1 and then.threads == 1 else min(then.threads, share)


def reproduce(plan: ReproductionPlan, output: Output = "shown") -> Reproduction:
    """Train as planned, in child processes, and compare.

    Raises ``UserError`` if the training fails or the reviews have changed.
    """
    environment = plan.environment
    with tempfile.TemporaryDirectory(prefix="reproduce-") as folder:
        path = Path(folder) / "config.yaml"
        save_config(plan.config, path)
        process = run_module(
            ["sentiment", "train", f"--config={path}"],
            num_ranks=environment.ranks, num_threads=environment.threads, output=output,
        )  # fmt: skip
    check_exit(process)
    trained = Path(plan.config.output_dir)
    now = read_provenance(trained)
    check_reviews(plan.provenance.data, now.data, plan.run)
    return Reproduction(compare_runs(plan.run, trained), plan.provenance, now)


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
    problems = reproduction.problems[:_MAX_LISTED]
    lines = [truncate(f"differs: {problem}", COLUMNS) for problem in problems]
    return "\n".join([format_table(rows, min_widths=(36, 18, 18), indent=0), *lines])


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def _number(difference: float) -> str:
    return f"{difference:.3g}" if math.isfinite(difference) else "not comparable"


def verdict_text(reproduction: Reproduction) -> str:
    """The verdict in one sentence."""
    if reproduction.verdict == "equal":
        return "equal to the bit: weights, metrics and curves"
    low, high = reproduction.then.interval
    interval = f"the 95 % interval of the run ({100 * low:.1f} to {100 * high:.1f} %)"
    accuracy = f"validation accuracy is {_percent(reproduction.now.accuracy)}"
    if reproduction.verdict == "within":
        largest = _number(reproduction.diff.largest)
        return f"equal within {largest}, not to the bit: {accuracy}, in {interval}"
    if reproduction.may_differ:
        return f"differs: {accuracy}, outside {interval}"
    return (
        "differs, although versions, revision, device, threads and precision are the same and "
        "equality to the bit was expected"
    )


def reproduction_json(reproduction: Reproduction) -> str:
    """Everything as JSON; a difference is null where values could not be compared."""
    diff = reproduction.diff
    largest = {"weights": diff.weights, "metrics": diff.metrics, "curves": diff.curves}
    values: dict[str, Any] = {
        "verdict": reproduction.verdict,
        "sentence": sanitize(verdict_text(reproduction)),
        "differences": [difference._asdict() for difference in reproduction.differences],
        "largest_difference": {
            name: value if math.isfinite(value) else None for name, value in largest.items()
        },
        "num_points": diff.num_points,
        "problems": reproduction.problems,
    }
    for name, side in (("then", reproduction.then), ("now", reproduction.now)):
        values[name] = {**asdict(side.environment), "result": side.result}
    return json.dumps(values, indent=2, allow_nan=False)


def verify_resume(config: Config) -> None:
    """Train twice in child processes, once killed at a random update and resumed, and compare.

    Raises ``UserError`` if the two runs are not equal or a training failed.
    """
    with tempfile.TemporaryDirectory(prefix="verify-resume-") as folder:
        whole, resumed = Path(folder) / "whole", Path(folder) / "resumed"
        path = Path(folder) / "config.yaml"
        training = config.training
        if training.checkpoint_updates is None:
            training = replace(training, checkpoint_updates=_CHECKPOINT_UPDATES)
        save_config(replace(config, training=training), path)
        logger.info("training without interruption")
        train = ["sentiment", "train"]
        check_exit(run_module([*train, f"--config={path}", f"--output_dir={whole}"]))
        num_updates = read_weights(whole, "last")[1].update
        last = random.randrange(1, num_updates + 1)  # independent of the seed
        logger.info("training again, killed after update %d of %d", last, num_updates)
        train_until = ["sentiment.cli.train", str(last)]
        killed = run_module([*train_until, f"--config={path}", f"--output_dir={resumed}"])
        check_exit(killed, KILLED)
        logger.info("resuming")
        check_exit(run_module([*train, f"--resume={resumed}"]))
        assert read_manifest(resumed)["result"]["num_resumed"] == 1
        diff = compare_runs(whole, resumed)
    if not diff.is_equal:
        problems = "".join(f"; {problem}" for problem in diff.problems[:3])
        raise UserError(
            "the resumed run differs from the uninterrupted one: by "
            f"{diff.weights:.3g} in a weight, {diff.metrics:.3g} in a metric, "
            f"{diff.curves:.3g} in a curve{problems}: on a GPU, where some kernels sum in any "
            "order, this can happen; on a CPU it is a bug"
        )
    logger.info(
        f"equal to the bit: best and last weights, all metrics and the {diff.num_points:,} points "
        f"of the curves, after a kill at update {last} of {num_updates}"
    )
