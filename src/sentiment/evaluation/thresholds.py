"""The lowest probability at which the positive class of two is predicted, chosen by its F1."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sentiment.evaluation.evaluate import Predictions
from sentiment.evaluation.metrics import ClassScores, class_scores, scored_classes


@dataclass(frozen=True)
class ThresholdScores:
    """What a threshold for the positive class of two gives."""

    threshold: float
    scores: ClassScores  # of the positive class; optimistic if fitted_here
    fitted_here: bool


def fit_threshold(calibrated: Predictions) -> float | None:
    """The threshold with the largest F1 on reviews not trained on; None unless of two classes.

    Of equally good thresholds, the highest; between the probabilities of two reviews, the shortest
    decimal near their middle, so that it can be typed.
    """
    if calibrated.log_probabilities.shape[1] != 2:
        return None
    probabilities, is_positive = _positive(calibrated)
    order = np.argsort(-probabilities, kind="stable")
    ranked, hits = probabilities[order], is_positive[order].cumsum()
    f1 = 2 * hits / (np.arange(1, len(ranked) + 1) + hits[-1])
    lower = np.append(ranked[1:], -1.0)  # the next review's, which stays negative
    best = np.where(lower < ranked, f1, -1).argmax()
    low, high = max(0.0, float(lower[best])), float(ranked[best])
    rounded = (round((low + high) / 2, digits) for digits in range(2, 17))
    return next((value for value in rounded if low < value <= high), high)


def measure_threshold(
    threshold: float, calibrated: Predictions, *, fitted_here: bool
) -> ThresholdScores:
    """Score a threshold on predictions of two classes."""
    probabilities, is_positive = _positive(calibrated)
    confusion = np.zeros((2, 2), dtype=np.int64)
    np.add.at(confusion, (is_positive.astype(int), (probabilities >= threshold).astype(int)), 1)
    return ThresholdScores(threshold, class_scores(confusion)[1], fitted_here)


def _positive(calibrated: Predictions) -> tuple[np.ndarray, np.ndarray]:
    """(num_reviews,) probabilities of the positive class, and which reviews are of it."""
    (positive,) = scored_classes(2, calibrated.positive)
    return calibrated.probabilities[:, positive], calibrated.labels == positive
