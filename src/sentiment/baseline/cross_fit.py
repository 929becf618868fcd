"""Predictions of texts by linear models that were fitted to the others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from sentiment.baseline.linear import Ngrams, find_ngrams, fit_linear
from sentiment.baseline.train import MIN_REVIEWS
from sentiment.config.config import Config
from sentiment.data.pipeline import tokenize_reviews
from sentiment.data.reviews import Reviews
from sentiment.data.splits import choose_folds, dedup_key, number_keys
from sentiment.data.tokenizer import TokenizedTexts
from sentiment.display.console import progress_bar
from sentiment.runtime.errors import UserError

NUM_FOLDS = 5


@dataclass(frozen=True)
class CrossFit:
    """Out-of-fold predictions, and the mean of the models that made them."""

    num_folds: int
    log_probabilities: np.ndarray  # (num_texts, num_classes) float64
    ngrams: Ngrams
    matrix: csr_array  # (num_texts, num_ngrams), see Ngrams.matrix
    class_weights: np.ndarray  # (num_classes, num_ngrams)


def cross_fit(
    tokenized: TokenizedTexts,
    labels: np.ndarray,
    *,
    num_classes: int,
    copies: np.ndarray,
    groups: np.ndarray | None,
    seed: int,
) -> CrossFit | None:
    """Predict each text by a model of the other folds; None without two folds or any n-gram.

    ``copies`` and ``groups`` (num_texts,) number texts and groups: whole groups make up a fold, and
    no model learns from a copy of a text that it predicts. Without groups, copies of a text stay
    together. Which n-grams exist is counted over all texts, which uses no label.
    """
    groups = copies if groups is None else number_keys(groups.tolist())
    class_sizes = np.bincount(labels, minlength=num_classes)
    num_folds = min(NUM_FOLDS, int(groups.max()) + 1, int(class_sizes.max()))
    ngrams = find_ngrams(tokenized, min_texts=MIN_REVIEWS)
    if num_folds < 2 or len(ngrams) == 0:
        return None
    folds = choose_folds(labels, groups, num_folds, seed)[groups]
    matrix = ngrams.matrix(tokenized)
    log_probabilities = np.empty((len(labels), num_classes))
    weights = np.zeros((num_classes, len(ngrams)))
    for fold in progress_bar(
        iterable=range(num_folds),
        desc="cross-validating the linear model",
        unit="fold",
        leave=False,
    ):
        held = folds == fold
        trains = ~held & ~np.isin(copies, copies[held])
        model = fit_linear(matrix[trains], labels[trains], num_classes)
        log_probabilities[held] = model.log_probabilities(matrix[held])
        weights += model.class_weights() / num_folds
    return CrossFit(num_folds, log_probabilities, ngrams, matrix, weights)


def judge_labels(reviews: Reviews, config: Config) -> np.ndarray:
    """(num_reviews, num_classes) out-of-fold probabilities of a run's training reviews.

    Raises:
        UserError: no word occurs in enough of them, or they cannot be divided into folds.
    """
    result = cross_fit(
        tokenize_reviews(reviews, config.data),
        reviews.labels,
        num_classes=len(reviews.class_names),
        copies=number_keys(map(dedup_key, reviews.texts)),
        groups=reviews.groups,
        seed=config.data.validation_seed,
    )
    if result is None:
        raise UserError(
            f"{reviews.origin}: no linear model can give a second opinion, because no word occurs "
            f"in {MIN_REVIEWS} of its {len(reviews)} training reviews: give more, or set "
            "distillation.labelled to 0"
        )
    return np.exp(result.log_probabilities)
