"""Is a difference between classifiers more than chance?

- Two runs, review by review: McNemar's test (McNemar 1947; Dietterich 1998, *Approximate
  Statistical Tests for Comparing Supervised Classification Learning Algorithms*) and a paired
  percentile bootstrap (Efron & Tibshirani 1993). Both speak of other reviews, for these weights.
- Two recipes, each trained with several seeds: Welch's t interval (Welch 1947) of the difference
  of their mean accuracies. It speaks of other seeds, on these reviews.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sentiment.evaluation.evaluate import Predictions
from sentiment.evaluation.metrics import NUM_RESAMPLES, Interval

FEW_DISCORDANT = 25  # below it the chi-square distribution is too rough


@dataclass(frozen=True)
class PairComparison:
    """Two runs, review by review.

    Attributes:
        first, second: names of the runs.
        difference: accuracy of the second less that of the first.
        difference_ci95: its 95 % interval by a paired bootstrap over the reviews; None where no
            review adds another difference than the others, so that none is ever drawn.
        both_right, only_first, only_second, neither: reviews, by which run has them right.
        mcnemar_p: probability of so unequal ``only_first`` and ``only_second``, or more, where the
            two are equally likely.
        mcnemar_test: how it was computed.
        agreement: share of reviews that both give the same class, right or wrong.
        kappa: Cohen's kappa, agreement beyond chance; None where both name one class only.
    """

    first: str
    second: str
    difference: float
    difference_ci95: Interval | None
    both_right: int
    only_first: int
    only_second: int
    neither: int
    mcnemar_p: float
    mcnemar_test: Literal["exact", "chi-square"]
    agreement: float
    kappa: float | None

    @property
    def is_shown(self) -> bool:
        """Whether the interval leaves out 0 and McNemar's p is below 0.05."""
        return leaves_out_zero(self.difference_ci95) and self.mcnemar_p < 0.05


@dataclass(frozen=True)
class SeedsComparison:
    """Two recipes, by the accuracies of their runs.

    Attributes:
        first, second: names of the groups.
        num_runs: runs of each.
        difference: mean accuracy of the second less that of the first.
        difference_ci95: its 95 % interval by Welch's t; None where no run differs from the others
            of its group.
        p_value: of Welch's t test, or None likewise.
    """

    first: str
    second: str
    num_runs: tuple[int, int]
    difference: float
    difference_ci95: Interval | None
    p_value: float | None

    @property
    def is_shown(self) -> bool:
        """Whether the interval leaves out 0."""
        return leaves_out_zero(self.difference_ci95)


def leaves_out_zero(interval: Interval | None) -> bool:
    """Whether there is an interval, and 0 is not in it."""
    return interval is not None and (interval[0] > 0 or interval[1] < 0)


def compare_pair(
    first: str, first_run: Predictions, second: str, second_run: Predictions
) -> PairComparison:
    """Compare two runs, given by name and predictions, review by review."""
    from sklearn.metrics import cohen_kappa_score

    is_main, is_second = find_hits(first_run), find_hits(second_run)
    only_first, only_second = int((is_main & ~is_second).sum()), int((is_second & ~is_main).sum())
    p_value, test = mcnemar(only_first, only_second)
    one, other = first_run.predicted, second_run.predicted
    is_constant = len(np.union1d(one, other)) == 1
    return PairComparison(
        first=first,
        second=second,
        difference=(only_second - only_first) / len(one),
        difference_ci95=bootstrap_difference(only_first, only_second, len(one)),
        both_right=int((is_main & is_second).sum()),
        only_first=only_first,
        only_second=only_second,
        neither=int((~is_main & ~is_second).sum()),
        mcnemar_p=p_value,
        mcnemar_test=test,
        agreement=float((one == other).mean()),
        kappa=None if is_constant else float(cohen_kappa_score(one, other)),
    )


def mcnemar(only_first: int, only_second: int) -> tuple[float, Literal["exact", "chi-square"]]:
    """McNemar's two-sided p for the reviews that one run alone has right, and how it was had.

    Exact by the binomial distribution below 25 such reviews, else by chi-square with Edwards's
    continuity correction.
    """
    from scipy.stats import binomtest, chi2

    total = only_first + only_second
    if total == 0:
        return 1.0, "exact"
    if total < FEW_DISCORDANT:
        return float(binomtest(only_first, total).pvalue), "exact"
    statistic = max(0, abs(only_first - only_second) - 1) ** 2 / total
    return float(chi2.sf(statistic, df=1)), "chi-square"


def bootstrap_difference(
    only_first: int, only_second: int, num_reviews: int, *, seed: int = 0
) -> Interval | None:
    """95 % percentile interval of the second accuracy less the first, over resampled reviews.

    None where all reviews add the same to the difference: resamples then are all alike, which says
    nothing of other reviews. A review adds -1, 0 or 1 to it, so that drawing reviews with
    replacement is drawing three counts from a multinomial distribution: exact, without a
    resampled review.
    """
    neither_alone = num_reviews - only_first - only_second
    if num_reviews in (only_first, only_second, neither_alone):
        return None
    shares = np.array([only_first, only_second, neither_alone]) / num_reviews
    draws = np.random.default_rng(seed).multinomial(num_reviews, shares, size=NUM_RESAMPLES)
    low, high = np.quantile((draws[:, 1] - draws[:, 0]) / num_reviews, [0.025, 0.975])
    return float(low), float(high)


def compare_seeds(
    first: str, second: str, first_accuracies: Sequence[float], second_accuracies: Sequence[float]
) -> SeedsComparison:
    """Compare the mean accuracies of two recipes of at least two runs each."""
    from scipy.stats import ttest_ind

    one, other = np.asarray(first_accuracies), np.asarray(second_accuracies)
    interval = p_value = None
    if np.ptp(one) > 0 or np.ptp(other) > 0:
        with warnings.catch_warnings():
            # One recipe's runs may be alike, which the formula bears and scipy warns of.
            warnings.simplefilter("ignore", RuntimeWarning)
            result = ttest_ind(other, one, equal_var=False)
        low, high = result.confidence_interval(0.95)
        interval, p_value = (float(low), float(high)), float(result.pvalue)
    difference = float(other.mean() - one.mean())
    return SeedsComparison(first, second, (len(one), len(other)), difference, interval, p_value)


def find_hits(run: Predictions) -> np.ndarray:
    """(num_reviews,) bool, true where a run is right."""
    return run.predicted == run.labels
