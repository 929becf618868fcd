"""How far figures could lie from those of other reviews of the same kind: 95 % intervals."""

from __future__ import annotations

import numpy as np

Interval = tuple[float, float]

NUM_RESAMPLES = 10_000
_SEED = 0  # equal predictions, equal intervals
_BOUNDS = (0.025, 0.975)
_MOST_CELLS = 100  # of a confusion matrix that is resampled: ten classes


def accuracy_interval(num_right: int, num_reviews: int) -> Interval:
    """95 % interval of an accuracy: percentiles of 10,000 bootstrap resamples (Efron 1979).

    The hits among ``num_reviews`` reviews drawn with replacement are binomial, so they are drawn
    as such. Where all reviews are right, or none is, every resample is like the sample; then the
    interval is Wilson's (1927), which is not empty.
    """
    if num_right in (0, num_reviews):
        from scipy.stats import binomtest

        wilson = binomtest(num_right, num_reviews).proportion_ci(method="wilson")
        return float(wilson.low), float(wilson.high)
    generator = np.random.default_rng(_SEED)
    hits = generator.binomial(num_reviews, num_right / num_reviews, NUM_RESAMPLES)
    return _percentiles(hits / num_reviews)


def f1_interval(confusion: np.ndarray) -> Interval | None:
    """95 % interval of F1, by bootstrap; None with more than ten classes.

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
    if num_classes > 2:
        return _percentiles(each.sum(axis=1) / (occurrences > 0).sum(axis=1))
    is_defined = occurrences[:, 1] > 0
    return _percentiles(each[is_defined, 1]) if is_defined.any() else None


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
