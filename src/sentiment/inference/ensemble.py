"""Ensembles: a run whose predictions are averaged with those of other runs or linear models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sentiment.comparison.report import format_p, format_points
from sentiment.comparison.significance import mcnemar
from sentiment.data.reviews import Reviews
from sentiment.display.console import sanitize
from sentiment.evaluation.calibration import average_models
from sentiment.evaluation.evaluate import Predictions


@dataclass(frozen=True)
class Member:
    """Another model of an ensemble.

    Attributes:
        predict: maps texts to calibrated log-probabilities (num_texts, num_classes).
    """

    path: Path
    predict: Callable[[Sequence[str]], np.ndarray]


def average_predictions(
    run: Path, predictions: Predictions, members: Sequence[Member], reviews: Reviews
) -> tuple[Predictions, str]:
    """A run's calibrated predictions of some reviews averaged with its members', and a remark that
    compares the ensemble with each model alone.
    """
    paths = [run, *(member.path for member in members)]
    alone = [predictions.log_probabilities, *(each.predict(reviews.texts) for each in members)]
    ensemble = replace(predictions, log_probabilities=average_models(alone))
    together = ensemble.is_right
    lines = [
        f"Predictions of {len(alone)} models are averaged. Each alone, and the ensemble's gain:"
    ]
    for path, log_probabilities in zip(paths, alone, strict=True):
        right = replace(predictions, log_probabilities=log_probabilities).is_right
        p_value, _ = mcnemar(int((right & ~together).sum()), int((together & ~right).sum()))
        lines.append(
            f"{sanitize(str(path))} {100 * right.mean():.2f} % "
            f"({format_points(together.mean() - right.mean())} points, "
            f"McNemar p {format_p(p_value)});"
        )
    return ensemble, " ".join(lines).removesuffix(";") + "."
