"""How good predictions are: one frozen set of figures, computed by scikit-learn."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sentiment.evaluation.intervals import Interval, accuracy_interval

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
        raise ValueError("no predictions to measure")
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
