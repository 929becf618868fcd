"""Intervals against resampling in a loop, exact quantiles, and pairs counted one by one."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.predictions import random_predictions
from scipy.stats import binom
from sklearn.metrics import f1_score

from sentiment.behaviour.checks import Proportion
from sentiment.evaluation.metrics import (
    accuracy_interval,
    auroc_interval,
    compute_metrics,
    f1_interval,
    wilson_interval,
)


@pytest.mark.parametrize(
    ("num_right", "num_reviews"), [(2291, 2500), (20, 40), (27, 300), (22_900_000, 25_000_000)]
)
def test_accuracy_interval_is_that_of_infinitely_many_resamples(num_right, num_reviews):
    exact = binom.ppf([0.025, 0.975], num_reviews, num_right / num_reviews) / num_reviews
    deviation = np.sqrt(num_right * (num_reviews - num_right) / num_reviews**3)
    interval = accuracy_interval(num_right, num_reviews)
    assert interval == pytest.approx(exact, abs=0.1 * deviation + 1 / num_reviews)
    assert interval == accuracy_interval(num_right, num_reviews), "seeded"


@pytest.mark.parametrize(("num_right", "num_reviews"), [(0, 12), (12, 12), (19, 400), (381, 400)])
def test_few_right_or_wrong_reviews_get_wilsons_interval(num_right, num_reviews):
    interval = accuracy_interval(num_right, num_reviews)
    share = num_right / num_reviews
    for bound in interval:  # they solve (x - p)^2 = z^2 x (1 - x) / n
        spread = 1.959964**2 * bound * (1 - bound) / num_reviews
        assert (bound - share) ** 2 == pytest.approx(spread, abs=1e-6)
    assert interval[0] <= share <= interval[1] and interval[1] - interval[0] > 0.03
    assert interval == wilson_interval(num_right, num_reviews)
    assert interval == Proportion(num_right, num_reviews).interval, "as checks count"


@pytest.mark.parametrize("num_classes", [2, 3])
def test_f1_interval_is_that_of_reviews_drawn_one_by_one(num_classes):
    run = random_predictions(150, num_classes, margin=2, seed=2)
    generator = np.random.default_rng(2)
    average = "binary" if num_classes == 2 else "macro"
    values = []
    for _ in range(400):
        rows = generator.integers(0, 150, 150)
        values.append(f1_score(run.labels[rows], run.predicted[rows], average=average))
    confusion = np.array(compute_metrics(run.log_probabilities, run.labels).confusion)
    expected = np.percentile(values, [2.5, 97.5])
    assert f1_interval(confusion) == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize(
    "confusion",
    [
        [[30, 0], [0, 30]],
        [[30, 4], [6, 0]],
        [[7, 0, 0], [0, 8, 0], [0, 0, 9]],
        [[5, 0], [0, 0]],
        np.eye(11, dtype=int),
    ],
)
def test_f1_has_no_interval_if_resamples_are_alike_or_classes_many(confusion):
    assert f1_interval(np.array(confusion)) is None


def test_auroc_interval_is_delongs():
    """The variance comes from the pairs' placement values, counted in a loop."""
    generator = np.random.default_rng(4)
    is_positive = generator.random(60) < 0.4
    scores = np.round(generator.normal(size=60) + is_positive, 1)  # with ties
    positive, negative = scores[is_positive][:, None], scores[~is_positive]
    wins = (positive > negative) + 0.5 * (positive == negative)
    variance = sum(
        sum((value - wins.mean()) ** 2 for value in values) / (len(values) - 1) / len(values)
        for values in (wins.mean(axis=1), wins.mean(axis=0))
    )
    half = 1.959964 * variance**0.5
    expected = max(0, wins.mean() - half), min(1, wins.mean() + half)
    assert auroc_interval(scores, is_positive) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("scores", "positive"),
    [
        ([1.0, 2.0], [False, True]),
        ([1.0, 2.0, 3.0], [True, True, True]),
        ([1.0] * 4, [True, False] * 2),
        ([1.0, 2.0, 3.0, 4.0], [False, False, True, True]),
    ],
)
def test_auroc_of_too_few_reviews_or_equal_ranks_has_no_interval(scores, positive):
    assert auroc_interval(np.array(scores), np.array(positive)) is None
