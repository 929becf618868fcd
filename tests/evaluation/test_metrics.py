"""Metrics against their definitions written out, intervals against resampling, the best threshold
and temperature against all that there are."""

import json

import numpy as np
import pytest
import torch
from helpers.predictions import random_predictions
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom
from sklearn.metrics import f1_score, precision_recall_fscore_support
from torch import nn

from sentiment.behaviour.checks import Proportion
from sentiment.evaluation.calibration import fit_temperature, measure_calibration
from sentiment.evaluation.evaluate import Predictions, fit_threshold, measure_threshold
from sentiment.evaluation.metrics import (
    ClassScores,
    accuracy_interval,
    auroc_interval,
    calibration_bins,
    compute_metrics,
    compute_scores,
    f1_interval,
    wilson_interval,
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


def test_less_of_an_error_is_a_better_score():
    run = random_predictions(100, 2)
    worse = compute_metrics(run.log_probabilities[:, ::-1], run.labels)
    for name in ("nll", "brier", "ece"):
        assert run.metrics().score(name) > worse.score(name)


def test_no_predictions_are_an_error():
    with pytest.raises(ValueError, match="no predictions"):
        compute_metrics(np.empty((0, 2)), np.empty(0, dtype=np.int64))


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


REVIEWS = st.lists(
    st.tuples(st.sampled_from([0.0, 1e-9, 0.2, 0.21, 0.5, 0.87654321, 1.0]), st.booleans()),
    min_size=1,
)


@given(reviews=REVIEWS.filter(lambda reviews: any(label for _, label in reviews)),
       positive=st.integers(0, 1))  # fmt: skip
def test_no_threshold_has_a_better_f1(reviews, positive):
    shares, is_positive = map(np.array, zip(*reviews, strict=True))
    columns = [shares, 1 - shares]
    with np.errstate(divide="ignore"):
        logs = np.log(np.stack(columns if positive == 0 else columns[::-1], axis=1))
    labels = np.where(is_positive, positive, 1 - positive)
    run = Predictions(logs, labels, positive)
    threshold = fit_threshold(run)
    found = measure_threshold(threshold, run, fitted_here=True).scores
    values = np.exp(logs[:, positive])
    best = max(
        2 * sum(is_positive & (values >= value)) / (sum(is_positive) + sum(values >= value))
        for value in values
    )
    assert found.f1 == pytest.approx(best)
    assert (found.num_reviews, found.num_predicted) == (
        is_positive.sum(), (values >= threshold).sum()
    )  # fmt: skip


def test_a_threshold_is_easy_to_type_and_needs_two_classes():
    run = Predictions(np.log([[0.9, 0.1], [0.38, 0.62], [0.3, 0.7]]), np.array([0, 1, 1]))
    assert fit_threshold(run) == 0.36
    assert fit_threshold(random_predictions(9, 3)) is None


def draw(temperature: float, num_classes: int, count: int = 10_000, seed: int = 0):
    """Log-probabilities that are calibrated once their logits are divided by ``temperature``."""
    generator = np.random.default_rng(seed)
    logits = 2 * generator.normal(size=(count, num_classes))
    right = torch.from_numpy(logits).softmax(1).numpy()
    labels = (generator.random((count, 1)) > right.cumsum(1)[:, :-1]).sum(1)
    return torch.from_numpy(logits * temperature).log_softmax(1).numpy(), labels


def test_no_temperature_on_a_fine_grid_is_better():
    log_probabilities, labels = draw(1.7, 3, count=500)
    logits, targets = torch.from_numpy(log_probabilities), torch.from_numpy(labels)
    grid = np.linspace(1, 3, 2_001)
    nlls = [nn.functional.cross_entropy(logits / each, targets).item() for each in grid]
    assert fit_temperature(log_probabilities, labels) == pytest.approx(
        grid[np.argmin(nlls)], abs=2e-3
    )


def test_perfect_and_hopeless_predictions_have_a_finite_temperature():
    certain = np.log([[0.9, 0.1], [0.2, 0.8]])
    assert fit_temperature(certain, np.array([0, 1])) == pytest.approx(0.05, rel=0.01)
    assert fit_temperature(certain, np.array([1, 0])) == pytest.approx(20, rel=0.01)


def test_scores_after_the_temperature_are_those_of_divided_logits():
    log_probabilities, labels = draw(2.5, 2, count=3_000)
    calibration = measure_calibration(log_probabilities, labels, 2.5, fitted_here=False)
    logits = torch.from_numpy(log_probabilities) / 2.5
    nll = nn.functional.cross_entropy(logits, torch.from_numpy(labels)).item()
    assert calibration.after.nll == pytest.approx(nll)
    assert calibration.after.ece < calibration.before.ece / 3
    assert calibration.after.brier < calibration.before.brier
    assert calibration.cross_fitted is None, "not needed"


def test_cross_fitting_shows_that_a_temperature_fits_noise():
    log_probabilities, _ = draw(1.0, 2, count=60)
    labels = np.random.default_rng(3).integers(0, 2, 60)
    temperature = fit_temperature(log_probabilities, labels)
    calibration = measure_calibration(log_probabilities, labels, temperature, fitted_here=True)
    again = measure_calibration(log_probabilities, labels, temperature, fitted_here=True)
    assert calibration == again, "seeded"
    assert calibration.cross_fitted is not None
    assert calibration.cross_fitted.nll > calibration.after.nll
    assert calibration.cross_fitted.ece > calibration.after.ece


def test_calibrated_probabilities_have_the_error_that_chance_predicts():
    """Cross-fitting adds none of its own."""
    errors = []
    for seed in range(20):
        drawn = draw(1.0, 2, count=500, seed=seed)
        calibration = measure_calibration(*drawn, 1.0, fitted_here=True)
        assert calibration.cross_fitted is not None
        scores = calibration.before, calibration.cross_fitted
        errors.append((*(score.ece for score in scores), calibration.ece_by_chance))
    before, cross_fitted, by_chance = np.mean(errors, axis=0)
    assert before == pytest.approx(by_chance, rel=0.15)
    assert cross_fitted == pytest.approx(before, rel=0.2)
    assert np.std(errors, axis=0)[2] < np.std(errors, axis=0)[0] / 3
