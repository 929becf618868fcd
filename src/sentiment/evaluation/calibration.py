"""Probabilities that mean what they say: one temperature for all logits.

Guo, Pleiss, Sun & Weinberger, *On Calibration of Modern Neural Networks*, ICML 2017: logits divided
by a temperature keep their order, so no prediction changes, while the probabilities move towards
how often they are right.
"""

from __future__ import annotations

import numpy as np

# Beyond these, probabilities are all alike or all 0 and 1: what perfect predictions would ask for.
_LOWEST, _HIGHEST = 0.05, 20.0


def fit_temperature(log_probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The temperature of the least negative log-likelihood, between 0.05 and 20.

    Args:
        log_probabilities: (num_reviews, num_classes) of reviews that were not trained on.
        labels: (num_reviews,) right classes.
    """
    from scipy.optimize import minimize_scalar  # takes a second, which a start need not wait for

    rows = np.arange(len(labels))

    def nll(inverse: float) -> float:
        return -float(apply_temperature(log_probabilities, 1 / inverse)[rows, labels].mean())

    # Convex in the inverse temperature: a log-sum-exp less a line.
    found = minimize_scalar(nll, bounds=(1 / _HIGHEST, 1 / _LOWEST), method="bounded")
    return 1 / float(found.x)


def apply_temperature(log_probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Log-probabilities (num_reviews, num_classes) of the logits divided by a temperature."""
    from scipy.special import log_softmax

    return log_softmax(log_probabilities / temperature, axis=1)
