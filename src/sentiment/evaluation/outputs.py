"""All files of an evaluation, and its figures in TensorBoard."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from sentiment.data.sources import has_validation
from sentiment.display.console import sanitize
from sentiment.evaluation.calibration import apply_temperature
from sentiment.evaluation.evaluate import Predictions, Rounding
from sentiment.evaluation.metrics import Metrics, ranking_scores
from sentiment.evaluation.plots import (
    draw_confusion,
    draw_precision_recall,
    draw_reliability,
    draw_roc,
    draw_scores,
)
from sentiment.evaluation.report import (
    Evaluation,
    write_evaluation_page,
    write_predictions,
    write_report,
)
from sentiment.evaluation.slices import Cut, cutting_figure
from sentiment.runs.run import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Setting:
    """What an evaluation is of.

    Attributes:
        run: the run, its weights with their epoch and temperature.
        checkpoint: which weights, ``best`` or ``last``.
        split: ``train``, ``validation`` or ``test``.
        origin: where the reviews came from.
        is_own_data: whether that is the source the run was trained on.
        device: where it was computed.
        rounding: what bf16 changed, None where it was computed in fp32.
    """

    run: Run
    checkpoint: str
    split: str
    origin: str
    is_own_data: bool
    device: str
    rounding: Rounding | None = None

    @property
    def is_training(self) -> bool:
        """Whether the model was trained on these reviews."""
        return self.split == "train" and self.is_own_data

    @property
    def is_validation(self) -> bool:
        """Whether the epoch and the temperature were chosen by these reviews."""
        return self.split == "validation" and self.is_own_data

    @property
    def title(self) -> str:
        """The same in two lines."""
        epoch = self.run.checkpoint.epoch
        return (
            f"{sanitize(str(self.run.path))}, {self.checkpoint} weights of epoch {epoch}\n"
            f"on {self.split}: {sanitize(self._reviews)}"
        )

    @property
    def notes(self) -> list[str]:
        """What a reader must know before quoting the figures."""
        return self._notes_on_reviews + ([str(self.rounding)] if self.rounding else [])

    @property
    def _notes_on_reviews(self) -> list[str]:
        if self.is_training:
            return ["The model was trained on these reviews: the figures say what it remembers."]
        if self.is_validation:
            chosen = "The epoch of the weights and the temperature were"
            if self.checkpoint == "last":
                chosen = "The temperature was"
            return [
                f"{chosen} chosen by these reviews: the figures flatter the model a little. The "
                "test split's do not."
            ]
        return []

    @property
    def hold_out(self) -> str | None:
        """How these reviews were held out of the training reviews, None where they were not."""
        data = self.run.config.data
        is_held_out = self.is_validation and not has_validation(data)
        return data.describe_hold_out() if is_held_out else None

    @property
    def _reviews(self) -> str:
        return self.origin if self.hold_out is None else f"{self.origin}, held out {self.hold_out}"

    def facts(self, date: str) -> dict[str, str]:
        """The same for a page, by name."""
        model = self.run.config.model
        direction = "bidirectional " if model.bidirectional else ""
        layers = f", {model.num_layers} layers" if model.num_layers > 1 else ""
        data = self.run.config.data
        return {
            "Run": f"{self.run.path}",
            "Weights": f"{self.checkpoint}, epoch {self.run.checkpoint.epoch}",
            "Model": f"{direction}{model.cell.upper()} of {model.hidden_size} units{layers}, "
            f"{model.pooling} pooling, {len(self.run.vocabulary):,} words",
            "Read of a review": f"at most {data.max_length:,} tokens, of longer ones the "
            f"{data.keep}",
            "Split": self.split,
            "Reviews": self._reviews,
            "Device": self.device,
            "Precision": "bf16" if self.rounding else "fp32",
            "Date": date,
        }


def write_outputs(
    evaluation: Evaluation,
    setting: Setting,
    output: Path,
    events: Path,
    *,
    cuts: Sequence[Cut] = (),
    seconds: float,
) -> None:
    """Write all files of an evaluation in place of those of an earlier one.

    Args:
        evaluation: what was measured.
        setting: on what.
        output: folder of the report.
        events: folder of TensorBoard's events.
        cuts: what cutting costs, where that was measured.
        seconds: what measuring took.
    """
    output.mkdir(parents=True, exist_ok=True)
    checkpoint, names = setting.run.checkpoint, evaluation.class_names
    date = datetime.now(timezone.utc).isoformat(timespec="seconds")
    write_report(
        output / "report.json",
        evaluation,
        run=str(setting.run.path),
        checkpoint=setting.checkpoint,
        epoch=checkpoint.epoch,
        split=setting.split,
        data=setting.origin,
        hold_out=setting.hold_out,
        notes=setting.notes,
        device=setting.device,
        precision="bf16" if setting.rounding else "fp32",
        rounding=setting.rounding.as_dict() if setting.rounding else None,
        date=date,
        cutting=[cut.as_dict() for cut in cuts],
        seconds=round(seconds, 2),
    )
    write_predictions(
        output / "predictions.csv",
        evaluation.calibrated,
        names,
        evaluation.num_tokens,
        evaluation.was_cut,
    )
    pictures = draw_pictures(
        evaluation.predictions,
        names,
        checkpoint.temperature,
        fitted_here=setting.is_validation,
    )
    if cuts:
        pictures["cutting"] = cutting_figure(cuts)
    write_evaluation_page(
        output / "report.html",
        evaluation,
        pictures,
        cuts=cuts,
        title=f"{setting.run.path.absolute().name} on {setting.split}",
        facts=setting.facts(date),
        notes=setting.notes,
        trained_here=setting.is_training,
    )
    write_board(events, evaluation.metrics, pictures, checkpoint.epoch)


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
