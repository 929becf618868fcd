"""Metrics against sums written out by hand, not by the library that computes them."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentiment.evaluation.metrics import compute_metrics


def draw(num_reviews: int, num_classes: int, seed: int = 0):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, num_classes, num_reviews)
    logits = generator.normal(size=(num_reviews, num_classes))
    logits[np.arange(num_reviews), labels] += 0.8
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)), labels


def f1_of(predicted, labels, of_class):
    hits = sum(p == of_class and y == of_class for p, y in zip(predicted, labels, strict=True))
    total = sum(predicted == of_class) + sum(labels == of_class)
    return 2 * hits / total if total else 0.0


def auroc_of(scores, is_positive):
    """Share of pairs of one positive and one negative that are ranked rightly, ties by half."""
    wins = [
        float(p > n) + 0.5 * float(p == n)
        for p in scores[is_positive]
        for n in scores[~is_positive]
    ]
    return sum(wins) / len(wins)


@pytest.mark.parametrize(("num_reviews", "num_classes"), [(200, 2), (7, 2), (150, 3), (90, 5)])
def test_figures_are_their_definitions(num_reviews, num_classes):
    log_probabilities, labels = draw(num_reviews, num_classes)
    metrics = compute_metrics(log_probabilities, labels)
    predicted = log_probabilities.argmax(axis=1)
    hits = int(sum(predicted == labels))
    assert metrics.num_reviews == num_reviews
    assert metrics.accuracy == pytest.approx(hits / num_reviews)
    assert metrics.nll == pytest.approx(
        -sum(row[y] for row, y in zip(log_probabilities, labels, strict=True)) / num_reviews
    )
    each = [f1_of(predicted, labels, k) for k in range(num_classes)]
    assert metrics.f1 == pytest.approx(each[1] if num_classes == 2 else sum(each) / num_classes)
    areas = [auroc_of(np.exp(log_probabilities[:, k]), labels == k) for k in range(num_classes)]
    assert metrics.auroc == pytest.approx(areas[1] if num_classes == 2 else np.mean(areas))
    for right in range(num_classes):
        for said in range(num_classes):
            count = sum((labels == right) & (predicted == said))
            assert metrics.confusion[right][said] == count


@given(hits=st.integers(0, 500), misses=st.integers(0, 500))
def test_interval_is_wilsons(hits, misses):
    if hits + misses == 0:
        return
    n, z = hits + misses, 1.959963984540054
    labels = np.array([0] * hits + [1] * misses)
    log_probabilities = np.log(np.tile([0.9, 0.1], (n, 1)))
    low, high = compute_metrics(log_probabilities, labels).accuracy_ci95
    p = hits / n
    center = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert low == pytest.approx(max(0, center - half), abs=1e-9)
    assert high == pytest.approx(min(1, center + half), abs=1e-9)


def test_one_class_only_leaves_auroc_undefined():
    log_probabilities, _ = draw(10, 2)
    metrics = compute_metrics(log_probabilities, np.ones(10, dtype=np.int64))
    assert metrics.auroc is None
    assert metrics.score("auroc") == float("-inf")
    json.dumps(metrics.as_dict(), allow_nan=False)


def test_less_nll_is_a_better_score():
    good, labels = draw(100, 2)
    assert compute_metrics(good, labels).score("nll") > compute_metrics(2 * good - 1, labels).score(
        "nll"
    )


def test_no_predictions_are_an_error():
    with pytest.raises(ValueError, match="no predictions"):
        compute_metrics(np.empty((0, 2)), np.empty(0, dtype=np.int64))
