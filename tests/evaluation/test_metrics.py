"""Metrics against sums written out by hand, not by the library that computes them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from helpers.predictions import random_predictions
from sklearn.metrics import precision_recall_fscore_support

from sentiment.evaluation.metrics import (
    ClassScores,
    calibration_bins,
    compute_metrics,
    compute_scores,
)


def f1_of(predicted, labels, label):
    hits = sum((predicted == label) & (labels == label))
    return 2 * hits / (sum(predicted == label) + sum(labels == label))


def auroc_of(scores, is_positive):
    """Share of pairs of a positive and a negative that are ranked correctly, ties by half."""
    positive, negative = scores[is_positive][:, None], scores[~is_positive]
    return ((positive > negative) + 0.5 * (positive == negative)).mean()


def average_precision_of(scores, is_positive):
    """Mean precision at each positive review."""
    return np.mean([is_positive[scores >= score].mean() for score in scores[is_positive]])


def calibration_error_of(probabilities, labels):
    error = 0.0
    confidences, is_right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    for number in range(15):
        inside = (number / 15 < confidences) & (confidences <= (number + 1) / 15)
        if inside.any():
            difference = abs(confidences[inside].mean() - is_right[inside].mean())
            error += inside.mean() * difference
    return error


@pytest.mark.parametrize(("num_reviews", "num_classes"), [(200, 2), (7, 2), (150, 3), (90, 5)])
def test_metrics_are_their_definitions(num_reviews, num_classes):
    run = random_predictions(num_reviews, num_classes, margin=0.8)
    metrics, labels, predicted = run.metrics(), run.labels, run.predicted
    classes = [1] if num_classes == 2 else range(num_classes)

    def mean(metric):
        values = [metric(run.probabilities[:, label], labels == label) for label in classes]
        return pytest.approx(sum(values) / len(values))

    errors = run.probabilities - (labels[:, None] == np.arange(num_classes))
    assert metrics.num_reviews == num_reviews
    assert metrics.accuracy == pytest.approx(sum(predicted == labels) / num_reviews)
    nlls = [-row[label] for row, label in zip(run.log_probabilities, labels, strict=True)]
    assert metrics.nll == pytest.approx(sum(nlls) / num_reviews)
    brier = (errors**2).sum() / num_reviews
    assert metrics.brier == pytest.approx(brier / 2 if num_classes == 2 else brier)
    assert metrics.ece == pytest.approx(calibration_error_of(run.probabilities, labels))
    f1 = [f1_of(predicted, labels, label) for label in classes]
    assert metrics.f1 == pytest.approx(sum(f1) / len(f1))
    assert metrics.auroc == mean(auroc_of)
    assert metrics.average_precision == mean(average_precision_of)
    macro = [f1_of(predicted, labels, label) for label in range(num_classes)]
    assert metrics.macro_f1 == pytest.approx(sum(macro) / num_classes)
    for right, label in np.ndindex(num_classes, num_classes):
        assert metrics.confusion[right][label] == sum((labels == right) & (predicted == label))


@pytest.mark.parametrize("num_classes", [2, 4])
def test_scores_of_a_named_class_and_of_each(num_classes):
    run = random_predictions(80, num_classes)
    metrics = compute_metrics(run.log_probabilities, run.labels, 0)
    assert metrics.f1 == pytest.approx(f1_of(run.predicted, run.labels, 0))
    probabilities = run.probabilities[:, 0]
    assert metrics.auroc == pytest.approx(auroc_of(probabilities, run.labels == 0))
    expected = average_precision_of(probabilities, run.labels == 0)
    assert metrics.average_precision == pytest.approx(expected)
    table = precision_recall_fscore_support(run.labels, run.predicted)
    for scores, precision, recall, f1, count in zip(metrics.by_class, *table, strict=True):
        found = [scores.precision, scores.recall, scores.f1, scores.num_reviews]
        assert found == pytest.approx([precision, recall, f1, count])


def test_certain_predictions_are_in_the_last_bin():
    counts, confidence, accuracy = calibration_bins(np.ones(4), np.array([True, True, True, False]))
    assert (counts[-1], confidence[-1], accuracy[-1]) == (4, 1, 0.75)
    scores = compute_scores(np.array([[0.0, -np.inf]] * 4), np.zeros(4, dtype=np.int64))
    assert (scores.nll, scores.brier, scores.ece) == (0, 0, 0)


def test_an_absent_class_leaves_f1_undefined_or_out_of_the_mean():
    never = np.log(np.tile([0.9, 0.1], (5, 1)))
    metrics = compute_metrics(never, np.zeros(5, dtype=np.int64))
    assert metrics.f1 is None and metrics.score("f1") == float("-inf")
    assert metrics.by_class[1] == ClassScores(0, 0, precision=None, recall=None, f1=None)
    assert metrics.macro_f1 == 1
    predicted_once = np.log([[0.9, 0.1], [0.1, 0.9]])
    assert compute_metrics(predicted_once, np.zeros(2, dtype=np.int64)).f1 == 0
    three = np.log([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.6, 0.3, 0.1]])
    assert compute_metrics(three, np.array([0, 1, 1])).f1 == pytest.approx(2 / 3)


def test_a_single_class_leaves_auroc_undefined():
    run = random_predictions(10, 2)
    metrics = compute_metrics(run.log_probabilities, np.ones(10, dtype=np.int64))
    assert metrics.auroc is None and metrics.average_precision is None
    assert metrics.score("auroc") == float("-inf")
    json.dumps(metrics.as_dict(), allow_nan=False)


@pytest.mark.parametrize("name", ["nll", "brier", "ece"])
def test_less_of_an_error_is_a_better_score(name):
    run = random_predictions(100, 2)
    worse = compute_metrics(run.log_probabilities[:, ::-1], run.labels)
    assert run.metrics().score(name) > worse.score(name)


def test_no_predictions_are_an_error():
    with pytest.raises(ValueError, match="no predictions"):
        compute_metrics(np.empty((0, 2)), np.empty(0, dtype=np.int64))
