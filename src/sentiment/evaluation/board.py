"""Predictions in TensorBoard: the pictures of an evaluation, for training and evaluating alike."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from sentiment.evaluation.calibration import apply_temperature
from sentiment.evaluation.evaluate import Predictions
from sentiment.evaluation.metrics import Metrics, ranking_scores
from sentiment.evaluation.plots import (
    draw_confusion,
    draw_precision_recall,
    draw_reliability,
    draw_roc,
    draw_scores,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_pictures(
    predictions: Predictions, class_names: Sequence[str], temperature: float, *, fitted_here: bool
) -> dict[str, Figure]:
    """The pictures of predictions by their names, which are TensorBoard's tags.

    Args:
        predictions: at temperature 1.
        class_names: names of the classes.
        temperature: the one that calibrates them.
        fitted_here: whether it was fitted on these reviews.
    """
    labels, num_classes = predictions.labels, len(class_names)
    confusion = np.zeros((num_classes, num_classes), dtype=np.int64)
    np.add.at(confusion, (labels, predictions.predicted), 1)
    scores = ranking_scores(predictions.log_probabilities)
    before = predictions.probabilities
    after = np.exp(apply_temperature(predictions.log_probabilities, temperature))
    return {
        "confusion": draw_confusion(confusion, class_names),
        "roc": draw_roc(scores, labels, class_names),
        "precision_recall": draw_precision_recall(scores, labels, class_names),
        "reliability": draw_reliability(
            before, after, labels, temperature=temperature, fitted_here=fitted_here
        ),
        "scores": draw_scores(after, labels, class_names),
    }


def add_picture(writer: SummaryWriter, tag: str, figure: Figure, step: int) -> None:
    """Show a figure in TensorBoard, under ``pictures/TAG``."""
    figure.set_dpi(120)
    with warnings.catch_warnings():
        # A class may have a name in a script that the font lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        writer.add_figure(f"pictures/{tag}", figure, step)


def write_board(path: Path, metrics: Metrics, pictures: dict[str, Figure], epoch: int) -> None:
    """Write an evaluation's events to a folder in place of those of an earlier one.

    The figures go under the tags of training's, so that they are points of the same charts.

    Args:
        path: the folder.
        metrics: the figures.
        pictures: those to show, by tag.
        epoch: of the weights that were evaluated.
    """
    for earlier in path.glob("events.out.tfevents.*"):
        earlier.unlink()
    with SummaryWriter(str(path)) as writer:
        add_scalars(writer, metrics, epoch)
        for tag, figure in pictures.items():
            add_picture(writer, tag, figure, epoch)


def add_scalars(writer: SummaryWriter, metrics: Metrics, epoch: int) -> None:
    """The figures as points of the curves by epoch."""
    values = {
        "loss": metrics.nll,
        "accuracy": metrics.accuracy,
        "f1": metrics.f1,
        "auroc": metrics.auroc,
    }
    for name, value in values.items():
        if value is not None:
            writer.add_scalar(f"{name}/by_epoch", value, epoch)
