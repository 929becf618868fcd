"""Intervals against resampling written as a loop, exact quantiles, and pairs counted one by one."""

from __future__ import annotations

import itertools
import random
import time

import numpy as np
import pytest
from scipy.stats import binom
from sklearn.metrics import f1_score

from sentiment.behaviour.checks import Proportion
from sentiment.evaluation.metrics import (
    accuracy_interval,
    auroc_interval,
    f1_interval,
    wilson_interval,
)


@pytest.mark.parametrize(
    ("num_right", "num_reviews"), [(2291, 2500), (20, 40), (27, 300), (480, 500)]
)
def test_accuracy_interval_is_that_of_ever_more_resamples(num_right, num_reviews):
    exact = binom.ppf([0.025, 0.975], num_reviews, num_right / num_reviews) / num_reviews
    deviation = np.sqrt(num_right * (num_reviews - num_right) / num_reviews**3)
    found = accuracy_interval(num_right, num_reviews)
    assert found == pytest.approx(exact, abs=0.1 * deviation + 1 / num_reviews)
    assert found[0] <= num_right / num_reviews <= found[1]


def test_accuracy_interval_is_that_of_reviews_drawn_one_by_one():
    generator = random.Random(0)
    hits = [1] * 40 + [0] * 22
    shares = sorted(sum(generator.choices(hits, k=62)) / 62 for _ in range(4_000))
    expected = shares[100], shares[3_899]
    assert accuracy_interval(40, 62) == pytest.approx(expected, abs=1 / 62 + 1e-9)


def test_accuracy_interval_is_the_same_each_time_and_quick():
    started = time.process_time()
    assert accuracy_interval(22_900_000, 25_000_000) == accuracy_interval(22_900_000, 25_000_000)
    assert time.process_time() - started < 0.5


def test_intervals_cover_what_they_say():
    """Of samples from a known accuracy, about 95 in a hundred have it in their interval."""
    generator = np.random.default_rng(1)
    covered = 0
    for hits in generator.binomial(800, 0.87, size=400):
        low, high = accuracy_interval(int(hits), 800)
        covered += low <= 0.87 <= high
    assert 0.92 <= covered / 400 <= 0.98


@pytest.mark.parametrize(
    ("num_right", "num_reviews"), [(0, 12), (12, 12), (5, 12), (19, 400), (381, 400)]
)
def test_few_right_or_wrong_have_wilsons_interval(num_right, num_reviews):
    low, high = accuracy_interval(num_right, num_reviews)
    share = num_right / num_reviews
    for bound in (low, high):  # they solve (x - p)^2 = z^2 x (1 - x) / n
        spread = 1.959964**2 * bound * (1 - bound) / num_reviews
        assert (bound - share) ** 2 == pytest.approx(spread, abs=1e-6)
    assert low <= share <= high and high - low > 0.03
    assert (low, high) == wilson_interval(num_right, num_reviews)
    assert (low, high) == Proportion(num_right, num_reviews).interval, "as checks count"


@pytest.mark.parametrize("num_reviews", [1, 20, 39, 100, 500])
def test_one_more_right_moves_the_interval_up(num_reviews):
    """But for the seam between the two methods, where a bound may fall back by a review."""
    bounds = [accuracy_interval(count, num_reviews) for count in range(num_reviews + 1)]
    steps = np.diff(np.array(bounds), axis=0)
    assert (steps > -1 / num_reviews).all()
    seams = [19, num_reviews - 20] if num_reviews >= 40 else []
    assert (np.delete(steps, seams, axis=0) >= -1e-12).all()


@pytest.mark.parametrize("num_classes", [2, 3])
def test_f1_interval_is_that_of_reviews_drawn_one_by_one(num_classes):
    generator = np.random.default_rng(2)
    labels = generator.integers(0, num_classes, 150)
    predicted = np.where(generator.random(150) < 0.8, labels, (labels + 1) % num_classes)
    confusion = np.zeros((num_classes, num_classes), dtype=int)
    for label, said in zip(labels, predicted, strict=True):
        confusion[label, said] += 1
    values = []
    for _ in range(800):
        rows = generator.integers(0, 150, 150)
        average = "binary" if num_classes == 2 else "macro"
        values.append(f1_score(labels[rows], predicted[rows], average=average))
    expected = np.percentile(values, [2.5, 97.5])
    assert f1_interval(confusion) == pytest.approx(expected, abs=0.015)


@pytest.mark.parametrize(
    "confusion",
    [[[30, 0], [0, 30]], [[30, 4], [6, 0]], [[7, 0, 0], [0, 8, 0], [0, 0, 9]], [[1, 0], [0, 1]]],
)
def test_f1_that_no_resample_changes_has_no_interval_that_pretends_certainty(confusion):
    assert f1_interval(np.array(confusion)) is None


def test_f1_without_its_class_or_with_many_has_no_interval():
    assert f1_interval(np.array([[5, 0], [0, 0]])) is None
    assert f1_interval(np.eye(11, dtype=int)) is None


def test_auroc_interval_is_delongs():
    """Its variance from the pairs' placement values, each counted in a loop."""
    generator = np.random.default_rng(4)
    is_positive = generator.random(60) < 0.4
    scores = np.round(generator.normal(size=60) + is_positive, 1)  # with ties
    wins = np.array(
        [
            [float(p > n) + 0.5 * float(p == n) for n in scores[~is_positive]]
            for p in scores[is_positive]
        ]
    )
    by_positive, by_negative = wins.mean(axis=1), wins.mean(axis=0)
    variance = sum(
        sum((each - wins.mean()) ** 2 for each in values) / (len(values) - 1) / len(values)
        for values in (by_positive, by_negative)
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
    ],
)
def test_auroc_of_too_few_or_all_alike_has_no_interval(scores, positive):
    assert auroc_interval(np.array(scores), np.array(positive)) is None


def test_perfect_ranking_has_no_interval_that_pretends_certainty():
    scores = np.array(list(itertools.chain(range(5), range(10, 15))), dtype=float)
    assert auroc_interval(scores, scores > 7) is None
