"""Significance of differences between classifiers.

- Two runs, review by review: McNemar's test (McNemar 1947; Dietterich 1998, *Approximate
  Statistical Tests for Comparing Supervised Classification Learning Algorithms*) and a paired
  percentile bootstrap (Efron & Tibshirani 1993) of the accuracies, and Student's paired t of the
  negative log-likelihoods, which tells smaller differences from chance: a review counts by how
  probable its class was, not only by whether it was the most probable. They generalize to other
  reviews, not weights.
- Two recipes, each trained with several seeds: Welch's t interval (Welch 1947) of the difference of
  their mean accuracies. It generalizes to other seeds, not to other reviews.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sentiment.evaluation.evaluate import Predictions
from sentiment.evaluation.metrics import NUM_RESAMPLES, Interval, percentile_interval

FEW_DISCORDANT = 25  # with fewer, the chi-square distribution is too rough


@dataclass(frozen=True)
class PairComparison:
    """Two runs compared review by review."""

    first: str  # name of a run
    second: str
    difference: float  # accuracy of the second minus that of the first
    difference_ci95: Interval | None  # see bootstrap_difference
    both_right: int  # numbers of reviews by which run is right
    only_first: int
    only_second: int
    neither: int
    mcnemar_p: float  # two-sided
    mcnemar_test: Literal["exact", "chi-square"]
    nll_difference: float  # mean NLL of the second minus that of the first, in nats
    nll_difference_ci95: Interval | None  # by Student's paired t; None if all differ equally
    nll_p: float | None  # of the paired t test, or None likewise
    agreement: float  # share of reviews with the same predicted class, right or wrong
    kappa: float | None  # Cohen's; None if both predict one class only

    @property
    def is_significant(self) -> bool:
        """Whether the interval excludes 0 and McNemar's p is below 0.05."""
        return excludes_zero(self.difference_ci95) and self.mcnemar_p < 0.05


@dataclass(frozen=True)
class SeedsComparison:
    """Two recipes compared by the accuracies of their runs."""

    first: str  # name of a group of runs
    second: str
    num_runs: tuple[int, int]
    difference: float  # mean accuracy of the second minus that of the first
    difference_ci95: Interval | None  # by Welch's t; None if neither group has any variance
    p_value: float | None  # of Welch's t test, or None likewise

    @property
    def is_significant(self) -> bool:
        return excludes_zero(self.difference_ci95)


def excludes_zero(interval: Interval | None) -> bool:
    return interval is not None and (interval[0] > 0 or interval[1] < 0)


def compare_pair(
    first: str, first_run: Predictions, second: str, second_run: Predictions
) -> PairComparison:
    """Compare two runs, given by name and predictions, review by review."""
    from sklearn.metrics import cohen_kappa_score

    first_right, second_right = first_run.is_right, second_run.is_right
    only_first = int((first_right & ~second_right).sum())
    only_second = int((second_right & ~first_right).sum())
    p_value, test = mcnemar(only_first, only_second)
    nll_difference_ci95, nll_p = compare_losses(first_run.losses, second_run.losses)
    first_classes, second_classes = first_run.predicted, second_run.predicted
    is_constant = len(np.union1d(first_classes, second_classes)) == 1
    return PairComparison(
        first=first,
        second=second,
        difference=(only_second - only_first) / len(first_classes),
        difference_ci95=bootstrap_difference(only_first, only_second, len(first_classes)),
        both_right=int((first_right & second_right).sum()),
        only_first=only_first,
        only_second=only_second,
        neither=int((~first_right & ~second_right).sum()),
        mcnemar_p=p_value,
        mcnemar_test=test,
        nll_difference=float((second_run.losses - first_run.losses).mean()),
        nll_difference_ci95=nll_difference_ci95,
        nll_p=nll_p,
        agreement=float((first_classes == second_classes).mean()),
        kappa=None if is_constant else float(cohen_kappa_score(first_classes, second_classes)),
    )


def compare_losses(first: np.ndarray, second: np.ndarray) -> tuple[Interval | None, float | None]:
    """95 % interval of the mean of the second minus the first, and its p, by Student's paired t."""
    from scipy.stats import ttest_rel

    if len(first) < 2 or np.ptp(second - first) == 0:
        return None, None
    result = ttest_rel(second, first)
    low, high = result.confidence_interval(0.95)
    return (float(low), float(high)), float(result.pvalue)


def mcnemar(only_first: int, only_second: int) -> tuple[float, Literal["exact", "chi-square"]]:
    """McNemar's two-sided p from the numbers of reviews that only one run has right.

    Exact by the binomial distribution for fewer than 25 such reviews, else by chi-square with
    Edwards's continuity correction.
    """
    from scipy.stats import binomtest, chi2

    total = only_first + only_second
    if total == 0:
        return 1.0, "exact"
    if total < FEW_DISCORDANT:
        return float(binomtest(only_first, total).pvalue), "exact"
    statistic = max(0, abs(only_first - only_second) - 1) ** 2 / total
    return float(chi2.sf(statistic, df=1)), "chi-square"


def bootstrap_difference(only_first: int, only_second: int, num_reviews: int) -> Interval | None:
    """95 % percentile interval of the second accuracy minus the first, over resampled reviews.

    Each review contributes -1, 0 or 1 to the difference, so drawing reviews with replacement means
    drawing three counts from a multinomial distribution. None if all contribute the same: all
    resamples are then alike, which says nothing about other reviews.
    """
    num_equal = num_reviews - only_first - only_second
    if num_reviews in (only_first, only_second, num_equal):
        return None
    shares = np.array([only_first, only_second, num_equal]) / num_reviews
    draws = np.random.default_rng(0).multinomial(num_reviews, shares, size=NUM_RESAMPLES)
    return percentile_interval((draws[:, 1] - draws[:, 0]) / num_reviews)


def compare_seeds(
    first: str, second: str, first_accuracies: Sequence[float], second_accuracies: Sequence[float]
) -> SeedsComparison:
    """Compare the mean accuracies of two recipes with at least two runs each."""
    from scipy.stats import ttest_ind

    one, other = np.asarray(first_accuracies), np.asarray(second_accuracies)
    interval = p_value = None
    if np.ptp(one) > 0 or np.ptp(other) > 0:
        with warnings.catch_warnings():
            # One group may have no variance: the formula allows it, but scipy warns.
            warnings.simplefilter("ignore", RuntimeWarning)
            result = ttest_ind(other, one, equal_var=False)
        low, high = result.confidence_interval(0.95)
        interval, p_value = (float(low), float(high)), float(result.pvalue)
    difference = float(other.mean() - one.mean())
    return SeedsComparison(first, second, (len(one), len(other)), difference, interval, p_value)


def format_p(p_value: float) -> str:
    """``p`` to three significant digits with its relation, as in ``= 0.0213``."""
    return "< 0.001" if p_value < 0.001 else f"= {p_value:.3g}"


def format_points(share: float) -> str:
    """A difference of accuracies in points with its sign."""
    return f"{100 * share:+.2f}" if round(100 * share, 2) else "0.00"


def describe_gain(first_right: np.ndarray, second_right: np.ndarray) -> tuple[str, str]:
    """How much more accurate the second of two is, by the reviews that each has right.

    As ``+0.12 points`` and ``McNemar p = 0.0213``.
    """
    only_first = int((first_right & ~second_right).sum())
    only_second = int((second_right & ~first_right).sum())
    p_value, _ = mcnemar(only_first, only_second)
    points = format_points(second_right.mean() - first_right.mean())
    return f"{points} points", f"McNemar p {format_p(p_value)}"
