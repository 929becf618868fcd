"""Training a language model: plan, steps, curves."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from sentiment.config.config import Config, TrainingConfig
from sentiment.data.batches import Batch, EncodedCorpus, to_device
from sentiment.data.pipeline import PretrainingTexts
from sentiment.data.sampler import BucketSampler
from sentiment.data.vocabulary import UNK_ID, token_counts
from sentiment.model import SentimentClassifier
from sentiment.pretraining.language_model import Candidates, LanguageModel, measure_perplexity
from sentiment.pretraining.streams import num_windows, stream_windows
from sentiment.runtime.device import autocast
from sentiment.runtime.distributed import DistributedContext
from sentiment.runtime.errors import UserError
from sentiment.runtime.processes import Interrupted, StopRequests
from sentiment.training.checkpoint import (
    CheckpointData,
    CheckpointSchedule,
    generator_states,
    restore_generators,
    save_state,
)
from sentiment.training.logger import measure_files, rewind_files
from sentiment.training.optim import Schedule, build_optimizer

_SHORTEST = 2  # words of a review of which one can be predicted


class Plan:
    """The batches of several corpora, mixed.

    Args:
        corpora: what to read.
        batch_size: reviews in a batch.
        window: words of a window.
        is_repeated: whether each review is read twice in a row.
        seed: decides the order together with the epoch.

    Raises:
        UserError: no review has two words.
    """

    def __init__(
        self,
        corpora: Sequence[EncodedCorpus],
        *,
        batch_size: int,
        window: int,
        is_repeated: bool,
        seed: int,
    ) -> None:
        self._lengths = [corpus.lengths for corpus in corpora]
        self._window = window
        self._times = 2 if is_repeated else 1
        self._seed = seed
        self._readable = [(each >= _SHORTEST).nonzero().squeeze(1) for each in self._lengths]
        if not any(len(each) for each in self._readable):
            raise UserError("no review has two words, the least to pre-train on")
        self._samplers = [
            BucketSampler(lengths[readable], batch_size=batch_size, seed=seed)
            for lengths, readable in zip(self._lengths, self._readable, strict=True)
        ]

    def batches(self, epoch: int) -> list[tuple[int, torch.Tensor]]:
        """The number of the corpus and the indices (batch,) of its reviews, longest first."""
        found = []
        for number, sampler in enumerate(self._samplers):
            sampler.set_epoch(epoch)
            found += [(number, self._readable[number][each]) for each in sampler]
        order = np.random.default_rng((self._seed, epoch)).permutation(len(found))
        return [found[place] for place in order]

    def num_updates(self, epochs: int) -> int:
        """Windows of so many epochs."""
        return sum(self._windows(epoch) for epoch in range(1, epochs + 1))

    def _windows(self, epoch: int) -> int:
        return sum(
            num_windows(self._times * int(self._lengths[number][indices[0]]), self._window)
            for number, indices in self.batches(epoch)
        )


_NAMES = ("forward", "backward")  # one of them where there is one direction


class Curves:
    """Writes the course of a pre-training.

    Args:
        path: its folder.
        directions: of the language model.
        device: where losses are added up.
        state: what :meth:`state` returned at a checkpoint: whatever was written after it goes.

    Attributes:
        last: the last point in words, None before the first.
    """

    def __init__(
        self,
        path: Path,
        directions: int,
        device: torch.device,
        state: dict[str, Any] | None = None,
    ) -> None:
        self._folder = path / "tensorboard" / "pretraining"
        self.last: str | None = None
        precision = torch.float32 if device.type == "mps" else torch.float64  # MPS has no fp64
        # Of each direction's losses, then of the gradients' norms. Summed on the device: looking at
        # a number would wait for it.
        self._sums = torch.zeros(directions + 1, dtype=precision, device=device)
        self._begin_point()
        if state is not None:
            rewind_files(self._folder, state["files"])
            self._sums += torch.tensor(state["sums"], dtype=precision).to(device)
            self._num_words = state["num_words"]
        self._writer = SummaryWriter(str(self._folder))

    def add(self, losses: torch.Tensor, norm: torch.Tensor, num_words: int, num_read: int) -> None:
        """An update is done.

        Args:
            losses: (directions,) sums of the sampled losses.
            norm: () the gradient's norm.
            num_words: words that were foretold.
            num_read: words that were read.
        """
        self._sums[:-1] += losses
        self._sums[-1] += norm
        self._num_words += num_words
        self._num_read += num_read

    def point(self, update: int, learning_rate: float) -> None:
        """A point of the curves by update.

        Raises:
            UserError: the loss is not finite.
        """
        self.check()
        sums = self._sums[:-1]
        means = (sums * len(sums) / self._num_words).tolist()
        speed = self._num_read / max(1e-9, time.perf_counter() - self._started)
        for name, mean in zip(_NAMES, means, strict=False):
            self._writer.add_scalar(f"pretraining/sampled_loss_{name}", mean, update)
        self._writer.add_scalar("pretraining/learning_rate", learning_rate, update)
        self._writer.add_scalar("pretraining/words_per_second", speed, update)
        self.last = f"loss {sum(means) / len(means):.3f}, {speed:,.0f} words/s"
        self._begin_point()

    def perplexities(self, update: int, values: Sequence[float]) -> None:
        """What was measured on validation reviews, by direction."""
        for name, value in zip(_NAMES, values, strict=False):
            self._writer.add_scalar(f"perplexity/{name}", value, update)

    def check(self) -> None:
        """Raise ``UserError`` if a loss or gradient since the last point is not finite."""
        if not math.isfinite(float(self._sums.sum())):
            raise UserError(
                "pre-training's loss or gradient is not finite: lower pretraining.learning_rate "
                "and begin again"
            )

    def state(self) -> dict[str, Any]:
        """What is written up to here, written through to the disk."""
        self._writer.flush()
        return {
            "files": measure_files(self._folder),
            "sums": self._sums.tolist(),
            "num_words": self._num_words,
        }

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()

    def _begin_point(self) -> None:
        self._sums.zero_()
        self._num_words = self._num_read = 0
        self._started = time.perf_counter()


logger = logging.getLogger(__name__)

_UPDATES_PER_MEASUREMENT = 2_000


class Pretrainer:
    """Trains a classifier's embedding and recurrence as a language model.

    Args:
        classifier: on ``device``.
        texts: what to read.
        config: the settings.
        device: where to compute.
        precision: arithmetic of matrix products.
        path: the pre-training's folder.
        state: where an earlier process has put it down.
    """

    def __init__(
        self,
        classifier: SentimentClassifier,
        texts: PretrainingTexts,
        config: Config,
        *,
        device: torch.device,
        precision: torch.dtype,
        path: Path,
        state: CheckpointData | None = None,
    ) -> None:
        pretraining = config.pretraining
        self._pretraining = pretraining
        self._log_every = config.training.log_every
        self._device, self._precision, self._path = device, precision, path
        self._corpora = [corpus.to(device) for corpus in texts.corpora]
        self._validation = texts.validation.to(device)
        counts = torch.tensor(token_counts(texts.vocabulary), dtype=torch.float64)
        # Unknown words are words to be foretold too, and counted by no line of the vocabulary.
        counts[UNK_ID] = sum(each.unknown_share() * len(each.tokens) for each in texts.corpora)
        self._model = LanguageModel(classifier, counts, pretraining.dropout).to(device)
        self._candidates = Candidates(counts, pretraining.num_candidates, config.seed)
        self._log_chances = self._candidates.log_chances.to(device)
        self._is_repeated = config.pretraining.objective == "autoencoder"
        self._plan = Plan(
            texts.corpora, batch_size=pretraining.batch_size, window=pretraining.window,
            is_repeated=self._is_repeated, seed=config.seed,
        )  # fmt: skip
        training = _as_training(config)
        self._optimizer = build_optimizer(self._model, training)
        num_updates = self._plan.num_updates(pretraining.num_epochs)
        self._schedule = Schedule(self._optimizer, training, num_updates)
        self._cadence = CheckpointSchedule(config.training)
        self._stop = StopRequests()
        self._update, self._epoch, self._num_batches = 0, 1, 0
        self._earlier_seconds, self._started = 0.0, time.perf_counter()
        self.perplexities: list[float] = []
        if state is not None:
            self._restore(state)
        self._curves = Curves(
            path, self._model.directions, device, None if state is None else state.values["curves"]
        )

    @property
    def num_updates(self) -> int:
        """Updates done."""
        return self._update

    @property
    def seconds(self) -> float:
        """Time spent, in all processes that had a part in it."""
        return self._earlier_seconds + time.perf_counter() - self._started

    def fit(self) -> None:
        """Read all epochs.

        Raises:
            Interrupted: a signal came; the state is saved.
            UserError: the loss is not finite.
        """
        self._model.train()
        with self._stop, closing(self._curves):
            if self._update == 0:
                self._measure()  # where it begins, and that it can be told at all
            while self._epoch <= self._pretraining.num_epochs:
                self._read_epoch()
                self._epoch, self._num_batches = self._epoch + 1, 0
                self._measure()
                self._save()
                self._end_if_asked()

    def _read_epoch(self) -> None:
        batches = self._plan.batches(self._epoch)
        total = sum(len(indices) for _, indices in batches)
        done = sum(len(indices) for _, indices in batches[: self._num_batches])
        title = f"pre-training {self._epoch}/{self._pretraining.num_epochs}"
        with tqdm(
            initial=done, total=total, desc=title, unit="review", leave=False, disable=None
        ) as bar:
            for number, indices in batches[self._num_batches :]:
                before = self._update
                self._read(self._corpora[number].batch(indices))
                self._num_batches += 1
                bar.update(len(indices))
                if self._curves.last is not None:
                    bar.set_postfix_str(self._curves.last, refresh=False)
                if before // _UPDATES_PER_MEASUREMENT < self._update // _UPDATES_PER_MEASUREMENT:
                    self._measure()
                self._pause(before)

    def _read(self, batch: Batch) -> None:
        """Go through the windows of a batch, with an update for each."""
        states = None
        for window in stream_windows(
            batch, self._model.directions, self._pretraining.window, is_repeated=self._is_repeated
        ):
            candidates = to_device(self._candidates.draw(self._update), self._device)
            self._optimizer.zero_grad(set_to_none=True)
            with autocast(self._device, self._precision):
                losses, states = self._model.losses(window, states, candidates, self._log_chances)
            num_words = losses.numel() * len(window.rows)
            (losses.sum() / num_words).backward()
            clip = self._pretraining.gradient_clip
            norm = nn.utils.clip_grad_norm_(self._model.parameters(), clip)
            self._optimizer.step()
            states = states[0].detach(), states[1].detach()
            rate = self._optimizer.param_groups[0]["lr"]
            self._schedule.after_update()
            self._update += 1
            self._curves.add(losses.detach(), norm, num_words, window.words.numel())
            if self._update % self._log_every == 0:
                self._curves.point(self._update, rate)

    def _measure(self) -> None:
        self.perplexities = measure_perplexity(
            self._model, self._validation, window=self._pretraining.window,
            is_repeated=self._is_repeated, precision=self._precision,
        )  # fmt: skip
        self._curves.perplexities(self._update, self.perplexities)
        shown = ", ".join(f"{each:.1f}" for each in self.perplexities)
        logger.info("update %d  perplexity on validation reviews: %s", self._update, shown)

    def _pause(self, before: int) -> None:
        """After a batch, which made all updates since ``before``: a checkpoint, where one is due.

        Between batches alone, where no states have to be kept.
        """
        made = range(before + 1, self._update + 1)
        if self._stop.signal or any(map(self._cadence.is_due, made)):
            self._save()
        self._end_if_asked()

    def _end_if_asked(self) -> None:
        if self._stop.signal:
            raise Interrupted(self._stop.signal)

    def _save(self) -> None:
        self._curves.check()
        tensors = {
            **{f"model/{name}": each for name, each in self._model.state_dict().items()},
            **{
                f"optimizer/{number}.{name}": each
                for number, moments in self._optimizer.state_dict()["state"].items()
                for name, each in moments.items()
            },
            **{
                f"generators/{name}": each
                for name, each in generator_states(self._device, DistributedContext()).items()
            },
        }
        values: dict[str, Any] = {
            "update": self._update,
            "epoch": self._epoch,
            "num_batches": self._num_batches,
            "schedule": self._schedule.state(),
            "rates": [group["lr"] for group in self._optimizer.param_groups],
            "perplexities": self.perplexities,
            "seconds": self.seconds,
            "curves": self._curves.state(),
        }
        save_state(self._path, CheckpointData(values, tensors))
        self._cadence.note()

    def _restore(self, state: CheckpointData) -> None:
        values = state.values
        self._update, self._epoch = values["update"], values["epoch"]
        self._num_batches, self.perplexities = values["num_batches"], values["perplexities"]
        self._earlier_seconds = values["seconds"]
        self._model.load_state_dict(state.section("model"))
        self._schedule.restore(values["schedule"])
        own = self._optimizer.state_dict()
        for key, tensor in state.section("optimizer").items():
            number, name = key.split(".")
            own["state"].setdefault(int(number), {})[name] = tensor
        for group, rate in zip(own["param_groups"], values["rates"], strict=True):
            group["lr"] = rate
        self._optimizer.load_state_dict(own)
        restore_generators(state.section("generators"), self._device, DistributedContext())


def _as_training(config: Config) -> TrainingConfig:
    """The optimizer's settings."""
    pretraining = config.pretraining
    return replace(
        config.training, optimizer="adam", weight_decay=0.0, schedule="linear",
        learning_rate=pretraining.learning_rate, warmup_share=pretraining.warmup_share,
        layer_rate_factor=1.0, unfreeze_epochs=None,
    )  # fmt: skip
