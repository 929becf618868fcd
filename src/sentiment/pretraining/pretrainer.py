"""Training of a language model: batches, updates, curves."""

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

from sentiment.config.config import PretrainingConfig
from sentiment.data.batches import Batch, BucketSampler, EncodedCorpus
from sentiment.data.pipeline import PretrainingTexts
from sentiment.data.vocabulary import UNK_ID, token_counts
from sentiment.display.console import progress_bar
from sentiment.model import SentimentClassifier
from sentiment.pretraining.language_model import (
    Candidates,
    LanguageModel,
    measure_perplexity,
    num_windows,
    stream_windows,
)
from sentiment.runtime.device import autocast
from sentiment.runtime.errors import UserError
from sentiment.runtime.processes import Interrupted, StopRequests
from sentiment.training.checkpoint import (
    CheckpointData,
    CheckpointSchedule,
    generator_states,
    restore_generators,
    save_state,
)
from sentiment.training.context import TrainingContext
from sentiment.training.logger import measure_files, rewind_files
from sentiment.training.meters import zero_sums
from sentiment.training.optim import Schedule, build_optimizer, optimizer_state, restore_optimizer

logger = logging.getLogger(__name__)

_SHORTEST = 2  # words of a review in which one can be predicted
_DIRECTIONS = ("forward", "backward")  # a model of one direction has the first
_UPDATES_PER_MEASUREMENT = 2_000


class BatchPlan:
    """Shuffled batches of several corpora, whose order depends on seed and epoch."""

    def __init__(
        self, corpora: Sequence[EncodedCorpus], pretraining: PretrainingConfig, seed: int
    ) -> None:
        self._lengths = [corpus.lengths for corpus in corpora]
        self._window = pretraining.window
        self._num_readings = 2 if pretraining.objective == "autoencoder" else 1
        self._seed = seed
        self._readable = [(lengths >= _SHORTEST).nonzero().squeeze(1) for lengths in self._lengths]
        if not any(len(rows) for rows in self._readable):
            raise UserError("every review has fewer than two words: pre-training needs longer ones")
        self._samplers = [
            BucketSampler(lengths[rows], batch_size=pretraining.batch_size, seed=seed)
            for lengths, rows in zip(self._lengths, self._readable, strict=True)
        ]

    def batches(self, epoch: int) -> list[tuple[int, torch.Tensor]]:
        """For each batch, the number of its corpus and rows (batch,) there, longest first."""
        batches = []
        for number, sampler in enumerate(self._samplers):
            sampler.set_epoch(epoch)
            batches += [(number, self._readable[number][rows]) for rows in sampler]
        order = np.random.default_rng((self._seed, epoch)).permutation(len(batches))
        return [batches[position] for position in order]

    def num_updates(self, epochs: int) -> int:
        """Number of updates, one for each window, of the first epochs."""
        return sum(
            num_windows(self._num_readings * int(self._lengths[number][rows[0]]), self._window)
            for epoch in range(1, epochs + 1)
            for number, rows in self.batches(epoch)
        )


class PretrainingLogger:
    """Writes the curves of a pre-training; losses are summed on the device, without waiting for it.

    ``state`` is what :meth:`state` returned at a checkpoint; whatever was written later is removed.
    :attr:`last_point` is the last point as text, None before the first.
    """

    def __init__(
        self,
        path: Path,
        num_directions: int,
        device: torch.device,
        state: dict[str, Any] | None,
    ) -> None:
        self._folder = path / "tensorboard" / "pretraining"
        self.last_point: str | None = None
        # The loss of each direction, then the gradients' norms.
        self._sums = zero_sums(num_directions + 1, device=device)
        self._start_point()
        if state is not None:
            rewind_files(self._folder, state["files"])
            self._sums += torch.tensor(state["sums"], dtype=self._sums.dtype).to(device)
            self._num_predicted = state["num_words"]
        self._writer = SummaryWriter(str(self._folder))

    def add(
        self, losses: torch.Tensor, norm: torch.Tensor, num_predicted: int, num_read: int
    ) -> None:
        """Count an update: losses (directions,), the gradient's norm, words of all directions."""
        self._sums[:-1] += losses
        self._sums[-1] += norm
        self._num_predicted += num_predicted
        self._num_read += num_read

    def write_point(self, update: int, learning_rate: float) -> None:
        """Write a point of the curves, whose loss must be finite."""
        self.check_finite()
        sums = self._sums[:-1]
        means = (sums * len(sums) / self._num_predicted).tolist()
        speed = self._num_read / max(1e-9, time.perf_counter() - self._started)
        for name, mean in zip(_DIRECTIONS, means, strict=False):
            self._writer.add_scalar(f"pretraining/sampled_loss_{name}", mean, update)
        self._writer.add_scalar("pretraining/learning_rate", learning_rate, update)
        self._writer.add_scalar("pretraining/words_per_second", speed, update)
        self.last_point = f"loss {sum(means) / len(means):.3f}, {speed:,.0f} words/s"
        self._start_point()

    def perplexities(self, update: int, values: Sequence[float]) -> None:
        """Write the perplexities on validation reviews, by direction."""
        for name, value in zip(_DIRECTIONS, values, strict=False):
            self._writer.add_scalar(f"perplexity/{name}", value, update)

    def check_finite(self) -> None:
        """Raise ``UserError`` if a loss or gradient since the last point is not finite."""
        if not math.isfinite(float(self._sums.sum())):
            raise UserError(
                "pre-training's loss or gradient is not finite: lower pretraining.learning_rate "
                "and start again"
            )

    def state(self) -> dict[str, Any]:
        """Flush everything to the disk; returns the files' lengths and the sums so far."""
        self._writer.flush()
        return {
            "files": measure_files(self._folder),
            "sums": self._sums.tolist(),
            "num_words": self._num_predicted,
        }

    def close(self) -> None:
        self._writer.close()

    def _start_point(self) -> None:
        self._sums.zero_()
        self._num_predicted = self._num_read = 0
        self._started = time.perf_counter()


class Pretrainer:
    """Trains a classifier's embedding and recurrence as a language model.

    The classifier is on the context's device; training continues from the checkpoint, if given.

    Attributes:
        update: updates done.
        perplexities: last measured on validation reviews, by direction.
    """

    def __init__(
        self,
        classifier: SentimentClassifier,
        texts: PretrainingTexts,
        context: TrainingContext,
        checkpoint: CheckpointData | None = None,
    ) -> None:
        config, device = context.config, context.device
        pretraining = config.pretraining
        self._context, self._device, self._pretraining = context, device, pretraining
        self._corpora = [corpus.to(device) for corpus in texts.corpora]
        self._validation = texts.validation.to(device)
        counts = torch.tensor(token_counts(texts.vocabulary), dtype=torch.float64)
        # Unknown words are predicted too, but the vocabulary does not count them.
        counts[UNK_ID] = sum(
            corpus.unknown_share() * len(corpus.tokens) for corpus in texts.corpora
        )
        self._model = LanguageModel(classifier, counts, pretraining.dropout).to(device)
        self._candidates = Candidates(counts, pretraining.num_candidates, config.seed, device)
        self._is_repeated = pretraining.objective == "autoencoder"
        self._plan = BatchPlan(texts.corpora, pretraining, config.seed)
        training = replace(
            config.training, optimizer="adam", weight_decay=0.0, schedule="linear",
            learning_rate=pretraining.learning_rate, warmup_share=pretraining.warmup_share,
            layer_rate_factor=1.0, unfreeze_epochs=None,
        )  # fmt: skip
        self._optimizer = build_optimizer(self._model, training)
        num_updates = self._plan.num_updates(pretraining.num_epochs)
        self._schedule = Schedule(self._optimizer, training, num_updates)
        self._checkpoint_schedule = CheckpointSchedule(config.training)
        self._stop = StopRequests()
        self.update, self._epoch, self._num_batches = 0, 1, 0
        self._earlier_seconds, self._started = 0.0, time.perf_counter()
        self.perplexities: list[float] = []
        logged = None
        if checkpoint is not None:
            self._restore(checkpoint)
            logged = checkpoint.values["curves"]
        self._logger = PretrainingLogger(context.path, self._model.directions, device, logged)

    @property
    def seconds(self) -> float:
        """Time spent, in all processes that took part."""
        return self._earlier_seconds + time.perf_counter() - self._started

    def fit(self) -> None:
        """Train all epochs.

        Raises:
            Interrupted: a signal came; a checkpoint is saved.
        """
        self._model.train()
        with self._stop, closing(self._logger):
            if self.update == 0:
                self._measure()  # also fails early if perplexity cannot be measured
            while self._epoch <= self._pretraining.num_epochs:
                self._train_epoch()
                self._epoch, self._num_batches = self._epoch + 1, 0
                self._measure()
                self._save_checkpoint()
                self._stop_if_asked()

    def _train_epoch(self) -> None:
        batches = self._plan.batches(self._epoch)
        total = sum(len(rows) for _, rows in batches)
        done = sum(len(rows) for _, rows in batches[: self._num_batches])
        title = f"pre-training {self._epoch}/{self._pretraining.num_epochs}"
        with progress_bar(initial=done, total=total, desc=title, unit="review", leave=False) as bar:
            for number, rows in batches[self._num_batches :]:
                before = self.update
                self._train_batch(self._corpora[number].batch(rows))
                self._num_batches += 1
                bar.update(len(rows))
                if self._logger.last_point is not None:
                    bar.set_postfix_str(self._logger.last_point, refresh=False)
                if before // _UPDATES_PER_MEASUREMENT < self.update // _UPDATES_PER_MEASUREMENT:
                    self._measure()
                self._save_checkpoint_if_due(before)

    def _train_batch(self, batch: Batch) -> None:
        """Update the weights once for each window of a batch."""
        states = None
        for window in stream_windows(
            batch, self._model.directions, self._pretraining.window, is_repeated=self._is_repeated
        ):
            candidates = self._candidates.draw(self.update)
            self._optimizer.zero_grad(set_to_none=True)
            with autocast(self._device, self._context.precision):
                losses, states = self._model.losses(
                    window, states, candidates, self._candidates.log_chances
                )
            num_predicted = losses.numel() * len(window.rows)
            (losses.sum() / num_predicted).backward()
            max_norm = self._pretraining.gradient_clip
            norm = nn.utils.clip_grad_norm_(self._model.parameters(), max_norm)
            self._optimizer.step()
            states = states[0].detach(), states[1].detach()
            rate = self._optimizer.param_groups[0]["lr"]
            self._schedule.after_update()
            self.update += 1
            self._logger.add(losses.detach(), norm, num_predicted, window.words.numel())
            if self.update % self._context.config.training.log_every == 0:
                self._logger.write_point(self.update, rate)

    def _measure(self) -> None:
        self.perplexities = measure_perplexity(
            self._model, self._validation, window=self._pretraining.window,
            is_repeated=self._is_repeated, precision=self._context.precision,
        )  # fmt: skip
        self._logger.perplexities(self.update, self.perplexities)
        shown = ", ".join(f"{perplexity:.1f}" for perplexity in self.perplexities)
        logger.info("update %d  perplexity on validation reviews: %s", self.update, shown)

    def _save_checkpoint_if_due(self, before: int) -> None:
        """Save if due after the updates since ``before``, and stop if a signal came.

        Only between batches, where there are no recurrent states to save.
        """
        updates = range(before + 1, self.update + 1)
        if self._stop.signal or any(map(self._checkpoint_schedule.is_due, updates)):
            self._save_checkpoint()
        self._stop_if_asked()

    def _stop_if_asked(self) -> None:
        if self._stop.signal:
            raise Interrupted(self._stop.signal)

    def _save_checkpoint(self) -> None:
        self._logger.check_finite()
        optimizer, moments = optimizer_state(self._optimizer, self._schedule)
        values: dict[str, Any] = {
            "update": self.update,
            "epoch": self._epoch,
            "num_batches": self._num_batches,
            **optimizer,
            "perplexities": self.perplexities,
            "seconds": self.seconds,
            "curves": self._logger.state(),
        }
        checkpoint = CheckpointData.from_sections(
            values,
            model=self._model.state_dict(),
            optimizer=moments,
            generators=generator_states(self._context),
        )
        save_state(self._context.path, checkpoint)
        self._checkpoint_schedule.restart_clock()

    def _restore(self, checkpoint: CheckpointData) -> None:
        values = checkpoint.values
        self.update, self._epoch = values["update"], values["epoch"]
        self._num_batches, self.perplexities = values["num_batches"], values["perplexities"]
        self._earlier_seconds = values["seconds"]
        self._model.load_state_dict(checkpoint.section("model"))
        moments = checkpoint.section("optimizer")
        restore_optimizer(self._optimizer, self._schedule, values, moments)
        restore_generators(checkpoint.section("generators"), self._context)
