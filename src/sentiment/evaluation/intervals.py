"""How far figures could lie from those of other reviews of the same kind: 95 % intervals."""

from __future__ import annotations

import numpy as np

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
