"""Metrics of predictions, with 95 % confidence intervals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sentiment.runtime.errors import UserError

Interval = tuple[float, float]

NUM_BINS = 15  # of the calibration error, as in Guo et al. 2017
NUM_RESAMPLES = 10_000
# With fewer right or wrong reviews, bootstrap percentiles are too narrow and jump with each count.
FEWEST_TO_RESAMPLE = 20
_SEED = 0  # the same predictions always get the same intervals


@dataclass(frozen=True)
class ProbabilityScores:
    """Scores of the probabilities, lower is better."""

    nll: float  # mean negative log-likelihood of the right class, in nats
    # Brier score (1950): with two classes, the mean squared error of the second class's
    # probability, from 0 to 1; with more, summed over the classes, from 0 to 2.
    brier: float
    # Expected calibration error (Guo et al. 2017): the difference between confidence and accuracy
    # in 15 bins of equal width, averaged over the reviews.
    ece: float


@dataclass(frozen=True)
class Metrics:
    """Metrics of a set of predictions; for nll, brier and ece see :class:`ProbabilityScores`."""

    num_reviews: int
    accuracy: float
    accuracy_ci95: Interval  # see accuracy_interval
    # With two classes, F1 of the second, None if it neither occurs nor is predicted; with more, the
    # mean over the classes that occur or are predicted.
    f1: float | None
    # With more than two classes, the mean of one against the rest; None if a class does not occur.
    auroc: float | None
    average_precision: float | None  # without interpolation; classes as for auroc
    nll: float
    brier: float
    ece: float
    confusion: tuple[tuple[int, ...], ...]  # rows are right classes, columns predicted ones

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def score(self, name: str) -> float:
        """A metric by name, negated if less is better; undefined ones are minus infinity."""
        value = getattr(self, name)
        if value is None:
            return float("-inf")
        return -value if name in ("nll", "brier", "ece") else value


def compute_metrics(log_probabilities: np.ndarray, labels: np.ndarray) -> Metrics:
    """Metrics of (num_reviews, num_classes) float64 log-probabilities and their right classes."""
    # Takes a second to import, which a training's first step must not wait for.
    from sklearn.metrics import average_precision_score, confusion_matrix, roc_auc_score

    num_reviews, num_classes = log_probabilities.shape
    if num_reviews == 0:
        raise UserError("no predictions to measure")
    predicted = log_probabilities.argmax(axis=1)
    num_right = int((predicted == labels).sum())
    confusion = confusion_matrix(labels, predicted, labels=np.arange(num_classes))
    return Metrics(
        num_reviews=num_reviews,
        accuracy=num_right / num_reviews,
        accuracy_ci95=accuracy_interval(num_right, num_reviews),
        f1=_f1(labels, predicted, num_classes),
        auroc=_one_against_rest(roc_auc_score, log_probabilities, labels),
        average_precision=_one_against_rest(average_precision_score, log_probabilities, labels),
        **asdict(compute_scores(log_probabilities, labels)),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
    )


def compute_scores(log_probabilities: np.ndarray, labels: np.ndarray) -> ProbabilityScores:
    """The metrics that depend on the probabilities alone."""
    rows = np.arange(len(labels))
    errors = np.exp(log_probabilities)
    is_right = errors.argmax(axis=1) == labels
    ece = expected_calibration_error(errors.max(axis=1), is_right)
    errors[rows, labels] -= 1
    squares = errors[:, 1] ** 2 if errors.shape[1] == 2 else (errors**2).sum(axis=1)
    return ProbabilityScores(
        nll=float(-log_probabilities[rows, labels].mean()), brier=float(squares.mean()), ece=ece
    )


def expected_calibration_error(confidences: np.ndarray, is_right: np.ndarray) -> float:
    """ECE over the bins of :func:`calibration_bins`."""
    counts, confidence, accuracy = calibration_bins(confidences, is_right)
    return float((counts * np.abs(confidence - accuracy)).sum() / counts.sum())


def calibration_bins(
    confidences: np.ndarray, is_right: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts, mean confidences and accuracies, (NUM_BINS,) each, which are 0 in empty bins.

    The bins of (num_reviews,) confidences in the predicted class have equal widths between 0 and 1
    and are closed at their upper ends.
    """
    inner_edges = np.arange(1, NUM_BINS) / NUM_BINS
    bins = np.searchsorted(inner_edges, confidences, side="left")
    counts = np.bincount(bins, minlength=NUM_BINS)
    divisor = np.maximum(counts, 1)
    confidence = np.bincount(bins, weights=confidences, minlength=NUM_BINS) / divisor
    accuracy = np.bincount(bins, weights=is_right, minlength=NUM_BINS) / divisor
    return counts, confidence, accuracy


def ranking_scores(log_probabilities: np.ndarray) -> np.ndarray:
    """(num_reviews, num_classes) scores that rank the reviews by each class.

    With two classes, the difference of the log-probabilities, which ranks like the probability
    but does not saturate at 1; with more, the probability, as ``roc_auc_score`` expects.
    """
    if log_probabilities.shape[1] == 2:
        difference = log_probabilities[:, 1] - log_probabilities[:, 0]
        return np.stack((-difference, difference), axis=1)
    return np.exp(log_probabilities)


def _f1(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> float | None:
    from sklearn.metrics import f1_score

    if num_classes != 2:  # the mean over the classes that occur or are predicted
        return float(f1_score(labels, predicted, average="macro"))
    value = float(f1_score(labels, predicted, average="binary", zero_division=np.nan))
    return None if np.isnan(value) else value


def _one_against_rest(
    metric: Callable[[np.ndarray, np.ndarray], float],
    log_probabilities: np.ndarray,
    labels: np.ndarray,
) -> float | None:
    """A ranking metric of the second of two classes, or its mean over more classes."""
    num_classes = log_probabilities.shape[1]
    if len(np.unique(labels)) < num_classes:
        return None
    scores = ranking_scores(log_probabilities)
    classes = [1] if num_classes == 2 else range(num_classes)
    return float(np.mean([metric(labels == label, scores[:, label]) for label in classes]))


def accuracy_interval(num_right: int, num_reviews: int) -> Interval:
    """95 % interval of an accuracy: percentiles of 10,000 bootstrap resamples (Efron 1979).

    The right predictions among reviews drawn with replacement are binomial, and are drawn as such.
    With fewer than 20 right, or wrong, reviews, the interval is Wilson's.
    """
    if min(num_right, num_reviews - num_right) < FEWEST_TO_RESAMPLE:
        return wilson_interval(num_right, num_reviews)
    generator = np.random.default_rng(_SEED)
    hits = generator.binomial(num_reviews, num_right / num_reviews, NUM_RESAMPLES)
    return percentile_interval(hits / num_reviews)


def wilson_interval(count: int, total: int) -> Interval:
    """95 % interval of a share (Wilson 1927), which has a width even at 0 and 1."""
    from scipy.stats import binomtest  # takes a second to import

    interval = binomtest(count, total).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def f1_interval(confusion: np.ndarray) -> Interval | None:
    """95 % bootstrap interval of F1, defined as in :class:`Metrics`.

    F1 is a function of the (num_classes, num_classes) confusion matrix, whose cells are
    multinomial if reviews are drawn with replacement. None with more than ten classes, and if all
    resamples have the same F1, which says nothing about other reviews.
    """
    num_classes, num_reviews = len(confusion), int(confusion.sum())
    if num_classes > 10:
        return None
    generator = np.random.default_rng(_SEED)
    shares = confusion.ravel() / num_reviews
    cells = generator.multinomial(num_reviews, shares, NUM_RESAMPLES)
    cells = cells.reshape(-1, num_classes, num_classes)
    hits = np.diagonal(cells, axis1=1, axis2=2)  # (num_resamples, num_classes)
    occurrences = cells.sum(axis=1) + cells.sum(axis=2)  # as right and as predicted class
    scores = 2 * hits / np.maximum(occurrences, 1)
    if num_classes == 2:
        values = scores[occurrences[:, 1] > 0, 1]
    else:
        values = scores.sum(axis=1) / (occurrences > 0).sum(axis=1)
    return percentile_interval(values) if len(np.unique(values)) > 1 else None


def auroc_interval(scores: np.ndarray, is_positive: np.ndarray) -> Interval | None:
    """95 % interval of the AUROC (DeLong, DeLong & Clarke-Pearson 1988).

    ``scores`` (num_reviews,) rank the positive reviews higher. None if a class has fewer than two
    reviews, or all pairs are ranked alike, so that the variance cannot be estimated.
    """
    from scipy.stats import rankdata

    positive, negative = scores[is_positive], scores[~is_positive]
    if min(len(positive), len(negative)) < 2:
        return None
    ranks = rankdata(scores)  # by mid-ranks: Sun & Xu 2014
    # The share of the other class that each review is ranked on the right side of.
    above = (ranks[is_positive] - rankdata(positive)) / len(negative)
    below = 1 - (ranks[~is_positive] - rankdata(negative)) / len(positive)
    deviation = np.sqrt(above.var(ddof=1) / len(positive) + below.var(ddof=1) / len(negative))
    if deviation == 0:
        return None
    area, half = float(above.mean()), 1.959964 * float(deviation)
    return max(0.0, area - half), min(1.0, area + half)


def percentile_interval(resamples: np.ndarray) -> Interval:
    """The range of the middle 95 % of resampled values."""
    low, high = np.quantile(resamples, (0.025, 0.975))
    return float(low), float(high)
