"""A search at work: one trial after another, until there are enough of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sentiment.searching.scores import best_score, score_text
from sentiment.searching.study import HeldTrial, Study
from sentiment.searching.training import Outcome, Stop, read_epochs, train_trial
from sentiment.settings import save_config


def work(study: Study, num_trials: int, metric: str, tell: Callable[[HeldTrial, str], None]) -> int:
    """Carry out trials as long as there are any to begin or to take up.

    Args:
        study: the trials, which other processes may work on too.
        num_trials: of all processes together.
        metric: what trials are compared by.
        tell: called with a trial and what is to be said of it.

    Returns:
        the number of the signal that ended it, 0 where none did.
    """
    with Stop() as stop:
        while not stop.signal and (trial := study.next_trial(num_trials)) is not None:
            try:
                tell(trial, "taken up" if trial.is_taken_up else "begun")
                outcome = _train(study, trial, metric, stop)
                tell(trial, _settle(study, trial, metric, outcome))
            finally:
                trial.claim.release()
    return stop.signal


def _train(study: Study, trial: HeldTrial, metric: str, stop: Stop) -> Outcome:
    try:
        config = study.config_of(trial)
    except ValueError as error:  # of values that contradict each other
        return Outcome("failed", str(error))
    settings = study.work(trial.number, "yaml")
    save_config(config, settings)

    def after_epoch(entry: dict[str, Any]) -> bool:
        epoch, score = entry["training"]["epoch"], entry["validation"][metric]
        is_behind = score is not None and study.report(trial, epoch, score)
        return is_behind and epoch < config.training.num_epochs

    return train_trial(
        settings, study.run(trial.number), study.work(trial.number, "log"),
        descriptor=trial.claim.descriptor, stop=stop, after_epoch=after_epoch,
    )  # fmt: skip


def _settle(study: Study, trial: HeldTrial, metric: str, outcome: Outcome) -> str:
    """Write what a trial came to; returns it in words."""
    if outcome.kind == "stopped":
        return "stopped, to be taken up"
    epochs = read_epochs(study.run(trial.number))
    if outcome.kind == "pruned":
        study.prune(trial)
        return f"pruned after epoch {len(epochs)}: {_best_text(epochs, metric)}"
    if outcome.kind == "complete":
        if scores := _scores(epochs, metric):
            study.complete(trial, best_score(scores, metric))
            return f"{_best_text(epochs, metric)}, {len(epochs)} epochs"
        outcome = Outcome("failed", f"{metric} is undefined: validation has reviews of one class")
    study.fail(trial, outcome.message)
    return f"failed: {outcome.message}"


def _scores(epochs: list[dict[str, Any]], metric: str) -> list[float]:
    values = [entry["validation"][metric] for entry in epochs]
    return [value for value in values if value is not None]


def _best_text(epochs: list[dict[str, Any]], metric: str) -> str:
    scores = _scores(epochs, metric)
    return f"{metric} {score_text(best_score(scores, metric), metric)}" if scores else "no score"
