"""Temperature scaling: one temperature for all logits, fitted after training.

Guo, Pleiss, Sun & Weinberger, *On Calibration of Modern Neural Networks*, ICML 2017. Dividing the
logits by a temperature changes no prediction, but makes the probabilities match the accuracy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sentiment.evaluation.metrics import (
    ProbabilityScores,
    compute_scores,
    expected_calibration_error,
)

# The best temperature would be 0 for perfect predictions, and infinite for useless ones.
_LOWEST, _HIGHEST = 0.05, 20.0
_NUM_HALVINGS = 5
_NUM_DRAWS = 100


@dataclass(frozen=True)
class Calibration:
    """Scores of the probabilities before and after temperature scaling."""

    temperature: float
    before: ProbabilityScores  # at temperature 1
    after: ProbabilityScores  # at the temperature; optimistic if it was fitted on these reviews
    fitted_here: bool  # whether it was
    # If so, scores of each half of the reviews at the temperature of the other half, averaged over
    # five seeded halvings; None for a single review.
    cross_fitted: ProbabilityScores | None
    # Expected after.ece of perfectly calibrated probabilities: with this many reviews, no smaller
    # error can be told from zero.
    ece_by_chance: float


def measure_calibration(
    log_probabilities: np.ndarray, labels: np.ndarray, temperature: float, *, fitted_here: bool
) -> Calibration:
    """Score (num_reviews, num_classes) log-probabilities before and after a temperature."""
    calibrated = apply_temperature(log_probabilities, temperature)
    return Calibration(
        temperature=temperature,
        before=compute_scores(log_probabilities, labels),
        after=compute_scores(calibrated, labels),
        fitted_here=fitted_here,
        cross_fitted=_cross_fit(log_probabilities, labels) if fitted_here else None,
        ece_by_chance=_ece_by_chance(np.exp(calibrated.max(axis=1))),
    )


def _ece_by_chance(confidences: np.ndarray) -> float:
    """Mean ECE over seeded draws in which each prediction is right as often as it claims."""
    generator = np.random.default_rng(0)
    draws = (generator.random(len(confidences)) < confidences for _ in range(_NUM_DRAWS))
    return float(np.mean([expected_calibration_error(confidences, is_right) for is_right in draws]))


def _cross_fit(log_probabilities: np.ndarray, labels: np.ndarray) -> ProbabilityScores | None:
    if len(labels) < 2:
        return None
    scores = []
    generator = np.random.default_rng(0)
    for _ in range(_NUM_HALVINGS):
        halves = np.array_split(generator.permutation(len(labels)), 2)
        calibrated = np.empty_like(log_probabilities)
        for fitted, measured in (halves, halves[::-1]):
            temperature = fit_temperature(log_probabilities[fitted], labels[fitted])
            calibrated[measured] = apply_temperature(log_probabilities[measured], temperature)
        # Both halves are scored together: chance inflates the ECE of fewer reviews.
        scores.append(compute_scores(calibrated, labels))
    means = np.mean([[score.nll, score.brier, score.ece] for score in scores], axis=0)
    return ProbabilityScores(*means.tolist())


def fit_temperature(log_probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The temperature between 0.05 and 20 with the lowest negative log-likelihood.

    ``log_probabilities`` (num_reviews, num_classes) must be of reviews not trained on.
    """
    from scipy.optimize import minimize_scalar  # takes a second to import

    rows = np.arange(len(labels))

    def nll(inverse: float) -> float:
        return -float(apply_temperature(log_probabilities, 1 / inverse)[rows, labels].mean())

    # Convex in the inverse temperature: a log-sum-exp minus a linear function.
    result = minimize_scalar(nll, bounds=(1 / _HIGHEST, 1 / _LOWEST), method="bounded")
    return 1 / float(result.x)


def apply_temperature(log_probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """(num_reviews, num_classes) log-probabilities after dividing the logits by a temperature."""
    from scipy.special import log_softmax

    return log_softmax(log_probabilities / temperature, axis=1)


def average_models(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Log-probabilities (num_reviews, num_classes) of an ensemble, from those of each model.

    The mean of the logarithms, so that a model that is sure outweighs one that is not.
    """
    return apply_temperature(np.mean(parts, axis=0), 1.0)  # makes the probabilities sum to 1
