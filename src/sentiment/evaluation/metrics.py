"""How good predictions are: one frozen set of figures, computed by scikit-learn."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Metrics:
    """Figures of a set of predictions.

    Attributes:
        num_reviews: reviews counted.
        accuracy: share classified rightly.
        accuracy_ci95: its 95 % interval (Wilson 1927, from the number of reviews).
        f1: F1 of the second class where there are two, else the mean over classes.
        auroc: area under the ROC curve; the mean of one class against the rest where there are
            more than two; None where a class does not occur.
        nll: mean negative log-likelihood of the right class, in nats.
        confusion: rows are right classes, columns predicted ones.
    """

    num_reviews: int
    accuracy: float
    accuracy_ci95: tuple[float, float]
    f1: float
    auroc: float | None
    nll: float
    confusion: tuple[tuple[int, ...], ...]

    def as_dict(self) -> dict[str, Any]:
        """The figures as JSON-able values."""
        return asdict(self)

    def score(self, name: str) -> float:
        """A figure by name, turned so that more is better and an undefined one is worst."""
        value = getattr(self, name)
        if value is None:
            return float("-inf")
        return -value if name == "nll" else value


def compute_metrics(log_probabilities: np.ndarray, labels: np.ndarray) -> Metrics:
    """Compare predictions with labels.

    Args:
        log_probabilities: (num_reviews, num_classes) float64 log-probabilities.
        labels: (num_reviews,) right classes.
    """
    # Takes a second: the first step of a training must not wait for it.
    from scipy.stats import binomtest
    from sklearn import metrics

    num_reviews, num_classes = log_probabilities.shape
    if num_reviews == 0:
        raise ValueError("no predictions to measure")
    predicted = log_probabilities.argmax(axis=1)
    classes = np.arange(num_classes)
    interval = binomtest(int((predicted == labels).sum()), num_reviews).proportion_ci(
        method="wilson"
    )
    is_binary = num_classes == 2
    return Metrics(
        num_reviews=num_reviews,
        accuracy=float(metrics.accuracy_score(labels, predicted)),
        accuracy_ci95=(float(interval.low), float(interval.high)),
        f1=float(
            metrics.f1_score(
                labels,
                predicted,
                labels=None if is_binary else classes,
                average="binary" if is_binary else "macro",
                zero_division=0.0,
            )
        ),
        auroc=_auroc(log_probabilities, labels),
        nll=float(-log_probabilities[np.arange(num_reviews), labels].mean()),
        confusion=tuple(
            tuple(int(count) for count in row)
            for row in metrics.confusion_matrix(labels, predicted, labels=classes)
        ),
    )


def _auroc(log_probabilities: np.ndarray, labels: np.ndarray) -> float | None:
    from sklearn.metrics import roc_auc_score

    num_classes = log_probabilities.shape[1]
    if len(np.unique(labels)) < num_classes:
        return None
    if num_classes == 2:
        # The difference ranks as the probability does, but does not saturate at 1.
        return float(roc_auc_score(labels, log_probabilities[:, 1] - log_probabilities[:, 0]))
    return float(
        roc_auc_score(
            labels, np.exp(log_probabilities), multi_class="ovr", labels=np.arange(num_classes)
        )
    )
