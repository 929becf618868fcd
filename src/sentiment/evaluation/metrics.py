"""Predictions and labels to metrics, with their 95 % intervals."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sentiment.runtime.errors import UserError

NUM_BINS = 15  # of the calibration error, as in Guo et al. 2017


@dataclass(frozen=True)
class ProbabilityScores:
    """How good the probabilities are, whichever class they make the first.

    Attributes:
        nll: mean negative log-likelihood of the right class, in nats.
        brier: mean squared error of the probabilities (Brier 1950). With two classes that of the
            second class's probability, from 0 to 1; with more the sum over the classes, 0 to 2.
        ece: expected calibration error (Guo et al. 2017): the confidence in the predicted class
            less its accuracy, in 15 bins of equal width, averaged over the reviews.
    """

    nll: float
    brier: float
    ece: float


@dataclass(frozen=True)
class Metrics:
    """Figures of a set of predictions.

    Attributes:
        num_reviews: reviews counted.
        accuracy: share classified rightly.
        accuracy_ci95: its 95 % interval, by bootstrap, or Wilson's where fewer than 20 reviews are
            right, or wrong.
        f1: F1 of the second class where there are two, None where it neither occurs nor is
            predicted; else the mean over the classes that occur or are predicted.
        auroc: area under the ROC curve; the mean of one class against the rest where there are
            more than two; None where a class does not occur.
        average_precision: mean precision over the recalls, without interpolation; classes as for
            ``auroc``.
        nll, brier, ece: as for :class:`ProbabilityScores`.
        confusion: rows are right classes, columns predicted ones.
    """

    num_reviews: int
    accuracy: float
    accuracy_ci95: Interval
    f1: float | None
    auroc: float | None
    average_precision: float | None
    nll: float
    brier: float
    ece: float
    confusion: tuple[tuple[int, ...], ...]

    def as_dict(self) -> dict[str, Any]:
        """The figures as JSON-able values."""
        return asdict(self)

    def score(self, name: str) -> float:
        """A figure by name, turned so that more is better and an undefined one is worst."""
        value = getattr(self, name)
        if value is None:
            return float("-inf")
        return -value if name in ("nll", "brier", "ece") else value


def compute_metrics(log_probabilities: np.ndarray, labels: np.ndarray) -> Metrics:
    """Compare predictions with labels.

    Args:
        log_probabilities: (num_reviews, num_classes) float64 log-probabilities.
        labels: (num_reviews,) right classes.
    """
    # Takes a second: the first step of a training must not wait for it.
    from sklearn.metrics import average_precision_score, confusion_matrix, roc_auc_score

    num_reviews, num_classes = log_probabilities.shape
    if num_reviews == 0:
        raise UserError("no predictions to measure")
    predicted = log_probabilities.argmax(axis=1)
    num_right = int((predicted == labels).sum())
    confusion = confusion_matrix(labels, predicted, labels=np.arange(num_classes))
    scores = compute_scores(log_probabilities, labels)
    return Metrics(
        num_reviews=num_reviews,
        accuracy=num_right / num_reviews,
        accuracy_ci95=accuracy_interval(num_right, num_reviews),
        f1=_f1(labels, predicted, num_classes),
        auroc=_one_against_rest(roc_auc_score, log_probabilities, labels),
        average_precision=_one_against_rest(average_precision_score, log_probabilities, labels),
        nll=scores.nll,
        brier=scores.brier,
        ece=scores.ece,
        confusion=tuple(tuple(row) for row in confusion.tolist()),
    )


def compute_scores(log_probabilities: np.ndarray, labels: np.ndarray) -> ProbabilityScores:
    """Compare the probabilities alone; arguments as for :func:`compute_metrics`."""
    rows = np.arange(len(labels))
    errors = np.exp(log_probabilities)
    is_right = errors.argmax(axis=1) == labels
    ece = expected_calibration_error(errors.max(axis=1), is_right)
    errors[rows, labels] -= 1
    squares = errors[:, 1] ** 2 if errors.shape[1] == 2 else (errors**2).sum(axis=1)
    return ProbabilityScores(
        nll=float(-log_probabilities[rows, labels].mean()),
        brier=float(squares.mean()),
        ece=ece,
    )


def expected_calibration_error(confidences: np.ndarray, is_right: np.ndarray) -> float:
    """Mean distance of confidence from accuracy, by bins; arguments as for
    :func:`calibration_bins`.
    """
    counts, confidence, accuracy = calibration_bins(confidences, is_right)
    return float((counts * np.abs(confidence - accuracy)).sum() / counts.sum())


def calibration_bins(
    confidences: np.ndarray, is_right: np.ndarray, num_bins: int = NUM_BINS
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Reviews by the confidence in their predicted class, in bins of equal width from 0 to 1.

    Args:
        confidences: (num_reviews,) probabilities of the predicted classes.
        is_right: (num_reviews,) whether these are the right ones.
        num_bins: bins, each closed at its upper end.

    Returns:
        (num_bins,) numbers of reviews, their mean confidence and their accuracy, 0 in empty bins.
    """
    inner_edges = np.arange(1, num_bins) / num_bins
    places = np.searchsorted(inner_edges, confidences, side="left")
    counts = np.bincount(places, minlength=num_bins)
    divisor = np.maximum(counts, 1)
    confidence = np.bincount(places, weights=confidences, minlength=num_bins) / divisor
    accuracy = np.bincount(places, weights=is_right, minlength=num_bins) / divisor
    return counts, confidence, accuracy


def ranking_scores(log_probabilities: np.ndarray) -> np.ndarray:
    """(num_reviews, num_classes) what ranks reviews by a class.

    With two classes the difference of the log-probabilities, which ranks as the probability does
    but does not saturate at 1; with more of them the probability, as ``roc_auc_score`` takes it.
    """
    if log_probabilities.shape[1] == 2:
        difference = log_probabilities[:, 1] - log_probabilities[:, 0]
        return np.stack((-difference, difference), axis=1)
    return np.exp(log_probabilities)


def _f1(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> float | None:
    from sklearn.metrics import f1_score

    # A mean over classes that neither occur nor are predicted would count each of them as 0.
    value = float(
        f1_score(labels, predicted, average="binary", zero_division=np.nan)
        if num_classes == 2
        else f1_score(labels, predicted, average="macro")
    )
    return None if np.isnan(value) else value


def _one_against_rest(
    score: Any, log_probabilities: np.ndarray, labels: np.ndarray
) -> float | None:
    """A figure of a ranking: of the second class of two, else the mean over the classes."""
    num_classes = log_probabilities.shape[1]
    if len(np.unique(labels)) < num_classes:
        return None
    scores = ranking_scores(log_probabilities)
    classes = [1] if num_classes == 2 else range(num_classes)
    return float(np.mean([score(labels == each, scores[:, each]) for each in classes]))


Interval = tuple[float, float]

NUM_RESAMPLES = 10_000
_SEED = 0  # equal predictions, equal intervals
_BOUNDS = (0.025, 0.975)
# Of fewer right or wrong reviews percentiles are too narrow, and jump from one count to the next.
FEWEST_TO_RESAMPLE = 20
_MOST_CELLS = 100  # of a confusion matrix that is resampled: ten classes


def accuracy_interval(num_right: int, num_reviews: int) -> Interval:
    """95 % interval of an accuracy: percentiles of 10,000 bootstrap resamples (Efron 1979).

    The hits among ``num_reviews`` reviews drawn with replacement are binomial, so they are drawn
    as such. Where fewer than 20 reviews are right, or wrong, the interval is Wilson's.
    """
    if min(num_right, num_reviews - num_right) < FEWEST_TO_RESAMPLE:
        return wilson_interval(num_right, num_reviews)
    generator = np.random.default_rng(_SEED)
    hits = generator.binomial(num_reviews, num_right / num_reviews, NUM_RESAMPLES)
    return _percentiles(hits / num_reviews)


def wilson_interval(count: int, total: int) -> Interval:
    """95 % interval of a share (Wilson 1927); not empty where it is 0 or 1, either."""
    from scipy.stats import binomtest  # takes a second, which a start need not wait for

    found = binomtest(count, total).proportion_ci(method="wilson")
    return float(found.low), float(found.high)


def f1_interval(confusion: np.ndarray) -> Interval | None:
    """95 % interval of F1, by bootstrap.

    None with more than ten classes, and where all resamples have the same F1, as where all reviews
    are right: the reviews do not tell how far it could lie from others', which is not certainty.

    F1 is a function of the confusion matrix, whose cells are multinomial when reviews are drawn
    with replacement. Which F1 is as for :class:`sentiment.evaluation.metrics.Metrics`.

    Args:
        confusion: (num_classes, num_classes) reviews by right and by predicted class.
    """
    num_classes, num_reviews = len(confusion), int(confusion.sum())
    if num_classes**2 > _MOST_CELLS:
        return None
    generator = np.random.default_rng(_SEED)
    shares = confusion.ravel() / num_reviews
    cells = generator.multinomial(num_reviews, shares, NUM_RESAMPLES)
    cells = cells.reshape(-1, num_classes, num_classes)
    hits = np.diagonal(cells, axis1=1, axis2=2)  # (resamples, classes)
    occurrences = cells.sum(axis=1) + cells.sum(axis=2)  # right ones and predicted ones
    each = 2 * hits / np.maximum(occurrences, 1)
    if num_classes == 2:
        values = each[occurrences[:, 1] > 0, 1]
    else:
        values = each.sum(axis=1) / (occurrences > 0).sum(axis=1)
    return _percentiles(values) if len(np.unique(values)) > 1 else None


def auroc_interval(scores: np.ndarray, is_positive: np.ndarray) -> Interval | None:
    """95 % interval of the area under a ROC curve (DeLong, DeLong & Clarke-Pearson 1988).

    None where a class has fewer than two reviews, or all pairs are ranked alike: the variance is
    estimated from the reviews' own, which then says nothing.

    Args:
        scores: (num_reviews,) more of them for positive ones.
        is_positive: (num_reviews,) bool.
    """
    from scipy.stats import rankdata

    positive, negative = scores[is_positive], scores[~is_positive]
    if min(len(positive), len(negative)) < 2:
        return None
    ranks = rankdata(scores)  # by mid-ranks: Sun & Xu 2014
    # Share of the other class that each review is ranked on the right side of.
    above = (ranks[is_positive] - rankdata(positive)) / len(negative)
    below = 1 - (ranks[~is_positive] - rankdata(negative)) / len(positive)
    deviation = np.sqrt(above.var(ddof=1) / len(positive) + below.var(ddof=1) / len(negative))
    if deviation == 0:
        return None
    area, half = float(above.mean()), 1.959964 * float(deviation)
    return max(0.0, area - half), min(1.0, area + half)


def _percentiles(values: np.ndarray) -> Interval:
    low, high = np.quantile(values, _BOUNDS)
    return float(low), float(high)
