"""Guards around a training step: non-finite numbers, exhausted memory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch

from sentiment.config.config import TrainingConfig
from sentiment.data.batches import Batch
from sentiment.runtime.errors import UserError

_MOST_SKIPPED_IN_A_ROW = 50  # beyond that the weights are at fault, not a batch


@dataclass(frozen=True)
class StepInfo:
    """Describes an update in messages.

    Attributes:
        update, epoch: their numbers, from 1.
        learning_rate: of the update.
        rows: positions of its reviews in the training split, from 0.
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
    """Checks losses and gradient norms.

    Reading a number from a GPU means waiting for it. If training is to stop at a non-finite one,
    numbers are therefore read later, together and before anything is saved; if updates are to be
    skipped, they are read at once.
    """

    def __init__(self, reaction: Literal["stop", "skip"], device: torch.device) -> None:
        self._skips = reaction == "skip"
        self._reads_at_once = device.type == "cpu"
        self._unread: list[tuple[StepInfo, torch.Tensor]] = []
        self._num_skipped = 0
        self._num_in_a_row = 0

    def allows(self, step: StepInfo, loss: torch.Tensor, norm: torch.Tensor) -> bool:
        """Whether the optimizer may take a step.

        Args:
            step: the update.
            loss: () mean loss of the batch on this rank.
            norm: () norm of the gradient, the same on all ranks.

        Raises:
            UserError: a number is not finite and training is to stop, or too many updates were
                skipped in a row.
        """
        if self._skips:
            return self._is_finite(step, norm)
        self._unread.append((step, torch.stack((loss.detach().double(), norm.double()))))
        if self._reads_at_once:
            self.check()
        return True

    def _is_finite(self, step: StepInfo, norm: torch.Tensor) -> bool:
        if math.isfinite(norm.item()):
            self._num_in_a_row = 0
            return True
        self._num_skipped += 1
        self._num_in_a_row += 1
        if self._num_in_a_row > _MOST_SKIPPED_IN_A_ROW:
            raise UserError(
                f"the gradient was not finite {self._num_in_a_row} times in a row, last at "
                f"{step}: lower training.learning_rate; the last checkpoint is from before"
            )
        return False

    def check(self) -> None:
        """Read the numbers that have not been read yet.

        Raises:
            UserError: one is not finite.
        """
        if not self._unread:
            return
        numbers = torch.stack([pair for _, pair in self._unread]).tolist()
        for (step, _), (loss, norm) in zip(self._unread, numbers, strict=True):
            if not (math.isfinite(norm) and math.isfinite(loss)):
                raise UserError(
                    f"the loss is {loss:.4g} and the gradient's norm {norm:.4g} at {step}: lower "
                    "training.learning_rate or training.gradient_clip, or skip such batches with "
                    "training.nonfinite skip; the last checkpoint is from before"
                )
        self._unread.clear()

    def state(self) -> dict[str, int]:
        return {"num_skipped": self._num_skipped, "num_skipped_in_a_row": self._num_in_a_row}

    def restore(self, values: dict[str, int]) -> None:
        """Continue from :meth:`state`."""
        self._num_skipped = values["num_skipped"]
        self._num_in_a_row = values["num_skipped_in_a_row"]


@contextmanager
def explain_out_of_memory(
    batch: Batch, config: TrainingConfig, device: torch.device
) -> Iterator[None]:
    """Turn torch's errors about memory into a ``MemoryError`` that names the settings to lower."""
    try:
        yield
    except RuntimeError as error:
        is_of_memory = isinstance(error, torch.OutOfMemoryError) or (
            "memory" in str(error) and "alloc" in str(error)  # torch's wording on a CPU
        )
        if not is_of_memory:
            raise
        reviews, time = batch.tokens.shape
        raise MemoryError(
            f"{device} has too little memory for a batch of {reviews} reviews of {time} tokens: "
            f"lower training.batch_size ({config.batch_size} {config.batch_unit}; "
            "training.accumulation_steps makes up for it) or data.max_length"
        ) from error
