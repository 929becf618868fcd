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
        self.recent = RunningSums(self._device)
        self._recent_tokens, self._point_seconds = 0, self.seconds

    def state(self, world: World) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        """Values and tensors that :meth:`restore` takes; all ranks must ask at once."""
        values = {
            "epoch": self.epoch,
            "num_updates": self.num_updates,
            "num_tokens": self.num_tokens,
            "recent_tokens": self._recent_tokens,
            "seconds": self.seconds,
            "recent_seconds": self.seconds - self._point_seconds,
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
        progress._point_seconds = values["seconds"] - values["recent_seconds"]
        if world.is_first:
            progress.all = RunningSums(device, tensors["all"])
            progress.recent = RunningSums(device, tensors["recent"])
        return progress
