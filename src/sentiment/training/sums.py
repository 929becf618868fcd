"""Sums over batches that are divided once, when they are read."""

from __future__ import annotations

import torch


class RunningSums:
    """Loss, hits and reviews added up on the device, read once in a while.

    Reading a value makes the host wait for the device; adding to it does not.
    """

    def __init__(self, device: torch.device) -> None:
        precision = torch.float32 if device.type == "mps" else torch.float64  # MPS has no fp64
        self._sums = torch.zeros(2, device=device, dtype=precision)
        self._num_reviews = 0

    def add(self, loss_sum: torch.Tensor, num_correct: torch.Tensor, num_reviews: int) -> None:
        self._sums += torch.stack((loss_sum.detach(), num_correct)).to(self._sums.dtype)
        self._num_reviews += num_reviews

    def means(self) -> tuple[float, float]:
        """Mean loss and accuracy."""
        loss, correct = (self._sums / max(1, self._num_reviews)).tolist()
        return loss, correct
