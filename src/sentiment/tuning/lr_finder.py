"""A learning-rate range test (Smith 2017): measure, suggest, report."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.utils.tensorboard import SummaryWriter

from sentiment.baseline.folder import baseline_folder, is_finished_baseline
from sentiment.config.config import Config
from sentiment.data.pipeline import TrainingData
from sentiment.display.console import format_table, progress_bar, wrap_text
from sentiment.display.plots import COLORS, add_figure, new_figure, save_figure
from sentiment.model import SentimentClassifier
from sentiment.runs.initial import check_fits
from sentiment.runtime.distributed import DistributedContext
from sentiment.runtime.errors import UserError
from sentiment.runtime.files import write_json
from sentiment.training.context import TrainingContext
from sentiment.training.distillation import teach
from sentiment.training.logger import RunLogger
from sentiment.training.meters import MeanMeter
from sentiment.training.setup import build_start, read_data
from sentiment.training.trainer import Trainer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SPAN_SHARE = 0.05  # share of all updates, over which losses are averaged and slopes taken
_MAX_RISE = 4.0  # times the lowest smoothed loss, beyond which the loss has diverged
_MIN_FALL = 0.1  # share of the initial loss; a smaller fall may be noise
_ENOUGH_UPDATES = 200  # fewer give a warning

_NAME = "find-lr"
_GRAY = "#9aa0a6"
_SHOWN_RISE = 1.25  # times the initial loss: a diverging loss would flatten the rest of the plot


@dataclass(frozen=True)
class RangeTest:
    """Result of a range test; sequences have one entry for each update."""

    span: int  # number of updates over which losses are averaged and slopes taken
    learning_rates: tuple[float, ...]  # rising geometrically
    losses: tuple[float, ...]  # mean of each update's batches, without label smoothing
    smoothed: tuple[float, ...]  # exponential averages of the losses
    end: str  # why the test ended


@dataclass(frozen=True)
class Suggestions:
    """Suggested learning rates."""

    steepest: float  # where the loss falls fastest
    minimum: float  # where the loss is lowest, just before it rises

    @property
    def tenth_of_minimum(self) -> float:
        """A rate at a safe distance from where the loss rises."""
        return self.minimum / 10


def prepare_range(config: Config) -> TrainingData:
    """The data for :func:`measure_range`; ``UserError`` for settings that pre-train or teach."""
    if config.distillation.trains_teachers:
        raise UserError(
            "a range test trains no teachers: set distillation.num_teachers to 0, and list "
            "finished ones, if any, in distillation.teachers"
        )
    baseline = baseline_folder(Path(config.output_dir).expanduser())
    if config.distillation.baseline and not is_finished_baseline(baseline):
        raise UserError(
            f"the linear model that teaches is not in {baseline}, and find-lr does not train it: "
            "call sentiment baseline with these settings first, or set distillation.baseline to "
            "false"
        )
    return read_data(config, _pretrained_folder(config))


def _pretrained_folder(config: Config) -> Path | None:
    if not config.pretraining.is_wanted:
        return None
    if config.pretraining.path is None:
        raise UserError(
            "a range test does not pre-train: call sentiment pretrain with these settings and "
            "--output_dir FOLDER first, then find-lr with --pretraining.path FOLDER"
        )
    path = Path(config.pretraining.path).expanduser()
    check_fits(config, path)
    return path


def measure_range(
    config: Config,
    data: TrainingData,
    *,
    device: torch.device,
    precision: torch.dtype,
    lowest: float,
    highest: float,
    num_updates: int,
) -> RangeTest:
    """Train a fresh model on :func:`prepare_range`'s data while the learning rate rises.

    ``lowest`` and ``highest`` are the rates of the first and last update; epochs repeat as needed.
    Raises ``MemoryError`` if a batch is too large, ``UserError`` if the loss was never finite.
    """
    data = replace(data, soft_labels=teach(config, data, device))
    model = build_start(config, data, device, _pretrained_folder(config))
    model.train()
    context = TrainingContext(config, Path(config.output_dir), device, precision)
    trainer = _make_trainer(model, data, context, lowest, highest, num_updates)
    span = max(1, round(_SPAN_SHARE * num_updates))
    decay, average = 1 - 1 / span, 0.0
    rates: list[float] = []
    losses: list[float] = []
    smoothed: list[float] = []
    end = "the highest rate was reached"
    epochs = map(trainer.updates, itertools.count(1))  # without end
    groups = itertools.islice(itertools.chain.from_iterable(epochs), num_updates)
    for group in progress_bar(iterable=groups, total=num_updates, unit="update", leave=False):
        loss = _step_loss(trainer, group, device)
        if not math.isfinite(loss):
            end = "the loss was not finite"
            break
        rates.append(trainer.learning_rate)
        losses.append(loss)
        # Without the bias towards the initial 0 (Kingma & Ba 2015, section 3).
        average += (1 - decay) * (loss - average)
        smoothed.append(average / (1 - decay ** len(losses)))
        if smoothed[-1] > _MAX_RISE * min(smoothed):
            end = "the loss diverged"
            break
    if not losses:
        raise UserError(
            f"the loss is not finite at the lowest learning rate, {lowest:g}: give a lower "
            "--lowest, or check the settings"
        )
    return RangeTest(span, tuple(rates), tuple(losses), tuple(smoothed), end)


def _make_trainer(
    model: SentimentClassifier,
    data: TrainingData,
    context: TrainingContext,
    lowest: float,
    highest: float,
    num_updates: int,
) -> Trainer:
    """A trainer that writes no files and raises its learning rate at each update."""
    ratio = (highest / lowest) ** (1 / max(1, num_updates - 1))
    training = replace(
        context.config.training,
        learning_rate=lowest, schedule="constant", warmup_share=0.0, nonfinite="stop",
    )  # fmt: skip
    context = replace(context, config=replace(context.config, training=training))
    run_logger = RunLogger(context.path, is_silent=True)
    return Trainer(
        model, data, context, run_logger,
        num_updates=num_updates, rate_factor=lambda update: ratio**update,
    )  # fmt: skip


def _step_loss(trainer: Trainer, group: list[torch.Tensor], device: torch.device) -> float:
    """Make one update; returns the loss before it, NaN if loss or gradient is not finite."""
    meter = MeanMeter(device)
    try:
        trainer.train_step(group, meter)
        trainer.check_finite()
    except UserError:  # of the guard, where a training would end
        return math.nan
    return meter.means(DistributedContext())[0]


def suggest(test: RangeTest) -> Suggestions | None:
    """Learning rates to train with, or None if the loss did not fall.

    Slopes are taken over the logarithm of the rate, and only to losses not reached before, so that
    coming down from a sudden rise does not count. A smoothed loss lags behind by a factor of about
    two in the rate, so the suggestions are rather high.
    """
    logarithms, losses = np.log10(test.learning_rates), np.array(test.smoothed)
    span, initial = test.span, float(np.mean(test.losses[: test.span]))
    losses[:span] = np.maximum(losses[:span], initial)  # averages of few losses may be low
    lowest = int(losses.argmin())
    if lowest < span or losses[lowest] > (1 - _MIN_FALL) * initial:
        return None
    reached = np.minimum.accumulate(losses)
    centers = np.arange(span, lowest + 1)
    before, after = centers - span, np.minimum(centers + span, len(losses) - 1)
    slopes = (reached[before] - reached[after]) / (logarithms[after] - logarithms[before])
    steepest = int(centers[slopes.argmax()])
    return Suggestions(test.learning_rates[steepest], test.learning_rates[lowest])


def draw_range(test: RangeTest, suggestions: Suggestions | None) -> Figure:
    """The loss over the learning rate, with the suggestions marked."""
    figure, axes = new_figure(6.0, 3.8)
    rates = test.learning_rates
    axes.plot(rates, test.losses, color=_GRAY, linewidth=0.7, label="of each batch")
    axes.plot(rates, test.smoothed, color=COLORS[0], label="smoothed")
    if suggestions is not None:
        marks = (
            (suggestions.steepest, "o", "steepest fall"),
            (suggestions.tenth_of_minimum, "s", "a tenth of the rate of the lowest loss"),
        )
        for color, (rate, marker, name) in zip(COLORS[1:], marks, strict=False):
            nearest = int(np.abs(np.array(rates) - rate).argmin())
            axes.axvline(rate, color=color, linestyle=":", linewidth=1)
            label = f"{name}: {_as_setting(rate)}"
            axes.plot(rate, test.smoothed[nearest], marker, color=color, label=label)
    top = _SHOWN_RISE * test.smoothed[0]
    bottom = 0.95 * min(min(test.smoothed), sorted(test.losses)[len(test.losses) // 20])
    axes.set(xscale="log", xlabel="learning rate", ylabel="loss", ylim=(bottom, top))
    axes.set_title("Learning-rate range test")
    axes.legend(loc="lower left")
    return figure


def write_range(folder: Path, test: RangeTest, suggestions: Suggestions | None) -> Path:
    """Write all files of a range test, replacing those of an earlier one; returns the plot's."""
    folder.mkdir(parents=True, exist_ok=True)
    points = zip(test.learning_rates, test.losses, test.smoothed, strict=True)
    values = {
        "end": test.end,
        "steepest": suggestions and suggestions.steepest,
        "minimum": suggestions and suggestions.minimum,
        "tenth_of_minimum": suggestions and suggestions.tenth_of_minimum,
        "points": [
            {"learning_rate": rate, "loss": loss, "smoothed": smoothed}
            for rate, loss, smoothed in points
        ],
    }
    write_json(folder / f"{_NAME}.json", values)
    picture = folder / f"{_NAME}.svg"
    save_figure(draw_range(test, suggestions), picture)
    _write_events(folder / "tensorboard", test, draw_range(test, suggestions))
    return picture


def _write_events(folder: Path, test: RangeTest, figure: Figure) -> None:
    for earlier in folder.glob("events.out.tfevents.*"):
        earlier.unlink()
    with SummaryWriter(str(folder)) as writer:
        for update, rate in enumerate(test.learning_rates, 1):
            writer.add_scalar(f"{_NAME}/learning_rate", rate, update)
            writer.add_scalar(f"{_NAME}/loss", test.losses[update - 1], update)
            writer.add_scalar(f"{_NAME}/smoothed_loss", test.smoothed[update - 1], update)
        add_figure(writer, _NAME, figure, 0)


def range_text(test: RangeTest, suggestions: Suggestions | None) -> str:
    """The result, and what to do with it."""
    first, last = test.learning_rates[0], test.learning_rates[-1]
    result = f"{len(test.losses)} updates, learning rate {first:.2g} to {last:.2g}: {test.end}"
    if suggestions is None:
        text = (
            "no suggestion: the loss did not fall. If it rose in the end, there were too few "
            "updates to learn anything: give more with --num_updates. If it did not change, give "
            "a higher --highest."
        )
        return f"{result}\n{wrap_text(text)}"
    if len(test.losses) < _ENOUGH_UPDATES:
        result += "\nFew updates make these rates uncertain: give more with --num_updates."
    tenth, steepest = map(_as_setting, (suggestions.tenth_of_minimum, suggestions.steepest))
    rows = [
        ("a tenth of the rate of the lowest loss", f"--training.learning_rate {tenth}"),
        ("the rate of the steepest fall", f"--training.learning_rate {steepest}"),
    ]
    return (
        f"{result}\n\n{format_table(rows, align='<')}\n\n"
        "Start with the smaller one; a falling schedule or a warm-up allows the larger one."
    )


def _as_setting(rate: float) -> str:
    return f"{rate:.1e}"  # it is not known more precisely
