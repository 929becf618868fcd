"""Temperature scaling: one temperature for all logits, fitted after training.

Guo, Pleiss, Sun & Weinberger, *On Calibration of Modern Neural Networks*, ICML 2017. Dividing the
logits by a temperature changes no prediction, but makes the probabilities match the accuracy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sentiment.evaluation.metrics import (
    ProbabilityScores,
    compute_scores,
    expected_calibration_error,
)

# Perfect predictions would ask for a temperature of 0, useless ones for an infinite one.
_LOWEST, _HIGHEST = 0.05, 20.0
_NUM_HALVINGS = 5
_NUM_DRAWS = 100


@dataclass(frozen=True)
class Calibration:
    """What a temperature does to the probabilities.

    Attributes:
        temperature: the divisor of the logits.
        before: scores at temperature 1, as trained.
        after: scores at the temperature; too good if it was fitted on these reviews.
        fitted_here: whether it was.
        cross_fitted: if so, scores of each half of the reviews at the temperature of the other
            half, averaged over five seeded halvings; None for a single review.
        ece_by_chance: expected value of ``after.ece`` for perfectly calibrated probabilities;
            with this many reviews, no smaller error can be told from zero.
    """

    temperature: float
    before: ProbabilityScores
    after: ProbabilityScores
    fitted_here: bool
    cross_fitted: ProbabilityScores | None
    ece_by_chance: float


def measure_calibration(
    log_probabilities: np.ndarray, labels: np.ndarray, temperature: float, *, fitted_here: bool
) -> Calibration:
    """Score (num_reviews, num_classes) log-probabilities before and after a temperature.

    ``fitted_here`` says whether the temperature was fitted on these reviews.
    """
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
    return ProbabilityScores(
        nll=float(np.mean([score.nll for score in scores])),
        brier=float(np.mean([score.brier for score in scores])),
        ece=float(np.mean([score.ece for score in scores])),
    )


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
