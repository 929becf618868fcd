"""Training a sweep's trials one after another, and the table and summary of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from sentiment.display.console import format_table, sanitize, truncate, wrap_text
from sentiment.runtime.errors import UserError
from sentiment.tuning.study import (
    ClaimedTrial,
    Study,
    best_score,
    sort_trials,
    trial_run,
    trial_score,
)
from sentiment.tuning.trainings import SignalForwarder, TrainingOutcome, read_epochs, run_training

_STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.RUNNING: "not finished",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


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
