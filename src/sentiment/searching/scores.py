"""What trials are compared by: a metric of validation, of the best epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from optuna.trial import FrozenTrial, TrialState

LOWER_IS_BETTER = {"nll"}


def best_score(scores: Sequence[float], metric: str) -> float:
    """The best of the scores by a metric."""
    return min(scores) if metric in LOWER_IS_BETTER else max(scores)


def sort_trials(trials: Sequence[FrozenTrial], metric: str) -> list[FrozenTrial]:
    """Complete trials from the best to the worst, then those running, pruned and failed."""
    states = (TrialState.COMPLETE, TrialState.RUNNING, TrialState.PRUNED, TrialState.FAIL)
    sign = 1 if metric in LOWER_IS_BETTER else -1

    def rank(trial: FrozenTrial) -> tuple[Any, ...]:
        score = score_of(trial, metric)
        return states.index(trial.state), score is None, sign * (score or 0.0), trial.number

    return sorted((each for each in trials if each.state in states), key=rank)


def score_of(trial: FrozenTrial, metric: str) -> float | None:
    """A trial's score, or the best one it had so far."""
    if trial.state == TrialState.COMPLETE:
        return trial.value
    scores = list(trial.intermediate_values.values())
    return best_score(scores, metric) if scores else None


def score_text(score: float, metric: str) -> str:
    """A score as people read it."""
    return f"{100 * score:.2f} %" if metric == "accuracy" else f"{score:.4f}"
