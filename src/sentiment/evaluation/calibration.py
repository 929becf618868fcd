"""Probabilities that mean what they say: one temperature for all logits.

Guo, Pleiss, Sun & Weinberger, *On Calibration of Modern Neural Networks*, ICML 2017: logits divided
by a temperature keep their order, so no prediction changes, while the probabilities move towards
how often they are right.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sentiment.evaluation.metrics import (
    ProbabilityScores,
    compute_scores,
    expected_calibration_error,
)

# Beyond these, probabilities are all alike or all 0 and 1: what perfect predictions would ask for.
_LOWEST, _HIGHEST = 0.05, 20.0
_NUM_HALVINGS = 5
_NUM_DRAWS = 100


@dataclass(frozen=True)
class Calibration:
    """What a temperature does to the probabilities.

    Attributes:
        temperature: what logits are divided by.
        before: at temperature 1, as the model was trained.
        after: at the temperature. Too good where it was fitted on these very reviews.
        fitted_here: whether it was.
        cross_fitted: where it was: each half of the reviews at the temperature of the other half,
            both scored together; the mean of five seeded halvings. None elsewhere, or for one
            review.
        ece_by_chance: what ``after.ece`` would be, on average, if each confidence were exactly how
            often its predictions are right: so many reviews tell no smaller error apart from none.
    """

    temperature: float
    before: ProbabilityScores
    after: ProbabilityScores
    fitted_here: bool
    cross_fitted: ProbabilityScores | None
    ece_by_chance: float

    def as_dict(self) -> dict[str, Any]:
        """The figures as JSON-able values."""
        return asdict(self)


def measure_calibration(
    log_probabilities: np.ndarray, labels: np.ndarray, temperature: float, *, fitted_here: bool
) -> Calibration:
    """Scores of probabilities before and after a temperature.

    Args:
        log_probabilities: (num_reviews, num_classes) at temperature 1.
        labels: (num_reviews,) right classes.
        temperature: the run's.
        fitted_here: whether it was fitted on these reviews.
    """
    calibrated = apply_temperature(log_probabilities, temperature)
    return Calibration(
        temperature=temperature,
        before=compute_scores(log_probabilities, labels),
        after=compute_scores(calibrated, labels),
        fitted_here=fitted_here,
        cross_fitted=_cross_fitted(log_probabilities, labels) if fitted_here else None,
        ece_by_chance=_ece_by_chance(np.exp(calibrated.max(axis=1))),
    )


def _ece_by_chance(confidences: np.ndarray) -> float:
    """The mean error over seeded draws of which predictions are right, by their confidences."""
    generator = np.random.default_rng(0)
    draws = (
        generator.random(len(confidences)) < confidences  # (num_reviews,)
        for _ in range(_NUM_DRAWS)
    )
    return float(np.mean([expected_calibration_error(confidences, is_right) for is_right in draws]))


def _cross_fitted(log_probabilities: np.ndarray, labels: np.ndarray) -> ProbabilityScores | None:
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
        # Of all reviews at once: chance adds more to the calibration error of fewer.
        scores.append(compute_scores(calibrated, labels))
    return ProbabilityScores(
        nll=float(np.mean([each.nll for each in scores])),
        brier=float(np.mean([each.brier for each in scores])),
        ece=float(np.mean([each.ece for each in scores])),
    )


def fit_temperature(log_probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The temperature of the least negative log-likelihood, between 0.05 and 20.

    Args:
        log_probabilities: (num_reviews, num_classes) of reviews that were not trained on.
        labels: (num_reviews,) right classes.
    """
    from scipy.optimize import minimize_scalar  # takes a second, which a start need not wait for

    rows = np.arange(len(labels))

    def nll(inverse: float) -> float:
        return -float(apply_temperature(log_probabilities, 1 / inverse)[rows, labels].mean())

    # Convex in the inverse temperature: a log-sum-exp less a line.
    found = minimize_scalar(nll, bounds=(1 / _HIGHEST, 1 / _LOWEST), method="bounded")
    return 1 / float(found.x)


def apply_temperature(log_probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Log-probabilities (num_reviews, num_classes) of the logits divided by a temperature."""
    from scipy.special import log_softmax

    return log_softmax(log_probabilities / temperature, axis=1)
