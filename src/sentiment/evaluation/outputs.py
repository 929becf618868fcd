"""The files of an evaluation: report.json, predictions.csv, report.html, TensorBoard's events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch.utils.tensorboard import SummaryWriter

from sentiment.config.config import DataConfig
from sentiment.display.console import sanitize
from sentiment.display.plots import add_figure, as_svg, write_page
from sentiment.evaluation.evaluate import Rounding
from sentiment.evaluation.metrics import FEWEST_TO_RESAMPLE, NUM_RESAMPLES, Metrics
from sentiment.evaluation.plots import draw_groups, draw_predictions, draw_truncation
from sentiment.evaluation.report import (
    Evaluation,
    calibration_rows,
    class_rows,
    confusion_rows,
    group_rows,
    threshold_rows,
    truncation_rows,
)
from sentiment.evaluation.slices import Truncation
from sentiment.readers.sources import has_split
from sentiment.runs.run import Run
from sentiment.runtime.files import write_csv, write_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# report.json explains the columns of predictions.csv to readers without this program.
_CSV_COLUMNS = {
    "row": "in the split's files, from 1 without headers; of train for reviews held out of it",
    "label": "right class",
    "predicted": "most probable class",
    "probability_NAME": "of each class, at calibration.temperature",
    "num_tokens": "tokens of the review before truncation",
    "was_cut": "whether it has more tokens than the model reads",
}
_GROUP_TITLES = {
    "length": "Accuracy by length",
    "unknown": "Accuracy by unknown words",
    "cut": "Accuracy by truncation",
}


@dataclass(frozen=True, kw_only=True)
class ReportHead:
    """The run or baseline that was evaluated, and the reviews that it was evaluated on."""

    path: Path
    kind: str = "Run"  # or "Baseline", or "Student" of other models
    model: str  # in words
    reads: str  # which tokens of a review, in words
    checkpoint: str | None = None  # None for a baseline, like epoch
    epoch: int | None = None
    split: str  # "train", "validation" or "test"
    origin: str  # where the reviews came from
    hold_out: str | None = None  # how they were held out of the training reviews, if they were
    is_training: bool = False  # the model was trained on them
    is_validation: bool = False  # the epoch and the temperature were chosen on them
    device: str
    rounding: Rounding | None = None  # effect of bf16; None if computed in fp32
    remarks: Sequence[str] = ()  # what else readers must know before they quote the metrics

    @property
    def title(self) -> str:
        """Two lines for the terminal."""
        weights = f", {self.checkpoint} weights of epoch {self.epoch}" if self.checkpoint else ""
        return f"{sanitize(str(self.path))}{weights}\non {self.split}: {sanitize(self._reviews)}"

    @property
    def notes(self) -> list[str]:
        return [*self.remarks, *([str(self.rounding)] if self.rounding else [])]

    @property
    def _reviews(self) -> str:
        return self.origin if self.hold_out is None else f"{self.origin}, held out {self.hold_out}"

    @property
    def _precision(self) -> str:
        return "bf16" if self.rounding else "fp32"

    def facts(self, date: str) -> dict[str, str]:
        """Rows of the page's first table."""
        weights = {"Weights": f"{self.checkpoint}, epoch {self.epoch}"} if self.checkpoint else {}
        return {
            self.kind: str(self.path),
            **weights,
            "Model": self.model,
            "Reads": self.reads,
            "Split": self.split,
            "Reviews": self._reviews,
            "Device": self.device,
            "Precision": self._precision,
            "Date": date,
        }

    def as_dict(self) -> dict[str, Any]:
        return {
            "run": str(self.path),
            "checkpoint": self.checkpoint,
            "epoch": self.epoch,
            "split": self.split,
            "data": self.origin,
            "hold_out": self.hold_out,
            "notes": self.notes,
            "device": self.device,
            "precision": self._precision,
            "rounding": asdict(self.rounding) if self.rounding else None,
        }


def describe_run(
    run: Run,
    *,
    checkpoint: str,
    split: str,
    origin: str,
    is_own_data: bool,
    device: str,
    rounding: Rounding | None,
) -> ReportHead:
    """The head of a run's report; ``is_own_data``: the reviews are from its training's source."""
    model, data = run.config.model, run.config.data
    direction = "bidirectional " if model.bidirectional else ""
    layers = f", {model.num_layers} layers" if model.num_layers > 1 else ""
    is_training = split == "train" and is_own_data
    is_validation = split == "validation" and is_own_data
    remarks = []
    if is_training:
        remarks = ["The model was trained on these reviews: the metrics show what it remembers."]
    elif is_validation:
        chosen = "temperature was" if checkpoint == "last" else "epoch and the temperature were"
        remarks = [
            f"The {chosen} chosen on these reviews, so the metrics are slightly optimistic; "
            "those of the test split are not."
        ]
    return ReportHead(
        path=run.path,
        model=f"{direction}{model.cell.upper()} of {model.hidden_size} units{layers}, "
        f"{model.pooling} pooling, {len(run.vocabulary):,} words",
        reads=f"at most {data.max_length:,} tokens, of longer ones the {data.keep}",
        checkpoint=checkpoint,
        epoch=run.checkpoint.epoch,
        split=split,
        origin=origin,
        hold_out=describe_hold_out(data) if is_validation else None,
        is_training=is_training,
        is_validation=is_validation,
        device=device,
        rounding=rounding,
        remarks=remarks,
    )


def describe_hold_out(data: DataConfig) -> str | None:
    """How the validation reviews were held out; None if the data has its own validation split."""
    return None if has_split(data, "validation") else data.describe_hold_out()


def write_evaluation(
    head: ReportHead,
    evaluation: Evaluation,
    output: Path,
    *,
    truncations: Sequence[Truncation] = (),
    seconds: float,
    events: Path | None = None,
) -> None:
    """Write a report into ``output`` and TensorBoard's events into ``events``, replacing files.

    ``seconds`` is the duration of the evaluation.
    """
    output.mkdir(parents=True, exist_ok=True)
    date = datetime.now(timezone.utc).isoformat(timespec="seconds")
    values = {
        **evaluation.as_dict(),
        **head.as_dict(),
        "date": date,
        "cutting": [asdict(result) for result in truncations],
        "seconds": round(seconds, 2),
        "predictions_columns": _CSV_COLUMNS,
    }
    write_json(output / "report.json", values)
    _write_predictions(output / "predictions.csv", evaluation)
    calibration = evaluation.calibration
    figures = draw_predictions(
        evaluation.predictions, evaluation.class_names, calibration.temperature,
        fitted_here=calibration.fitted_here,
    )  # fmt: skip
    if truncations:
        figures["cutting"] = draw_truncation(truncations)
    write_evaluation_page(
        output / "report.html", head, evaluation, figures, truncations=truncations, date=date
    )
    if events is not None and head.epoch is not None:
        _write_events(events, evaluation.metrics, figures, head.epoch)


def _write_predictions(path: Path, evaluation: Evaluation) -> None:
    """One row per review, in the order of the data, with calibrated probabilities."""
    predictions, names = evaluation.calibrated, evaluation.class_names
    titles = [f"probability_{name}" for name in names]
    titles = ["row", "label", "predicted", *titles, "num_tokens", "was_cut"]
    classes = (predictions.labels, predictions.predicted, predictions.probabilities)
    columns = (evaluation.row_numbers, *classes, evaluation.num_tokens, evaluation.was_cut)
    lines = []
    rows = zip(*(column.tolist() for column in columns), strict=True)
    for row, label, predicted, probabilities, num_tokens, was_cut in rows:
        cells = [f"{probability:.6f}" for probability in probabilities]
        cut = "true" if was_cut else "false"
        lines.append((row, names[label], names[predicted], *cells, num_tokens, cut))
    write_csv(path, titles, lines)


def write_evaluation_page(
    path: Path,
    head: ReportHead,
    evaluation: Evaluation,
    figures: Mapping[str, Figure],
    *,
    truncations: Sequence[Truncation] = (),
    date: str,
) -> None:
    """Write report.html with the given figures and those of the groups."""
    names, groups = evaluation.class_names, evaluation.groups
    classes = class_rows(evaluation.metrics, names, range(len(names)))
    group_figures = {name: draw_groups(rows, _GROUP_TITLES[name]) for name, rows in groups.items()}
    write_page(
        path,
        "report.html",
        title=f"{head.path.absolute().name} on {head.split}",
        head=head,
        facts=head.facts(date),
        evaluation=evaluation,
        calibration_rows=calibration_rows(evaluation.calibration),
        confusion_rows=confusion_rows(evaluation.metrics, names, names),
        group_rows=group_rows(groups),
        class_rows=[*classes, *threshold_rows(evaluation)],
        truncation_rows=truncation_rows(truncations) if truncations else [],
        figures={name: as_svg(figure) for name, figure in {**figures, **group_figures}.items()},
        num_resamples=NUM_RESAMPLES,
        fewest_to_resample=FEWEST_TO_RESAMPLE,
    )


def _write_events(path: Path, metrics: Metrics, figures: Mapping[str, Figure], epoch: int) -> None:
    """Write metrics under training's tags, so that they appear in the same charts, and figures."""
    for earlier in path.glob("events.out.tfevents.*"):
        earlier.unlink()
    with SummaryWriter(str(path)) as writer:
        add_scalars(writer, metrics, epoch)
        for tag, figure in figures.items():
            add_figure(writer, tag, figure, epoch)


def add_scalars(writer: SummaryWriter, metrics: Metrics, epoch: int) -> None:
    """Add metrics as points of the curves by epoch."""
    values = {"accuracy": metrics.accuracy, "f1": metrics.f1, "auroc": metrics.auroc}
    for name, value in {"loss": metrics.nll, **values}.items():
        if value is not None:
            writer.add_scalar(f"{name}/by_epoch", value, epoch)
