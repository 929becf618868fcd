"""A range test of learning rates: run, suggest, show."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from sentiment.config.config import Config, TrainingConfig
from sentiment.data.pipeline import TrainingData, prepare_training
from sentiment.data.sampler import BucketSampler, by_update
from sentiment.display.plots import COLORS, add_figure, new_figure, save_figure
from sentiment.model import SentimentClassifier
from sentiment.runs.pretrained import check_fits, check_held_out, start_from
from sentiment.runs.run import load_words
from sentiment.runtime.distributed import DistributedContext
from sentiment.runtime.errors import UserError
from sentiment.runtime.files import write_json
from sentiment.training.distillation import teach
from sentiment.training.meters import MeanMeter
from sentiment.training.objectives import build_mixture
from sentiment.training.optim import Schedule
from sentiment.training.setup import build_fresh
from sentiment.training.step import TrainStep

if TYPE_CHECKING:
    from matplotlib.figure import Figure


_LEAST_FALL = 0.1  # share of the loss at the beginning: less may be noise


@dataclass(frozen=True)
class RangeTest:
    """What came of a range test; all sequences have one entry for each update made.

    Attributes:
        span: updates over which losses are averaged and slopes are taken.
        learning_rates: which the updates had, rising.
        losses: mean losses of their batches, without label smoothing.
        smoothed: the same, averaged exponentially.
        end: why it ended.
    """

    span: int
    learning_rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    end: str


@dataclass(frozen=True)
class Suggestions:
    """Learning rates that a range test suggests.

    Attributes:
        steepest: where the loss falls fastest: learning is at its quickest.
        minimum: where the loss is lowest, and about to rise.
    """

    steepest: float
    minimum: float

    @property
    def tenth_of_minimum(self) -> float:
        """A rate that keeps its distance from where the loss rises."""
        return self.minimum / 10


class SmoothedLoss:
    """An exponential average without the pull towards 0 of its start (Kingma & Ba 2015, sec. 3).

    Args:
        span: entries that it looks back on, about.
    """

    def __init__(self, span: int) -> None:
        self._decay = 1 - 1 / span
        self._average = 0.0
        self._number = 0

    def add(self, loss: float) -> float:
        """The average with one entry more."""
        self._number += 1
        self._average += (1 - self._decay) * (loss - self._average)
        return self._average / (1 - self._decay**self._number)


def suggest(test: RangeTest) -> Suggestions | None:
    """Learning rates to train with, or None where the loss did not fall.

    The steepest fall is that over the logarithm of the rate, to losses that were not reached
    before: after a sudden rise, coming down again is none. An average lags behind what it averages,
    by about a factor of two in the rate as a test comes, so both rates are rather high than low.
    """
    logarithms, losses = np.log10(test.learning_rates), np.array(test.smoothed)
    span, beginning = test.span, float(np.mean(test.losses[: test.span]))
    losses[:span] = np.maximum(losses[:span], beginning)  # those of too few may be low by chance
    lowest = int(losses.argmin())
    if lowest < span or losses[lowest] > (1 - _LEAST_FALL) * beginning:
        return None
    reached = np.minimum.accumulate(losses)
    middles = np.arange(span, lowest + 1)
    before, after = middles - span, np.minimum(middles + span, len(losses) - 1)
    slopes = (reached[before] - reached[after]) / (logarithms[after] - logarithms[before])
    steepest = int(middles[slopes.argmax()])
    return Suggestions(test.learning_rates[steepest], test.learning_rates[lowest])


_SPAN_SHARE = 0.05  # of all updates, over which losses are averaged and slopes are taken
_DIVERGED = 4.0  # times the lowest smoothed loss


def prepare_range(config: Config) -> TrainingData:
    """What a training by the settings would learn from.

    Raises:
        UserError: it would begin with a pre-training or teachers, which there are not yet.
    """
    if config.distillation.trains_teachers:
        raise UserError(
            "a range test trains no teachers: set distillation.num_teachers to 0, and name "
            "finished ones by distillation.teachers or learn from none"
        )
    pretrained = _pretrained(config)
    vocabulary = None if pretrained is None else load_words(pretrained)
    data = prepare_training(config, vocabulary=vocabulary, with_vectors=pretrained is None)
    if pretrained is not None:
        check_held_out(pretrained, data.fingerprints["validation"])
    return data


def _pretrained(config: Config) -> Path | None:
    if not config.pretraining.is_wanted:
        return None
    if config.pretraining.path is None:
        raise UserError(
            "a range test makes no pre-training: call sentiment pretrain with these settings and "
            "--output_dir FOLDER first, then this with --pretraining.path FOLDER"
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
    """Train a fresh model, begun as training begins one, with a rising learning rate.

    Args:
        config: the settings of the training that the rate is for; its schedule plays no part.
        data: what :func:`prepare_range` made of them.
        device: where to compute.
        precision: arithmetic of the matrix products.
        lowest, highest: learning rates of the first and the last update.
        num_updates: updates; more than an epoch has go on with the next one.

    Raises:
        MemoryError: the device has too little memory for a batch.
        UserError: the loss was never finite.
    """
    data = replace(data, soft_labels=teach(config, data, device))
    model = build_fresh(config, data, device)
    if (pretrained := _pretrained(config)) is not None:
        start_from(model, pretrained)
    model.train()
    updates = _RisingUpdates(
        model, data, config, device=device, precision=precision, num_updates=num_updates,
        lowest=lowest, highest=highest,
    )  # fmt: skip
    rates: list[float] = []
    losses: list[float] = []
    smoothed: list[float] = []
    average = SmoothedLoss(span := max(1, round(_SPAN_SHARE * num_updates)))
    end = "the highest rate was reached"
    groups = itertools.islice(_groups(config, data), num_updates)
    for group in tqdm(groups, total=num_updates, unit="update", leave=False, disable=None):
        loss = updates.loss_of(group)
        if not math.isfinite(loss):
            end = "the loss was no finite number any more"
            break
        rates.append(updates.learning_rate)
        losses.append(loss)
        smoothed.append(average.add(loss))
        if smoothed[-1] > _DIVERGED * min(smoothed):
            end = "the loss diverged"
            break
    if not losses:
        raise UserError(
            f"the loss is not finite at the lowest learning rate, {lowest:g}: give a lower "
            "--lowest, or look at the settings"
        )
    return RangeTest(span, tuple(rates), tuple(losses), tuple(smoothed), end)


def _groups(config: Config, data: TrainingData) -> Iterator[list[torch.Tensor]]:
    """Batches' indices by update, as training has them, epoch after epoch without end."""
    training = config.training
    sampler = BucketSampler(
        data.train.lengths,
        batch_size=training.batch_size,
        unit=training.batch_unit,
        seed=config.seed,
    )
    for epoch in itertools.count(1):
        sampler.set_epoch(epoch)
        yield from by_update(sampler, training.accumulation_steps)


class _Rise(Schedule):
    """A learning rate that is multiplied by the same factor after each update."""

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        config: TrainingConfig,
        num_updates: int,
        highest: float,
    ) -> None:
        self._step = (highest / config.learning_rate) ** (1 / max(1, num_updates - 1))
        super().__init__(optimizer, config, num_updates)

    def _factor(self, update: int) -> float:
        return self._step**update


class _RisingUpdates(TrainStep):
    """Training's own updates, by a rate that rises."""

    def __init__(
        self,
        model: SentimentClassifier,
        data: TrainingData,
        config: Config,
        *,
        device: torch.device,
        precision: torch.dtype,
        num_updates: int,
        lowest: float,
        highest: float,
    ) -> None:
        self._alone = DistributedContext()
        training = replace(
            config.training, learning_rate=lowest, schedule="constant", warmup_share=0.0,
            nonfinite="stop",
        )  # fmt: skip
        super().__init__(
            model, data.train.to(device), training, device=device, precision=precision,
            num_updates=num_updates, distributed=self._alone,
            mixture=build_mixture(
                model, data.unlabelled, config,
                device=device, precision=precision, distributed=self._alone,
                soft_labels=data.soft_labels,
            ),
        )  # fmt: skip
        self._schedule = _Rise(self._optimizer, training, num_updates, highest)

    def loss_of(self, group: list[torch.Tensor]) -> float:
        """Carry out an update; returns the loss before it, NaN where a number is not finite."""
        sums = MeanMeter(self._device)
        try:
            self.step(group, sums)
            self.guard.settle()
        except ValueError:  # the guard's, who says that training would end here
            return math.nan
        return sums.means(self._alone)[0]


_NAME = "find-lr"
_ENOUGH = 200  # updates from which on a suggestion stands without a warning
_FAINT = "#9aa0a6"
_MOST_SHOWN = 1.25  # times the loss at the beginning: a diverging one would flatten all others


def draw_range(test: RangeTest, suggestions: Suggestions | None) -> Figure:
    """The loss over the learning rate, with the suggestions marked."""
    figure, axes = new_figure(6.0, 3.8)
    axes.plot(test.learning_rates, test.losses, color=_FAINT, linewidth=0.7, label="of each batch")
    axes.plot(test.learning_rates, test.smoothed, color=COLORS[0], label="smoothed")
    if suggestions is not None:
        marks = (
            (suggestions.steepest, "o", "steepest fall"),
            (suggestions.tenth_of_minimum, "s", "a tenth of the rate of the lowest loss"),
        )
        for color, (rate, marker, name) in zip(COLORS[1:], marks, strict=False):
            place = _nearest(test, rate)
            axes.axvline(rate, color=color, linestyle=":", linewidth=1)
            label = f"{name}: {as_setting(rate)}"
            axes.plot(rate, test.smoothed[place], marker, color=color, label=label)
    top = _MOST_SHOWN * test.smoothed[0]
    lowest = min(min(test.smoothed), sorted(test.losses)[len(test.losses) // 20])
    axes.set(xscale="log", xlabel="learning rate", ylabel="loss", ylim=(0.95 * lowest, top))
    axes.set_title("Learning-rate range test")
    axes.legend(loc="lower left")
    return figure


def write_range(folder: Path, test: RangeTest, suggestions: Suggestions | None) -> Path:
    """Write all files of a range test in place of an earlier one's; returns the picture's path."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = zip(test.learning_rates, test.losses, test.smoothed, strict=True)
    values = {
        "end": test.end,
        "steepest": suggestions and suggestions.steepest,
        "minimum": suggestions and suggestions.minimum,
        "tenth_of_minimum": suggestions and suggestions.tenth_of_minimum,
        "points": [
            {"learning_rate": rate, "loss": loss, "smoothed": smoothed}
            for rate, loss, smoothed in rows
        ],
    }
    write_json(folder / f"{_NAME}.json", values)
    picture = folder / f"{_NAME}.svg"
    save_figure(draw_range(test, suggestions), picture)
    _write_board(folder / "tensorboard", test, draw_range(test, suggestions))
    return picture


def range_text(test: RangeTest, suggestions: Suggestions | None) -> str:
    """What the test found, and what to do with it."""
    first, last = test.learning_rates[0], test.learning_rates[-1]
    found = f"{len(test.losses)} updates, learning rate {first:.2g} to {last:.2g}: {test.end}"
    if suggestions is None:
        return (
            f"{found}\nno suggestion: the loss did not fall. Where it rose at last, there were too "
            "few\nupdates to learn anything by: give more of them with --num_updates. Where it "
            "stayed\nas it was, give a higher --highest."
        )
    steepest, tenth = as_setting(suggestions.steepest), as_setting(suggestions.tenth_of_minimum)
    if len(test.losses) < _ENOUGH:
        found += "\nFew updates: take these rates with care, or give more with --num_updates."
    return (
        f"{found}\n\n"
        f"  a tenth of the rate of the lowest loss   --training.learning_rate {tenth}\n"
        f"  the rate of the steepest fall            --training.learning_rate {steepest}\n\n"
        "Begin with the smaller one; a schedule that falls, or a warm-up, bears the larger one."
    )


def as_setting(rate: float) -> str:
    """A rate in two digits: it is not known better."""
    return f"{rate:.1e}"


def _nearest(test: RangeTest, rate: float) -> int:
    return min(range(len(test.losses)), key=lambda place: abs(test.learning_rates[place] - rate))


def _write_board(path: Path, test: RangeTest, figure: Figure) -> None:
    for earlier in path.glob("events.out.tfevents.*"):
        earlier.unlink()
    with SummaryWriter(str(path)) as writer:
        for update, rate in enumerate(test.learning_rates, 1):
            writer.add_scalar(f"{_NAME}/learning_rate", rate, update)
            writer.add_scalar(f"{_NAME}/loss", test.losses[update - 1], update)
            writer.add_scalar(f"{_NAME}/smoothed_loss", test.smoothed[update - 1], update)
        add_figure(writer, _NAME, figure, 0)
