"""Sums over batches that are divided once, when they are read."""

from __future__ import annotations

import torch

from sentiment.world import World


class RunningSums:
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

    def totals(self, world: World) -> torch.Tensor:
        """(3,) the sums over all ranks, on the CPU; all ranks must ask at once."""
        return world.sum(self._sums).cpu()

    def means(self, world: World) -> tuple[float, float]:
        """Mean loss and accuracy over all ranks; all ranks must ask at once."""
        loss, correct, num_reviews = self.totals(world).tolist()
        return loss / max(1, num_reviews), correct / max(1, num_reviews)
