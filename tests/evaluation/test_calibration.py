"""The temperature against a grid search, and what it must not change."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from sentiment.evaluation.calibration import fit_temperature, measure_calibration


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
