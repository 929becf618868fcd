"""Sums and counts over updates: losses, speed, progress."""

from __future__ import annotations

import time
from typing import Any

import torch

from sentiment.runtime.distributed import DistributedContext


def zero_sums(*shape: int, device: torch.device) -> torch.Tensor:
    """Zeros to add numbers to, in fp64 except on MPS, which does not have it."""
    dtype = torch.float32 if device.type == "mps" else torch.float64
    return torch.zeros(shape, dtype=dtype, device=device)


def meter_sums(
    loss_sum: torch.Tensor, num_correct: torch.Tensor, num_reviews: int, counts: bool | torch.Tensor
) -> torch.Tensor:
    """(3,) sums of a batch for :class:`MeanMeter`; 0 if ``counts``, () on the device, is false."""
    sums = torch.stack((loss_sum.detach(), num_correct, torch.full_like(num_correct, num_reviews)))
    return sums.where(counts, 0) if isinstance(counts, torch.Tensor) else sums


class MeanMeter:
    """Sums loss, correct predictions and reviews on the device; only reading waits for it."""

    def __init__(self, device: torch.device) -> None:
        self._sums = zero_sums(3, device=device)

    def add(self, sums: torch.Tensor) -> None:
        """Add the :func:`meter_sums` of a batch."""
        self._sums += sums

    def totals(self, distributed: DistributedContext) -> torch.Tensor:
        """(3,) sums over all ranks, on the CPU; a collective call."""
        return distributed.all_reduce_sum(self._sums).cpu()

    def means(self, distributed: DistributedContext) -> tuple[float, float]:
        """Mean loss and accuracy over all ranks; a collective call."""
        loss, correct, num_reviews = self.totals(distributed).tolist()
        return loss / max(1, num_reviews), correct / max(1, num_reviews)

    def restore(self, totals: torch.Tensor, distributed: DistributedContext) -> None:
        """Continue from :meth:`totals`: the main rank takes the sums of all."""
        if distributed.is_main:
            self._sums.copy_(totals)


class TermMeter:
    """Averages each unweighted term of an objective over reviews; skipped updates don't count."""

    def __init__(self, names: tuple[str, ...], device: torch.device) -> None:
        self._names = names
        self._update = zero_sums(len(names), 2, device=device)
        self._sums = torch.zeros_like(self._update)  # (terms, 2): sum of losses, reviews

    def begin_update(self) -> None:
        """Discard the losses of the last update if it was skipped."""
        self._update.zero_()

    def add(self, name: str, losses: torch.Tensor) -> None:
        """Add a term's losses, (batch,), to the current update."""
        row = self._names.index(name)
        self._update[row, 0] += losses.detach().sum()
        self._update[row, 1] += len(losses)

    def keep_update(self, counts: bool | torch.Tensor = True) -> None:
        """Count the current update, unless ``counts``, () on the device, is false."""
        update = self._update
        self._sums += update.where(counts, 0) if isinstance(counts, torch.Tensor) else update

    def take_means(self, distributed: DistributedContext) -> dict[str, float]:
        """Mean of each term over all ranks; starts again at zero. A collective call."""
        sums = self.state(distributed)
        self._sums.zero_()
        named = zip(self._names, sums, strict=True)
        return {name: total / max(1, count) for name, (total, count) in named}

    def state(self, distributed: DistributedContext) -> list[list[float]]:
        """Sums over all ranks, for :meth:`restore`; a collective call."""
        return distributed.all_reduce_sum(self._sums).tolist()

    def restore(self, sums: list[list[float]], distributed: DistributedContext) -> None:
        """Continue from :meth:`state`: the main rank takes the sums of all."""
        self._sums.zero_()
        if distributed.is_main:
            self._sums.copy_(torch.tensor(sums, dtype=self._sums.dtype))


class EpochProgress:
    """Progress of one epoch, which a checkpoint can hold after any update."""

    def __init__(self, epoch: int, device: torch.device) -> None:
        self.epoch = epoch  # from 1
        self.num_updates = 0  # done in it
        self.num_tokens = 0  # of its batches so far, over all ranks
        self.all = MeanMeter(device)
        self.recent = MeanMeter(device)  # since the last logged update
        self._device = device
        self._recent_tokens = 0
        self._seconds = 0.0  # before the clock was last started
        self._started: float | None = None
        self._logged_seconds = 0.0  # at the last logged update

    def start_clock(self) -> None:
        self._started = time.perf_counter()

    def stop_clock(self) -> None:
        """Exclude the time from now on, which is not spent training."""
        self._seconds, self._started = self.seconds, None

    @property
    def seconds(self) -> float:
        """Time spent on the epoch's updates."""
        running = 0.0 if self._started is None else time.perf_counter() - self._started
        return self._seconds + running

    @property
    def recent_tokens_per_second(self) -> float:
        return self._recent_tokens / max(self.seconds - self._logged_seconds, 1e-9)

    def count(self, num_tokens: int) -> None:
        """Count an update whose batches have ``num_tokens`` tokens."""
        self.num_updates += 1
        self.num_tokens += num_tokens
        self._recent_tokens += num_tokens

    def reset_recent(self) -> None:
        """Reset what is counted from one logged update to the next."""
        self.recent = MeanMeter(self._device)
        self._recent_tokens, self._logged_seconds = 0, self.seconds

    def state(
        self, distributed: DistributedContext
    ) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        """Values and tensors for :meth:`restore`; a collective call."""
        values = {
            "epoch": self.epoch,
            "num_updates": self.num_updates,
            "num_tokens": self.num_tokens,
            "recent_tokens": self._recent_tokens,
            "seconds": self.seconds,
            "recent_seconds": self.seconds - self._logged_seconds,
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
        progress = cls(values["epoch"], device)
        progress.num_updates = values["num_updates"]
        progress.num_tokens = values["num_tokens"]
        progress._recent_tokens = values["recent_tokens"]
        progress._seconds = values["seconds"]
        progress._logged_seconds = values["seconds"] - values["recent_seconds"]
        progress.all.restore(tensors["all"], distributed)
        progress.recent.restore(tensors["recent"], distributed)
        return progress
