"""Sums and counts over updates: losses, speed, progress."""

from __future__ import annotations

import time
from typing import Any

import torch

from sentiment.runtime.distributed import DistributedContext


class MeanMeter:
    """Loss, hits and reviews added up on the device, read once in a while.

    Reading a value makes the host wait for the device; adding to it does not.

    Args:
        device: where they are added up.
        start: (3,) what :meth:`totals` returned, to go on from; None begins at zero.
    """

    def __init__(self, device: torch.device, start: torch.Tensor | None = None) -> None:
        precision = torch.float32 if device.type == "mps" else torch.float64  # MPS has no fp64
        zeros = torch.zeros(3, dtype=precision)
        self._sums = (zeros if start is None else start.to(precision)).to(device)

    def add(self, loss_sum: torch.Tensor, num_correct: torch.Tensor, num_reviews: int) -> None:
        new = torch.stack((loss_sum.detach(), num_correct)).to(self._sums.dtype)
        self._sums[:2] += new
        self._sums[2] += num_reviews

    def totals(self, distributed: DistributedContext) -> torch.Tensor:
        """(3,) the sums over all ranks, on the CPU; all ranks must ask at once."""
        return distributed.all_reduce_sum(self._sums).cpu()

    def means(self, distributed: DistributedContext) -> tuple[float, float]:
        """Mean loss and accuracy over all ranks; all ranks must ask at once."""
        loss, correct, num_reviews = self.totals(distributed).tolist()
        return loss / max(1, num_reviews), correct / max(1, num_reviews)


class EpochProgress:
    """The course of one epoch, which can be put down at any update and taken up again.

    Args:
        epoch: its number, from 1.
        device: where sums are added up.

    Attributes:
        num_updates: updates of it that are done.
        num_tokens: of the batches done, over all ranks.
        all, recent: sums over the epoch, and since the last point of the curves.
    """

    def __init__(self, epoch: int, device: torch.device) -> None:
        self.epoch = epoch
        self.num_updates = 0
        self.num_tokens = 0
        self.all = MeanMeter(device)
        self.recent = MeanMeter(device)
        self._device = device
        self._recent_tokens = 0
        self._seconds = 0.0  # before the clock was last started
        self._started: float | None = None
        self._point_seconds = 0.0  # when the last point was drawn

    def start_clock(self) -> None:
        """Time counts as training's from here on."""
        self._started = time.perf_counter()

    def stop_clock(self) -> None:
        """What follows is not training."""
        self._seconds, self._started = self.seconds, None

    @property
    def seconds(self) -> float:
        """Time spent on its updates."""
        running = 0.0 if self._started is None else time.perf_counter() - self._started
        return self._seconds + running

    @property
    def recent_tokens_per_second(self) -> float:
        """Since the last point of the curves."""
        return self._recent_tokens / max(self.seconds - self._point_seconds, 1e-9)

    def count(self, num_tokens: int) -> None:
        """One more update is done, of batches with so many tokens."""
        self.num_updates += 1
        self.num_tokens += num_tokens
        self._recent_tokens += num_tokens

    def begin_point(self) -> None:
        """A point of the curves is drawn: count anew for the next."""
        self.recent = MeanMeter(self._device)
        self._recent_tokens, self._point_seconds = 0, self.seconds

    def state(
        self, distributed: DistributedContext
    ) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        """Values and tensors that :meth:`restore` takes; all ranks must ask at once."""
        values = {
            "epoch": self.epoch,
            "num_updates": self.num_updates,
            "num_tokens": self.num_tokens,
            "recent_tokens": self._recent_tokens,
            "seconds": self.seconds,
            "recent_seconds": self.seconds - self._point_seconds,
        }
        return values, {
            "all": self.all.totals(distributed),
            "recent": self.recent.totals(distributed),
        }

    @classmethod
    def restore(
        cls,
        values: dict[str, Any],
        tensors: dict[str, torch.Tensor],
        device: torch.device,
        distributed: DistributedContext,
    ) -> EpochProgress:
        """The progress that had this state; the first rank takes the sums of all."""
        progress = cls(values["epoch"], device)
        progress.num_updates = values["num_updates"]
        progress.num_tokens = values["num_tokens"]
        progress._recent_tokens = values["recent_tokens"]
        progress._seconds = values["seconds"]
        progress._point_seconds = values["seconds"] - values["recent_seconds"]
        if distributed.is_main:
            progress.all = MeanMeter(device, tensors["all"])
            progress.recent = MeanMeter(device, tensors["recent"])
        return progress
