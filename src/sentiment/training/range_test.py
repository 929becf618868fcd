"""The learning-rate range test: which learning rates a training would learn by.

A fresh model is trained with a learning rate that rises from update to update, and its loss says
which rates are too low to learn, which do, and from which on it diverges (Smith 2017, "Cyclical
Learning Rates for Training Neural Networks", https://arxiv.org/abs/1506.01186, section 3.3).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from tqdm import tqdm

from sentiment.config import Config, TrainingConfig
from sentiment.distilling.soft_labels import teach
from sentiment.model import SentimentClassifier
from sentiment.objectives.mixture import build_mixture
from sentiment.pretraining.folder import check_fits, check_held_out, start_from
from sentiment.runs import load_words
from sentiment.text.bucketing import BucketSampler, by_update
from sentiment.text.pipeline import TrainingData, prepare_training
from sentiment.training.optimizer import Schedule
from sentiment.training.preparing import build_fresh
from sentiment.training.range_curve import RangeTest, SmoothedLoss
from sentiment.training.sums import RunningSums
from sentiment.training.updates import Updates
from sentiment.world import World

_SPAN_SHARE = 0.05  # of all updates, over which losses are averaged and slopes are taken
_DIVERGED = 4.0  # times the lowest smoothed loss


def prepare_range(config: Config) -> TrainingData:
    """What a training by the settings would learn from.

    Raises:
        ValueError: it would begin with a pre-training or teachers, which there are not yet.
    """
    if config.distillation.trains_teachers:
        raise ValueError(
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
        raise ValueError(
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
        ValueError: the loss was never finite.
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
        raise ValueError(
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


class _RisingUpdates(Updates):
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
        self._alone = World()
        training = replace(
            config.training, learning_rate=lowest, schedule="constant", warmup_share=0.0,
            nonfinite="stop",
        )  # fmt: skip
        super().__init__(
            model, data.train.to(device), training, device=device, precision=precision,
            num_updates=num_updates, world=self._alone,
            mixture=build_mixture(
                model, data.unlabelled, config,
                device=device, precision=precision, world=self._alone,
                soft_labels=data.soft_labels,
            ),
        )  # fmt: skip
        self._schedule = _Rise(self._optimizer, training, num_updates, highest)

    def loss_of(self, group: list[torch.Tensor]) -> float:
        """Carry out an update; returns the loss before it, NaN where a number is not finite."""
        sums = RunningSums(self._device)
        try:
            self.carry_out(group, sums)
            self.guard.settle()
        except ValueError:  # the guard's, who says that training would end here
            return math.nan
        return sums.means(self._alone)[0]
