"""Metrics against sums written out by hand, not by the library that computes them."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, f1_score

from sentiment.evaluation.metrics import calibration_bins, compute_metrics, compute_scores


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


def average_precision_of(scores, is_positive):
    """Mean precision at each positive review, those above it counted one by one."""
    total = 0.0
    for score in scores[is_positive]:
        above = scores >= score
        total += is_positive[above].mean()
    return total / is_positive.sum()


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


@pytest.mark.parametrize(("num_reviews", "num_classes"), [(400, 2), (300, 4)])
def test_average_precision_adds_precisions_over_the_recalls(num_reviews, num_classes):
    log_probabilities, labels = draw(num_reviews, num_classes, seed=3)
    means = [
        average_precision_of(np.exp(log_probabilities[:, each]), labels == each)
        for each in range(num_classes)
    ]
    expected = means[1] if num_classes == 2 else np.mean(means)
    assert compute_metrics(log_probabilities, labels).average_precision == pytest.approx(expected)


@pytest.mark.parametrize("num_classes", [2, 3, 6])
def test_brier_score_is_its_definition(num_classes):
    log_probabilities, labels = draw(50, num_classes, seed=5)
    total = 0.0
    for row, label in zip(log_probabilities, labels, strict=True):
        for each, value in enumerate(row):
            total += (math.exp(value) - float(each == label)) ** 2
    brier = compute_metrics(log_probabilities, labels).brier
    if num_classes == 2:
        assert brier == pytest.approx(total / 50 / 2)
        assert brier == pytest.approx(brier_score_loss(labels, np.exp(log_probabilities[:, 1])))
    else:
        assert brier == pytest.approx(total / 50)


@pytest.mark.parametrize("num_classes", [2, 4])
def test_calibration_error_is_its_definition(num_classes):
    log_probabilities, labels = draw(500, num_classes, seed=7)
    rows = [(max(map(math.exp, row)), int(np.argmax(row))) for row in log_probabilities]
    error = 0.0
    for number in range(15):
        inside = [
            (confidence, said == label)
            for (confidence, said), label in zip(rows, labels, strict=True)
            if number / 15 < confidence <= (number + 1) / 15
        ]
        if inside:
            confidence = sum(each for each, _ in inside) / len(inside)
            accuracy = sum(hit for _, hit in inside) / len(inside)
            error += len(inside) / len(rows) * abs(confidence - accuracy)
    assert compute_metrics(log_probabilities, labels).ece == pytest.approx(error)


def test_certain_predictions_are_in_the_last_bin():
    log_probabilities = np.array([[0.0, -np.inf]] * 4)
    counts, confidence, accuracy = calibration_bins(np.ones(4), np.array([True, True, True, False]))
    assert (counts[-1], confidence[-1], accuracy[-1]) == (4, 1, 0.75)
    scores = compute_scores(log_probabilities, np.zeros(4, dtype=np.int64))
    assert (scores.nll, scores.brier, scores.ece) == (0, 0, 0)


def test_an_absent_class_leaves_f1_undefined_or_out_of_the_mean():
    none = np.log(np.tile([0.9, 0.1], (5, 1)))
    metrics = compute_metrics(none, np.zeros(5, dtype=np.int64))
    assert metrics.f1 is None, "0 of 0"
    assert metrics.score("f1") == float("-inf")
    predicted_once = np.log([[0.9, 0.1], [0.1, 0.9]])
    assert compute_metrics(predicted_once, np.zeros(2, dtype=np.int64)).f1 == 0
    three = np.log([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.6, 0.3, 0.1]])
    labels = np.array([0, 1, 1])
    expected = f1_score(labels, three.argmax(1), average="macro")
    assert compute_metrics(three, labels).f1 == pytest.approx(expected) == pytest.approx(2 / 3)


def test_one_class_only_leaves_auroc_undefined():
    log_probabilities, _ = draw(10, 2)
    metrics = compute_metrics(log_probabilities, np.ones(10, dtype=np.int64))
    assert metrics.auroc is None
    assert metrics.average_precision is None
    assert metrics.score("auroc") == float("-inf")
    json.dumps(metrics.as_dict(), allow_nan=False)


@pytest.mark.parametrize("name", ["nll", "brier", "ece"])
def test_less_of_an_error_is_a_better_score(name):
    good, labels = draw(100, 2)
    turned = good[:, ::-1]
    assert compute_metrics(good, labels).score(name) > compute_metrics(turned, labels).score(name)


def test_no_predictions_are_an_error():
    with pytest.raises(ValueError, match="no predictions"):
        compute_metrics(np.empty((0, 2)), np.empty(0, dtype=np.int64))
