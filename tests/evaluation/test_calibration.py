"""The temperature against an optimizer that knows nothing of it, and what must not change."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from sentiment.evaluation.calibration import apply_temperature, fit_temperature, measure_calibration


def draw(temperature: float, num_classes: int, count: int = 20_000, seed: int = 0):
    """Log-probabilities that are right once their logits are divided by ``temperature``."""
    generator = np.random.default_rng(seed)
    logits = 2 * generator.normal(size=(count, num_classes))
    right = np.exp(torch.from_numpy(logits).log_softmax(1).numpy())
    labels = (generator.random((count, 1)) > right.cumsum(1)[:, :-1]).sum(1)
    return torch.from_numpy(logits * temperature).log_softmax(1).numpy(), labels


@pytest.mark.parametrize("num_classes", [2, 3])
@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_the_temperature_is_found_again(temperature, num_classes):
    found = fit_temperature(*draw(temperature, num_classes))
    assert found == pytest.approx(temperature, rel=0.04)


def test_it_agrees_with_gradient_descent():
    log_probabilities, labels = draw(1.7, 3, count=500)
    scale = nn.Parameter(torch.ones((), dtype=torch.float64))
    optimizer = torch.optim.LBFGS([scale], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        logits = torch.from_numpy(log_probabilities) / scale
        value = nn.functional.cross_entropy(logits, torch.from_numpy(labels))
        value.backward()
        return value

    optimizer.step(loss)
    assert fit_temperature(log_probabilities, labels) == pytest.approx(scale.item(), rel=1e-3)


def test_no_prediction_changes_and_probabilities_add_up():
    log_probabilities, _ = draw(1.0, 3, count=300)
    for temperature in (0.1, 2.0, 15.0):
        changed = apply_temperature(log_probabilities, temperature)
        assert (changed.argmax(1) == log_probabilities.argmax(1)).all()
        assert np.exp(changed).sum(1) == pytest.approx(1)
    assert apply_temperature(log_probabilities, 1.0) == pytest.approx(log_probabilities)


def test_perfect_and_hopeless_predictions_have_a_finite_temperature():
    certain = np.log([[0.9, 0.1], [0.2, 0.8]])
    assert fit_temperature(certain, np.array([0, 1])) == pytest.approx(0.05, rel=0.01)
    assert fit_temperature(certain, np.array([1, 0])) == pytest.approx(20, rel=0.01)


def test_scores_after_the_temperature_are_those_of_divided_logits():
    log_probabilities, labels = draw(2.5, 2, count=3_000)
    found = measure_calibration(log_probabilities, labels, 2.5, fitted_here=False)
    logits = torch.from_numpy(log_probabilities) / 2.5
    nll = nn.functional.cross_entropy(logits, torch.from_numpy(labels)).item()
    assert found.after.nll == pytest.approx(nll)
    assert found.after.ece < found.before.ece / 3
    assert found.after.brier < found.before.brier
    assert found.cross_fitted is None, "honest as it is"


def test_noise_that_a_temperature_fits_is_not_measured_on_itself():
    """Labels by chance: the best temperature flattens, the other half's errs by chance."""
    generator = np.random.default_rng(3)
    log_probabilities, _ = draw(1.0, 2, count=60)
    labels = generator.integers(0, 2, 60)
    temperature = fit_temperature(log_probabilities, labels)
    found = measure_calibration(log_probabilities, labels, temperature, fitted_here=True)
    again = measure_calibration(log_probabilities, labels, temperature, fitted_here=True)
    assert found == again, "seeded"
    assert found.cross_fitted is not None
    assert found.cross_fitted.nll > found.after.nll
    assert found.cross_fitted.ece > found.after.ece


def test_many_reviews_make_cross_fitting_agree():
    log_probabilities, labels = draw(1.6, 3)
    temperature = fit_temperature(log_probabilities, labels)
    found = measure_calibration(log_probabilities, labels, temperature, fitted_here=True)
    assert found.cross_fitted is not None
    assert found.cross_fitted.nll == pytest.approx(found.after.nll, abs=1e-3)
    assert found.cross_fitted.ece == pytest.approx(found.after.ece, abs=0.01)


def test_cross_fitting_adds_no_error_of_its_own():
    """Of right probabilities, chance shows as much whether or not a temperature is fitted."""
    errors = []
    for seed in range(20):
        drawn = draw(1.0, 2, count=500, seed=seed)
        found = measure_calibration(*drawn, 1.0, fitted_here=True)
        assert found.cross_fitted is not None
        errors.append((found.cross_fitted.ece, found.before.ece))
    cross_fitted, before = np.mean(errors, axis=0)
    assert cross_fitted == pytest.approx(before, rel=0.2)


def test_one_review_cannot_be_cross_fitted():
    found = measure_calibration(np.log([[0.7, 0.3]]), np.array([0]), 1.2, fitted_here=True)
    assert found.cross_fitted is None


def test_the_error_by_chance_is_that_of_right_probabilities():
    """Drawn anew with labels that follow the probabilities, the error is the one foretold."""
    seen = []
    for seed in range(40):
        found = measure_calibration(*draw(1.0, 2, count=2_000, seed=seed), 1.0, fitted_here=False)
        seen.append((found.after.ece, found.ece_by_chance))
    errors, foretold = np.array(seen).T
    assert errors.mean() == pytest.approx(foretold.mean(), rel=0.1)
    assert foretold.std() < errors.std() / 3
