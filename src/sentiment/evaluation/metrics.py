"""Metrics of predictions, with 95 % confidence intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
class ClassScores:
    """How well one class is told from the others."""

    num_reviews: int  # of the class
    num_predicted: int
    precision: float | None  # None if it is never predicted
    recall: float | None  # None if it does not occur
    f1: float | None  # None if it neither occurs nor is predicted


@dataclass(frozen=True)
class Metrics:
    """Metrics of a set of predictions; for nll, brier and ece see :class:`ProbabilityScores`."""

    num_reviews: int
    accuracy: float
    accuracy_ci95: Interval  # see accuracy_interval
    # F1 of the positive class, None if it neither occurs nor is predicted; macro_f1 without one.
    f1: float | None
    macro_f1: float  # mean over the classes that occur or are predicted
    # Of the positive class against the rest, or the mean over the classes; None if one is absent.
    auroc: float | None
    average_precision: float | None  # without interpolation; classes as for auroc
    nll: float
    brier: float
    ece: float
    confusion: tuple[tuple[int, ...], ...]  # rows are right classes, columns predicted ones
    by_class: tuple[ClassScores, ...]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def score(self, name: str) -> float:
        """A metric by name, negated if less is better; undefined ones are minus infinity."""
        value = getattr(self, name)
        if value is None:
            return float("-inf")
        return -value if name in ("nll", "brier", "ece") else value


def compute_metrics(
    log_probabilities: np.ndarray, labels: np.ndarray, positive: int | None = None
) -> Metrics:
    """Metrics of (num_reviews, num_classes) float64 log-probabilities and their right classes.

    ``positive`` is the class that F1, AUROC and average precision are about; None is the second of
    two classes, and all of more.
    """
    # Takes a second to import, which a training's first step must not wait for.
    from sklearn.metrics import average_precision_score, confusion_matrix, roc_auc_score

    num_reviews, num_classes = log_probabilities.shape
    if num_reviews == 0:
        raise UserError("no predictions to measure")
    predicted = log_probabilities.argmax(axis=1)
    num_right = int((predicted == labels).sum())
    scored = scored_classes(num_classes, positive)
    confusion = confusion_matrix(labels, predicted, labels=np.arange(num_classes))
    by_class = class_scores(confusion)
    macro_f1 = float(np.mean([scores.f1 for scores in by_class if scores.f1 is not None]))
    return Metrics(
        num_reviews=num_reviews,
        accuracy=num_right / num_reviews,
        accuracy_ci95=accuracy_interval(num_right, num_reviews),
        f1=by_class[scored[0]].f1 if len(scored) == 1 else macro_f1,
        macro_f1=macro_f1,
        auroc=_one_against_rest(roc_auc_score, log_probabilities, labels, scored),
        average_precision=_one_against_rest(
            average_precision_score, log_probabilities, labels, scored
        ),
        **asdict(compute_scores(log_probabilities, labels)),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        by_class=by_class,
    )


def scored_classes(num_classes: int, positive: int | None) -> list[int]:
    """The classes over which F1, AUROC and average precision are averaged."""
    if positive is None and num_classes == 2:
        return [1]
    return list(range(num_classes)) if positive is None else [positive]


def class_scores(confusion: np.ndarray) -> tuple[ClassScores, ...]:
    """Scores of each class from a (num_classes, num_classes) confusion matrix."""

    def share(hits: int, total: float) -> float | None:
        return hits / total if total else None

    counts = zip(
        np.diagonal(confusion).tolist(), confusion.sum(axis=1).tolist(),
        confusion.sum(axis=0).tolist(), strict=True,
    )  # fmt: skip
    return tuple(
        ClassScores(
            occurring, predicted, precision=share(hits, predicted), recall=share(hits, occurring),
            f1=share(2 * hits, occurring + predicted),
        )
        for hits, occurring, predicted in counts
    )  # fmt: skip


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


def _one_against_rest(
    metric: Callable[[np.ndarray, np.ndarray], float],
    log_probabilities: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[int],
) -> float | None:
    """The mean of a ranking metric over some classes, each against the rest."""
    counts = np.bincount(labels, minlength=log_probabilities.shape[1])[list(classes)]
    if (counts == 0).any() or (counts == len(labels)).any():
        return None
    scores = ranking_scores(log_probabilities)
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


def f1_interval(confusion: np.ndarray, positive: int | None = None) -> Interval | None:
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
    classes = scored_classes(num_classes, positive)
    scores, occurs = scores[:, classes], occurrences[:, classes] > 0
    defined = occurs.any(axis=1)
    values = scores[defined].sum(axis=1) / occurs[defined].sum(axis=1)
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
