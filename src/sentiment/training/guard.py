"""Losses and gradients that are no finite numbers: noticed before a checkpoint can hold them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch

_MOST_SKIPPED_IN_A_ROW = 50  # beyond, no batch is at fault but the weights


@dataclass(frozen=True)
class UpdatePlace:
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


class FiniteGuard:
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
        self._waiting: list[tuple[UpdatePlace, torch.Tensor]] = []
        self.num_in_a_row = 0
        self.num_skipped = 0

    def allows(self, place: UpdatePlace, loss: torch.Tensor, norm: torch.Tensor) -> bool:
        """Whether an update is to be carried out.

        Args:
            place: the update.
            loss: () mean loss of the batch on this rank.
            norm: () norm of the gradient, which is the same on all ranks.

        Raises:
            ValueError: a number is not finite, and training is to stop.
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
            raise ValueError(
                f"the gradient was not finite {self.num_in_a_row} times in a row, last at "
                f"{place}: lower training.learning_rate; the last checkpoint is from before"
            )
        return False

    def settle(self) -> None:
        """Look at all numbers that have not been looked at.

        Raises:
            ValueError: one is not finite.
        """
        if not self._waiting:
            return
        numbers = torch.stack([each for _, each in self._waiting]).tolist()
        for (place, _), (loss, norm) in zip(self._waiting, numbers, strict=True):
            if not (math.isfinite(norm) and math.isfinite(loss)):
                raise ValueError(
                    f"the loss is {loss:.4g} and the gradient's norm {norm:.4g} at {place}: lower "
                    "training.learning_rate or training.gradient_clip, or pass over such batches "
                    "with training.nonfinite skip; the last checkpoint is from before"
                )
        self._waiting.clear()
