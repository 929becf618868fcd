"""The threshold of the best F1 against all thresholds that there are."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.predictions import random_predictions
from hypothesis import given
from hypothesis import strategies as st

from sentiment.evaluation.evaluate import Predictions, fit_threshold, measure_threshold

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
