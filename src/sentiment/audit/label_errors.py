"""Labels that are likely wrong: out-of-fold predictions of the linear model, confident learning."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sentiment.baseline.cross_fit import CrossFit
from sentiment.evaluation.evaluate import Predictions

NUM_SHOWN = 50  # labels to read, the likeliest errors
_NUM_NGRAMS = 10  # of each class


@dataclass(frozen=True)
class OutOfFold:
    """Predictions of each review by a linear model that was not trained on it or its copies."""

    num_folds: int
    predictions: Predictions  # of all reviews, with their given labels
    # The n-grams with the largest mean weights for each class, and (num_ngrams, num_classes) how
    # many reviews of each class contain them.
    ngrams: list[list[str]]
    counts: list[np.ndarray]


def summarize(fit: CrossFit, labels: np.ndarray) -> OutOfFold:
    """What the report needs of the models' predictions, and of the n-grams they found telling."""
    num_classes = fit.log_probabilities.shape[1]
    weights, texts = fit.class_weights, fit.ngrams.texts()
    heaviest = [np.argsort(-row, kind="stable")[:_NUM_NGRAMS] for row in weights]
    heaviest = [top[row[top] > 0] for row, top in zip(weights, heaviest, strict=True)]
    classes = [fit.matrix[labels == label] for label in range(num_classes)]
    counts = [np.stack([rows[:, top].sum(axis=0) for rows in classes], 1) for top in heaviest]
    heaviest_texts = [[texts[index] for index in top.tolist()] for top in heaviest]
    predictions = Predictions(fit.log_probabilities, labels)
    return OutOfFold(fit.num_folds, predictions, heaviest_texts, counts)


@dataclass(frozen=True)
class Doubt:
    """A review whose label the model confidently contradicts."""

    index: int  # of the review
    suggested: int  # the class that the model is confident of
    suggested_probability: float


def find_label_errors(probabilities: np.ndarray, labels: np.ndarray) -> list[Doubt]:
    """Confident learning on out-of-fold ``probabilities`` (num_reviews, num_classes).

    Class j's threshold is the mean probability of j over the reviews labelled j. A review counts as
    class j if its probability of j reaches that threshold and is the largest to reach its own; the
    label is flagged if it is not j. The widest margins between both classes come first (Northcutt,
    Jiang & Chuang, *Confident Learning: Estimating Uncertainty in Dataset Labels*, JAIR 2021).
    """
    given = probabilities[np.arange(len(labels)), labels]
    sizes = np.bincount(labels, minlength=probabilities.shape[1])
    sums = np.bincount(labels, weights=given, minlength=probabilities.shape[1])
    thresholds = np.where(sizes > 0, sums / np.maximum(sizes, 1), np.inf)
    confident = np.where(probabilities >= thresholds, probabilities, -1.0)
    suggested, most = confident.argmax(axis=1), confident.max(axis=1)
    doubted = np.flatnonzero((most >= 0) & (suggested != labels))
    order = doubted[np.argsort(given[doubted] - most[doubted], kind="stable")]
    columns = (order, suggested[order], most[order])
    return [Doubt(*values) for values in zip(*(column.tolist() for column in columns), strict=True)]
