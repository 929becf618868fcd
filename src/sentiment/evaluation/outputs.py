"""The files of an evaluation: report.html, report.json, predictions.csv, TensorBoard's events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from sentiment.evaluation.board import draw_pictures, write_board
from sentiment.evaluation.cutting import Cut, cutting_figure
from sentiment.evaluation.measure import Evaluation
from sentiment.evaluation.page import write_evaluation_page
from sentiment.evaluation.report import write_predictions, write_report
from sentiment.evaluation.rounding import Rounding
from sentiment.runs import Run
from sentiment.shown import printable
from sentiment.text.review_sources import has_validation


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
            f"{printable(str(self.run.path))}, {self.checkpoint} weights of epoch {epoch}\n"
            f"on {self.split}: {printable(self._reviews)}"
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
