"""Logistic regression over n-grams, each weighted by how much it tells the classes apart.

Wang & Manning, *Baselines and Bigrams: Simple, Good Sentiment and Topic Classification*, ACL 2012:
an n-gram counts as present or absent, and its presence as the log-count ratio of naive Bayes. Of
more than two classes each is told from all others, with ratios of its own (one-vs-rest). Here the
n-grams of a text are also scaled to unit length, so that a long text is not surer by being long.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from scipy.special import log_expit, logsumexp

# Chosen on IMDB's training reviews, by three hold-outs of 50 stretches of 50 neighbouring ones: at
# 100 the mean accuracy is 91.1 % and the NLL 0.228, both the best (90.8 % at 30, 91.0 % at 300).
# Without unit length they are 90.9 % and 0.239 at best.
REGULARIZATION = 100.0  # scikit-learn's C, the inverse of the penalty's weight


@dataclass(frozen=True)
class LinearModel:
    """A classifier of rows of n-grams.

    Attributes:
        weights: (num_outputs, num_ngrams) float32, ratios included. Of two classes there is one
            output, for the second class; of more, one for each class against the others.
        biases: (num_outputs,) float32.
    """

    weights: np.ndarray
    biases: np.ndarray

    def log_probabilities(self, matrix: csr_array) -> np.ndarray:
        """(num_texts, num_classes) float64, of a matrix (num_texts, num_ngrams)."""
        sums = matrix @ self.weights.T.astype(np.float64)  # (num_texts, num_outputs)
        scores = sums / _lengths(matrix)[:, np.newaxis] + self.biases
        if len(self.biases) == 1:
            return log_expit(np.concatenate((-scores, scores), axis=1))
        logs = log_expit(scores)  # of each class against the others, which sum to no 1 yet
        return logs - logsumexp(logs, axis=1, keepdims=True)

    def class_weights(self) -> np.ndarray:
        """(num_classes, num_ngrams) how much an n-gram speaks for each class."""
        if len(self.biases) == 1:
            return np.concatenate((-self.weights, self.weights))
        return self.weights


def fit_linear(matrix: csr_array, labels: np.ndarray, num_classes: int) -> LinearModel:
    """Learn from a matrix (num_texts, num_ngrams) of 1 and 0 and its labels (num_texts,)."""
    classes = [1] if num_classes == 2 else range(num_classes)
    outputs = [_fit_output(matrix, labels == each) for each in classes]
    weights, biases = zip(*outputs, strict=True)
    return LinearModel(np.stack(weights), np.array(biases, dtype=np.float32))


def log_count_ratios(matrix: csr_array, is_positive: np.ndarray) -> np.ndarray:
    """(num_ngrams,) float32: log of an n-gram's share of the positive texts' over the others'.

    To the number of texts of either kind that hold an n-gram, 1 is added.
    """
    counts = [
        matrix[rows].sum(axis=0, dtype=np.float64) + 1 for rows in (is_positive, ~is_positive)
    ]
    positive, negative = (each / each.sum() for each in counts)
    return np.log(positive / negative).astype(np.float32)


def _fit_output(matrix: csr_array, is_positive: np.ndarray) -> tuple[np.ndarray, float]:
    """The weights and the bias that tell positive texts from the others."""
    from sklearn.linear_model import LogisticRegression  # takes a second

    num_positive, num_texts = np.count_nonzero(is_positive), len(is_positive)
    if num_positive in (0, num_texts):  # a class that training lacks: its odds by Laplace's rule
        odds = (num_positive + 1) / (num_texts - num_positive + 1)
        return np.zeros(matrix.shape[1], dtype=np.float32), float(np.log(odds))
    ratios = log_count_ratios(matrix, is_positive)
    weighted = matrix.copy()
    weighted.data = ratios[weighted.indices]
    weighted.data /= np.repeat(_lengths(matrix), np.diff(matrix.indptr))
    model = LogisticRegression(C=REGULARIZATION, max_iter=1_000).fit(weighted, is_positive)
    return model.coef_[0].astype(np.float32) * ratios, float(model.intercept_[0])


def _lengths(matrix: csr_array) -> np.ndarray:
    """(num_texts,) float32: the Euclidean length of each row of 1 and 0, at least 1."""
    return np.sqrt(np.diff(matrix.indptr).clip(min=1)).astype(np.float32)
