"""How far an epoch has come, and what it has come to: what a checkpoint inside it must know."""

from __future__ import annotations

import time
from typing import Any

import torch

from sentiment.training.sums import RunningSums
from sentiment.world import World


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
        self.all = RunningSums(device)
        self.recent = RunningSums(device)
        self._device = device
        self._recent_tokens = 0
        self._seconds = self._recent_seconds = 0.0  # of earlier processes
        self._started = self._recent_started = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Time spent on it."""
        return self._seconds + time.perf_counter() - self._started

    @property
    def recent_tokens_per_second(self) -> float:
        """Since the last point of the curves."""
        seconds = self._recent_seconds + time.perf_counter() - self._recent_started
        return self._recent_tokens / max(seconds, 1e-9)

    def count(self, num_tokens: int) -> None:
        """One more update is done, of batches with so many tokens."""
        self.num_updates += 1
        self.num_tokens += num_tokens
        self._recent_tokens += num_tokens

    def begin_point(self) -> None:
        """A point of the curves is drawn: count anew for the next."""
        self.recent = RunningSums(self._device)
        self._recent_tokens, self._recent_seconds = 0, 0.0
        self._recent_started = time.perf_counter()

    def state(self, world: World) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        """Values and tensors that :meth:`restore` takes; all ranks must ask at once."""
        now = time.perf_counter()
        values = {
            "epoch": self.epoch,
            "num_updates": self.num_updates,
            "num_tokens": self.num_tokens,
            "recent_tokens": self._recent_tokens,
            "seconds": self._seconds + now - self._started,
            "recent_seconds": self._recent_seconds + now - self._recent_started,
        }
        return values, {"all": self.all.totals(world), "recent": self.recent.totals(world)}

    @classmethod
    def restore(
        cls,
        values: dict[str, Any],
        tensors: dict[str, torch.Tensor],
        device: torch.device,
        world: World,
    ) -> EpochProgress:
        """The progress that had this state; the first rank takes the sums of all."""
        progress = cls(values["epoch"], device)
        progress.num_updates = values["num_updates"]
        progress.num_tokens = values["num_tokens"]
        progress._recent_tokens = values["recent_tokens"]
        progress._seconds = values["seconds"]
        progress._recent_seconds = values["recent_seconds"]
        if world.is_first:
            progress.all = RunningSums(device, tensors["all"])
            progress.recent = RunningSums(device, tensors["recent"])
        return progress
