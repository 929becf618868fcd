"""One update of the weights, guarded against non-finite numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from sentiment.config.config import TrainingConfig
from sentiment.data.batches import Batch, EncodedCorpus
from sentiment.data.sampler import shard
from sentiment.model import SentimentClassifier
from sentiment.runtime.device import autocast
from sentiment.runtime.distributed import DistributedContext
from sentiment.runtime.errors import UserError
from sentiment.training.meters import MeanMeter
from sentiment.training.objectives import CombinedObjective
from sentiment.training.optim import Schedule, WeightAverage, build_optimizer

_MOST_SKIPPED_IN_A_ROW = 50  # beyond, no batch is at fault but the weights


@dataclass(frozen=True)
class StepInfo:
    """Where in training an update is, for messages.

    Attributes:
        update: its number, from 1.
        epoch: its epoch.
        learning_rate: the one it takes.
        rows: the reviews of its batch, by their places in the training split from 0.
        longest: tokens of the longest of them.
    """

    update: int
    epoch: int
    learning_rate: float
    rows: list[int]
    longest: int

    def __str__(self) -> str:
        first = ", ".join(str(row + 1) for row in self.rows[:3])
        more = " …" if len(self.rows) > 3 else ""
        return (
            f"update {self.update} (epoch {self.epoch}, learning rate {self.learning_rate:.3g}, "
            f"batch of {len(self.rows)} reviews of up to {self.longest} tokens: training reviews "
            f"{first}{more})"
        )


class NonFiniteGuard:
    """Watches losses and gradients.

    On a GPU looking at a number means waiting for it. Where training is to stop, it is looked at
    later, with those of other updates and before anything is written; where updates are to be
    skipped, at once.

    Args:
        reaction: what training is to do.
        device: where the numbers are.

    Attributes:
        num_skipped: updates that were skipped.
        num_in_a_row: the last ones among them, up to now.
    """

    def __init__(self, reaction: Literal["stop", "skip"], device: torch.device) -> None:
        self._skips = reaction == "skip"
        self._looks_at_once = self._skips or device.type == "cpu"
        self._waiting: list[tuple[StepInfo, torch.Tensor]] = []
        self.num_in_a_row = 0
        self.num_skipped = 0

    def allows(self, place: StepInfo, loss: torch.Tensor, norm: torch.Tensor) -> bool:
        """Whether an update is to be carried out.

        Args:
            place: the update.
            loss: () mean loss of the batch on this rank.
            norm: () norm of the gradient, which is the same on all ranks.

        Raises:
            UserError: a number is not finite, and training is to stop.
        """
        self._waiting.append((place, torch.stack((loss.detach().double(), norm.double()))))
        if not self._looks_at_once:
            return True
        if not self._skips:
            self.settle()
            return True
        ((_, numbers),) = self._waiting
        self._waiting.clear()
        if math.isfinite(numbers[1].item()):
            self.num_in_a_row = 0
            return True
        self.num_skipped += 1
        self.num_in_a_row += 1
        if self.num_in_a_row > _MOST_SKIPPED_IN_A_ROW:
            raise UserError(
                f"the gradient was not finite {self.num_in_a_row} times in a row, last at "
                f"{place}: lower training.learning_rate; the last checkpoint is from before"
            )
        return False

    def settle(self) -> None:
        """Look at all numbers that have not been looked at.

        Raises:
            UserError: one is not finite.
        """
        if not self._waiting:
            return
        numbers = torch.stack([each for _, each in self._waiting]).tolist()
        for (place, _), (loss, norm) in zip(self._waiting, numbers, strict=True):
            if not (math.isfinite(norm) and math.isfinite(loss)):
                raise UserError(
                    f"the loss is {loss:.4g} and the gradient's norm {norm:.4g} at {place}: lower "
                    "training.learning_rate or training.gradient_clip, or pass over such batches "
                    "with training.nonfinite skip; the last checkpoint is from before"
                )
        self._waiting.clear()


_Counts = list[tuple[torch.Tensor, torch.Tensor, int]]  # sums of losses, hits, reviews, by batch
_BUCKET_MEGABYTES = 4  # of gradients that are exchanged while the others are still computed


class TrainStep:
    """Updates a model from batches.

    Args:
        model: the classifier, on ``device``.
        corpus: what batches are cut from, on ``device``.
        config: optimizer, schedule, clipping.
        device: where to compute.
        precision: arithmetic of matrix products.
        num_updates: of the whole training.
        world: the ranks; all must make the same calls.
        mixture: what learns from more than the labels; None learns from them alone.
        rate_factor: share of the learning rate at each update, in place of the config's schedule.

    Attributes:
        update: updates done.
        learning_rate: of the last one.
        average: of the weights, if one is kept.
        guard: what watches for numbers that are not finite.
    """

    def __init__(
        self,
        model: SentimentClassifier,
        corpus: EncodedCorpus,
        config: TrainingConfig,
        *,
        device: torch.device,
        precision: torch.dtype,
        num_updates: int,
        distributed: DistributedContext,
        mixture: CombinedObjective | None = None,
        rate_factor: Callable[[int], float] | None = None,
    ) -> None:
        self._model = model
        self._corpus = corpus
        self._config = config
        self._device = device
        self._precision = precision
        self._distributed = distributed
        self._mixture = mixture
        self._parallel: nn.Module = model
        if distributed.is_distributed and mixture is None:
            self._parallel = DistributedDataParallel(
                model,
                gradient_as_bucket_view=True,
                bucket_cap_mb=_BUCKET_MEGABYTES,
            )
        self._optimizer = build_optimizer(model, config)
        self._schedule = Schedule(self._optimizer, config, num_updates, rate_factor)
        self._loss = nn.CrossEntropyLoss(reduction="sum", label_smoothing=config.label_smoothing)
        decay = config.average_decay
        self.average = None if decay is None else WeightAverage(model, decay)
        self.guard = NonFiniteGuard(config.nonfinite, device)
        self.update = 0
        self.learning_rate = 0.0

    def step(self, group: list[torch.Tensor], *sums: MeanMeter, epoch: int = 1) -> torch.Tensor:
        """One update from the mean loss over all reviews of some batches.

        Args:
            group: indices of each batch's reviews, over all ranks, longest first.
            sums: where loss and hits of this rank's reviews are added.
            epoch: for messages.

        Returns:
            () the gradient's norm before clipping, on the device.

        Raises:
            UserError: loss or gradient is not finite.
            MemoryError: the device has too little memory for a batch.
        """
        self._optimizer.zero_grad(set_to_none=True)
        counts: _Counts = []
        if self._mixture is None:
            total = self._add_supervised(group, counts)
        else:
            total = self._add_mixed(self._mixture, group, counts)
        clip = self._config.gradient_clip
        norm = nn.utils.clip_grad_norm_(
            self._model.parameters(), float("inf") if clip is None else clip
        )
        self.learning_rate = self._optimizer.param_groups[0]["lr"]
        if self.guard.allows(self._place(group, epoch), total, norm):
            self._optimizer.step()
            if self.average is not None:
                self.average.update()
            for each in sums:
                for count in counts:
                    each.add(*count)
            if self._mixture is not None:
                self._mixture.sums.keep_update()
        self._schedule.after_update()
        self.update += 1
        return norm

    def _add_supervised(self, group: list[torch.Tensor], counts: _Counts) -> torch.Tensor:
        """Add the gradients of some batches, and their counts; returns their part of the loss."""
        num_reviews = sum(map(len, group))
        total = torch.zeros((), device=self._device)
        for number, indices in enumerate(group, 1):
            with self._exchanging(is_last=number == len(group)):
                total += self._add_gradients(indices, num_reviews, counts)
        return total

    def _add_mixed(
        self, mixture: CombinedObjective, group: list[torch.Tensor], counts: _Counts
    ) -> torch.Tensor:
        """The same of all terms of a mixture, in which only labelled reviews are counted."""
        total = torch.zeros((), device=self._device)
        mixture.sums.begin_update()
        for portion in mixture.portions.of_update(self.update, self._corpus, group):
            try:
                logits, loss = mixture.add_gradients(portion)
            except RuntimeError as error:
                raise self._explained(error, portion.batch) from error
            total += loss
            if portion.is_labelled:
                counts.append(self._count(portion.batch, logits))
        mixture.exchange()
        return total

    def _exchanging(self, *, is_last: bool) -> AbstractContextManager[None]:
        """Gradients are exchanged once an update, with those of its last batch."""
        if isinstance(self._parallel, DistributedDataParallel) and not is_last:
            return self._parallel.no_sync()
        return nullcontext()

    def _add_gradients(
        self, indices: torch.Tensor, num_reviews: int, counts: _Counts
    ) -> torch.Tensor:
        """Add a batch's gradients, and its counts; returns its part of the mean loss here."""
        own = shard(indices, self._distributed.rank, self._distributed.world_size)
        # A last batch of fewer reviews than ranks leaves some without. Gradients are exchanged by
        # all, so these take a review too and count it for nothing.
        batch = self._corpus.batch(own if len(own) else indices[:1])
        try:
            with autocast(self._device, self._precision):
                logits = self._parallel(batch.tokens, batch.lengths)
            loss = self._loss(logits.float(), batch.labels) / num_reviews
            # The exchange takes the mean over ranks, where their sum is wanted.
            (loss * (self._distributed.world_size if len(own) else 0)).backward()
        except RuntimeError as error:
            raise self._explained(error, batch) from error
        if len(own) == 0:
            return torch.zeros((), device=self._device)
        counts.append(self._count(batch, logits.detach().float()))
        return loss.detach()

    @staticmethod
    def _count(batch: Batch, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, int]:
        """What is reported: the loss without smoothing, to stand beside validation's; hits."""
        loss_sum = nn.functional.cross_entropy(logits, batch.labels, reduction="sum")
        num_correct = (logits.argmax(dim=1) == batch.labels).sum()
        return loss_sum, num_correct, len(batch.lengths)

    def _place(self, group: list[torch.Tensor], epoch: int) -> StepInfo:
        rows = [index for indices in group for index in indices.tolist()]
        longest = max(int(self._corpus.lengths[indices].max()) for indices in group)
        return StepInfo(self.update + 1, epoch, self.learning_rate, rows, longest)

    def _explained(self, error: RuntimeError, batch: Batch) -> Exception:
        is_of_memory = isinstance(error, torch.OutOfMemoryError) or (
            "memory" in str(error) and "alloc" in str(error)  # what torch says on a CPU
        )
        if not is_of_memory:
            return error
        reviews, time = batch.tokens.shape
        unit = self._config.batch_unit
        return MemoryError(
            f"{self._device} has too little memory for a batch of {reviews} reviews of {time} "
            f"tokens: lower training.batch_size ({self._config.batch_size} {unit}; "
            "training.accumulation_steps makes up for it) or data.max_length"
        )

    def after_epoch(self, score: float) -> None:
        """Tell the schedule what the monitored metric was; more is better."""
        self._schedule.after_epoch(score)

    def take_terms(self) -> dict[str, float]:
        """Means of a mixture's terms since they were last taken; all ranks must ask at once."""
        return {} if self._mixture is None else self._mixture.sums.take_means(self._distributed)

    def state(self) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        """Values, and the optimizer's tensors, for :meth:`restore`; all ranks must ask at once."""
        state = self._optimizer.state_dict()
        values = {
            "update": self.update,
            "learning_rate": self.learning_rate,
            "num_skipped": self.guard.num_skipped,
            "num_skipped_in_a_row": self.guard.num_in_a_row,
            "rates": [group["lr"] for group in state["param_groups"]],
            "schedule": self._schedule.state(),
        }
        if self._mixture is not None:
            values["terms"] = self._mixture.sums.state(self._distributed)
        tensors = {
            f"{number}.{name}": tensor
            for number, moments in state["state"].items()
            for name, tensor in moments.items()
        }
        return values, tensors

    def restore(self, values: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        """Take up the state of the same training."""
        self.update = values["update"]
        self.learning_rate = values["learning_rate"]
        self.guard.num_skipped = values["num_skipped"]
        self.guard.num_in_a_row = values["num_skipped_in_a_row"]
        self._schedule.restore(values["schedule"])
        if self._mixture is not None:
            self._mixture.sums.restore(values["terms"], self._distributed)
        state = self._optimizer.state_dict()
        for key, tensor in tensors.items():
            number, name = key.split(".")
            state["state"].setdefault(int(number), {})[name] = tensor
        for group, rate in zip(state["param_groups"], values["rates"], strict=True):
            group["lr"] = rate
        self._optimizer.load_state_dict(state)
