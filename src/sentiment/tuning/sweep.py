"""A sweep: its trials on disk, shared by any number of processes, their trainings, their table."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, Trial, TrialState

from sentiment.config.config import Config, deciding_settings
from sentiment.config.parser import save_config
from sentiment.display.console import format_table, sanitize, truncate, wrap_text
from sentiment.runtime.device import mixed_seed
from sentiment.runtime.errors import UserError
from sentiment.runtime.files import LOCK, beside
from sentiment.tuning.search_space import Search, with_values
from sentiment.tuning.trainings import (
    SignalForwarder,
    TrainingOutcome,
    check_unchanged,
    folder_lock,
    read_definition,
    read_epochs,
    run_training,
    try_claim,
    write_or_read_definition,
)

_DEFINITION = "sweep.json"
_LOWER_IS_BETTER = {"nll"}
# How a trial ends, in the order of the table.
_STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.RUNNING: "not finished",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


@dataclass
class ClaimedTrial:
    """A trial that this process works on."""

    trial: Trial
    values: dict[str, Any]  # of the settings that are searched
    claim: FileLock  # keeps other processes from the trial
    is_resumed: bool
    reported: set[int]  # epochs whose scores Optuna has

    @property
    def number(self) -> int:
        return self.trial.number


class Study:
    """The trials of a search in a sweep's folder, which is created if missing.

    Raises:
        FileExistsError, UserError: the folder holds something else, or another or damaged search.
    """

    def __init__(self, folder: Path, search: Search, config: Config) -> None:
        self.folder = folder
        self._search = search
        self._config = config
        self._lock = folder_lock(folder)
        for name in ("trials", "work"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        space, settings = search.text, deciding_settings(config)
        settings = {key: value for key, value in settings.items() if key not in space}
        definition = {"settings": settings, "space": space}
        with self._lock:
            before = write_or_read_definition(
                folder / _DEFINITION, definition, kind="sweep", allowed=(LOCK, "trials", "work")
            )
            check_unchanged(folder, before["settings"] | before["space"], settings | space)
            self._study = _open_journal(folder, config.training.monitor)
        pruners = optuna.pruners
        self._study.pruner = pruners.MedianPruner() if search.pruning else pruners.NopPruner()

    def next_trial(self, num_trials: int) -> ClaimedTrial | None:
        """An interrupted trial, else a new one; None once all are finished or being trained.

        ``num_trials`` counts those of all processes, failed ones included.
        """
        with self._lock:
            for running in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                if claim := self._try_claim(running.number):
                    trial = Trial(self._study, running._trial_id)
                    return self._claimed(trial, claim, set(running.intermediate_values))
            while (number := len(self._study.get_trials(deepcopy=False))) < num_trials:
                self._study.sampler = _sampler(self._config.seed, number)
                trial = self._study.ask()
                claim = self._try_claim(trial.number)
                assert claim is not None  # no other process knows of the trial
                new = self._claimed(trial, claim, None)
                if not self._copy_score(new):
                    return new
        return None

    def _try_claim(self, number: int) -> FileLock | None:
        claim = self.work_files(number).with_suffix(".claim")
        return try_claim(claim, trial_run(self.folder, number))

    def _claimed(self, trial: Trial, claim: FileLock, reported: set[int] | None) -> ClaimedTrial:
        for key, dimension in self._search.space.items():
            trial._suggest(key, dimension)  # as suggest_float and its like: a value is drawn once
        return ClaimedTrial(trial, trial.params, claim, reported is not None, reported or set())

    def _copy_score(self, new: ClaimedTrial) -> bool:
        """Give a trial the score of a complete one with the same values, if there is one."""
        for complete in self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
            if complete.params == new.values:
                same_as = complete.user_attrs.get("same_as", complete.number)
                new.trial.set_user_attr("same_as", same_as)
                self._study.tell(new.number, complete.value)
                new.claim.release()
                return True
        return False

    def report(self, claimed: ClaimedTrial, epoch: int, score: float) -> bool:
        """Report an epoch's score; returns whether the trial should be pruned."""
        with self._lock:
            if epoch not in claimed.reported:
                claimed.reported.add(epoch)
                claimed.trial.report(score, epoch)
            return claimed.trial.should_prune()

    def complete(self, claimed: ClaimedTrial, score: float) -> None:
        """Record a trial's score, and write the settings of the best trial to best.yaml."""
        with self._lock:
            self._study.tell(claimed.number, score)
            config = with_values(self._config, self._study.best_trial.params)
            output_dir = str(beside(config.output_dir, "-best"))
            save_config(replace(config, output_dir=output_dir), self.folder / "best.yaml")

    def prune(self, claimed: ClaimedTrial) -> None:
        with self._lock:
            self._study.tell(claimed.number, state=TrialState.PRUNED)

    def fail(self, claimed: ClaimedTrial, message: str) -> None:
        with self._lock:
            claimed.trial.set_user_attr("message", message)
            self._study.tell(claimed.number, state=TrialState.FAIL)

    def config_of(self, claimed: ClaimedTrial) -> Config:
        """The settings of a trial; ``UserError`` if its values contradict each other."""
        config = with_values(self._config, claimed.values)
        return replace(config, output_dir=str(trial_run(self.folder, claimed.number)))

    def work_files(self, number: int) -> Path:
        """A trial's settings (.yaml), output (.log) and lock (.claim), without ending."""
        return self.folder / "work" / f"{number:03d}"


def trial_run(folder: Path, number: int) -> Path:
    return folder / "trials" / f"{number:03d}"


def read_trials(folder: Path) -> tuple[list[FrozenTrial], str]:
    """All trials of a sweep, and the metric that compares them."""
    path = folder / _DEFINITION
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no sweep: it has no {_DEFINITION}")
    metric = read_definition(path)["settings"]["training.monitor"]
    with folder_lock(folder):
        return _open_journal(folder, metric).get_trials(), metric


def _open_journal(folder: Path, metric: str) -> optuna.Study:
    """Open or create the study, with the folder locked."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    path = folder / "study.log"
    _remove_torn_line(path)
    # Optuna's default lock is a symbolic link, which Windows lets few users make.
    backend = JournalFileBackend(str(path), lock_obj=JournalFileOpenLock(str(path)))
    try:
        return optuna.create_study(
            storage=JournalStorage(backend),
            study_name="sweep",
            direction="minimize" if metric in _LOWER_IS_BETTER else "maximize",
            load_if_exists=True,
        )
    except (ValueError, LookupError, TypeError, AssertionError) as error:
        raise UserError(
            f"{path} is damaged ({type(error).__name__}): start again in another --output_dir"
        ) from error


def _remove_torn_line(path: Path) -> None:
    """Remove a line that a full disk cut short: the next one would be appended to it."""
    data = path.read_bytes() if path.exists() else b""
    if data and not data.endswith(b"\n"):
        with path.open("r+b") as file:
            file.truncate(data.rfind(b"\n") + 1)


def _sampler(seed: int, number: int) -> optuna.samplers.BaseSampler:
    """A sampler by seed and trial, so that a resumed search repeats no draw."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        # Running trials count as bad ones, so that processes try different values.
        return optuna.samplers.TPESampler(seed=mixed_seed(seed, number), constant_liar=True)


def best_score(scores: Sequence[float], metric: str) -> float:
    return min(scores) if metric in _LOWER_IS_BETTER else max(scores)


def trial_score(trial: FrozenTrial, metric: str) -> float | None:
    """A trial's score, or the best one it has reported."""
    if trial.state == TrialState.COMPLETE:
        return trial.value
    scores = list(trial.intermediate_values.values())
    return best_score(scores, metric) if scores else None


def sort_trials(trials: Sequence[FrozenTrial], metric: str) -> list[FrozenTrial]:
    """Complete trials from the best to the worst, then those running, pruned and failed."""
    states, sign = list(_STATES), 1 if metric in _LOWER_IS_BETTER else -1

    def rank(trial: FrozenTrial) -> tuple[Any, ...]:
        score = trial_score(trial, metric)
        return states.index(trial.state), score is None, sign * (score or 0.0), trial.number

    return sorted((trial for trial in trials if trial.state in states), key=rank)


def run_trials(
    study: Study, num_trials: int, metric: str, announce: Callable[[ClaimedTrial, str], None]
) -> int:
    """Train until no trial is left to start or resume, or a signal comes.

    ``num_trials`` counts those of all processes. Returns the signal's number, or 0.
    """
    with SignalForwarder() as forwarder:
        while not forwarder.signal and (trial := study.next_trial(num_trials)) is not None:
            try:
                announce(trial, "resumed" if trial.is_resumed else "started")
                outcome = _train(study, trial, metric, forwarder)
                announce(trial, _record(study, trial, metric, outcome))
            finally:
                trial.claim.release()
    return forwarder.signal


def _train(
    study: Study, trial: ClaimedTrial, metric: str, forwarder: SignalForwarder
) -> TrainingOutcome:
    try:
        config = study.config_of(trial)
    except ValueError as error:  # values that contradict each other
        return TrainingOutcome("failed", str(error))

    def should_prune(entry: dict[str, Any]) -> bool:
        epoch, score = entry["training"]["epoch"], entry["validation"][metric]
        is_behind = score is not None and study.report(trial, epoch, score)
        return is_behind and epoch < config.training.num_epochs

    files = study.work_files(trial.number)
    return run_training(config, files, forwarder=forwarder, after_epoch=should_prune)


def _record(study: Study, trial: ClaimedTrial, metric: str, outcome: TrainingOutcome) -> str:
    """Write a trial's outcome to the study; returns it in words."""
    if outcome.kind == "stopped":
        return "stopped; the same command resumes it"
    epochs = read_epochs(trial_run(study.folder, trial.number))
    scores = [entry["validation"][metric] for entry in epochs]
    scores = [score for score in scores if score is not None]
    text = f"{metric} {_score_text(best_score(scores, metric), metric)}" if scores else "no score"
    if outcome.kind == "pruned":
        study.prune(trial)
        return f"pruned after epoch {len(epochs)}: {text}"
    if outcome.kind == "complete" and scores:
        study.complete(trial, best_score(scores, metric))
        return f"{text}, {len(epochs)} epochs"
    message = outcome.message or f"{metric} is undefined: validation has reviews of one class"
    study.fail(trial, message)
    return f"failed: {message}"


def trials_table(folder: Path, trials: Sequence[FrozenTrial], metric: str) -> str:
    """The trials from the best to the worst, with their settings and runs' folders."""
    rows = [(metric, "state", "run", "settings")]
    for trial in sort_trials(trials, metric):
        score, state, run = trial_score(trial, metric), _STATES[trial.state], f"{trial.number:03d}"
        if trial.state == TrialState.PRUNED:
            state += f" at {len(trial.intermediate_values)}"
        if (same_as := trial.user_attrs.get("same_as")) is not None:
            run += f" = {same_as:03d}"
        shown = "–" if score is None else _score_text(score, metric)
        rows.append((shown, state, run, settings_text(trial.params)))
    lines = [f"validation, best epoch; runs in {truncate(str(folder), 47, keep_end=True)}", ""]
    lines.append(format_table(rows, align="><", flexible=3, wrap=True, indent=0))
    return "\n".join(lines + _failures(trials))


def settings_text(values: dict[str, Any]) -> str:
    """Settings in one line, without their sections where the names are unambiguous."""
    names = [key.rpartition(".")[2] for key in values]
    if len(set(names)) < len(names):
        names = list(values)
    pairs = zip(names, values.values(), strict=True)
    return ", ".join(f"{name}={_value_text(value)}" for name, value in pairs)


def summary_text(folder: Path, trials: Sequence[FrozenTrial], metric: str) -> str:
    """The best trial, and what to do next; ``UserError`` if every trial has failed."""
    if trials and all(trial.state == TrialState.FAIL for trial in trials):
        message = trials[-1].user_attrs.get("message", "")
        raise UserError(f"all {len(trials)} trials failed, the last one with: {message}")
    lines = []
    if num_running := sum(trial.state == TrialState.RUNNING for trial in trials):
        continued = "another process trains it, or the same command resumes it"
        lines.append(f"not finished: {num_running}; {continued}")
    ordered = sort_trials(trials, metric)
    if not ordered or ordered[0].state != TrialState.COMPLETE:
        return "\n".join(["no trial is complete yet", *lines])
    best = ordered[0]
    run = trial_run(folder, best.user_attrs.get("same_as", best.number))
    shown = sanitize(str(folder))
    lines += [
        f"best: {metric} {_score_text(best.values[0], metric)}, {sanitize(str(run))}",
        f"next: python train.py --config {shown}/best.yaml",
        f"      tensorboard --logdir {shown}/trials",
    ]
    return "\n".join(lines)


def _score_text(score: float, metric: str) -> str:
    return f"{100 * score:.2f} %" if metric == "accuracy" else f"{score:.4f}"


def _failures(trials: Sequence[FrozenTrial]) -> list[str]:
    lines: list[str] = []
    for trial in trials:
        if trial.state == TrialState.FAIL:
            reason = trial.user_attrs.get("message", "another program marked it as failed")
            lines += ["", wrap_text(f"{trial.number:03d} failed: {reason}", indent="  ")]
    return lines


def _value_text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return sanitize(str(value))
