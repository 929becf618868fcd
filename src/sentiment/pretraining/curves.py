"""What a pre-training tells TensorBoard."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter

from sentiment.training.event_files import measure_files, rewind_files

_NAMES = ("forward", "backward")  # one of them where there is one direction


class Curves:
    """Writes the course of a pre-training.

    Args:
        path: its folder.
        directions: of the language model.
        device: where losses are added up.
        state: what :meth:`state` returned at a checkpoint: whatever was written after it goes.

    Attributes:
        last: the last point in words, None before the first.
    """

    def __init__(
        self,
        path: Path,
        directions: int,
        device: torch.device,
        state: dict[str, Any] | None = None,
    ) -> None:
        self._folder = path / "tensorboard" / "pretraining"
        self.last: str | None = None
        precision = torch.float32 if device.type == "mps" else torch.float64  # MPS has no fp64
        # Of each direction's losses, then of the gradients' norms. Summed on the device: looking at
        # a number would wait for it.
        self._sums = torch.zeros(directions + 1, dtype=precision, device=device)
        self._begin_point()
        if state is not None:
            rewind_files(self._folder, state["files"])
            self._sums += torch.tensor(state["sums"], dtype=precision).to(device)
            self._num_words = state["num_words"]
        self._writer = SummaryWriter(str(self._folder))

    def add(self, losses: torch.Tensor, norm: torch.Tensor, num_words: int, num_read: int) -> None:
        """An update is done.

        Args:
            losses: (directions,) sums of the sampled losses.
            norm: () the gradient's norm.
            num_words: words that were foretold.
            num_read: words that were read.
        """
        self._sums[:-1] += losses
        self._sums[-1] += norm
        self._num_words += num_words
        self._num_read += num_read

    def point(self, update: int, learning_rate: float) -> None:
        """A point of the curves by update.

        Raises:
            ValueError: the loss is not finite.
        """
        self.check()
        sums = self._sums[:-1]
        means = (sums * len(sums) / self._num_words).tolist()
        speed = self._num_read / max(1e-9, time.perf_counter() - self._started)
        for name, mean in zip(_NAMES, means, strict=False):
            self._writer.add_scalar(f"pretraining/sampled_loss_{name}", mean, update)
        self._writer.add_scalar("pretraining/learning_rate", learning_rate, update)
        self._writer.add_scalar("pretraining/words_per_second", speed, update)
        self.last = f"loss {sum(means) / len(means):.3f}, {speed:,.0f} words/s"
        self._begin_point()

    def perplexities(self, update: int, values: Sequence[float]) -> None:
        """What was measured on validation reviews, by direction."""
        for name, value in zip(_NAMES, values, strict=False):
            self._writer.add_scalar(f"perplexity/{name}", value, update)

    def check(self) -> None:
        """Raise ``ValueError`` if a loss or gradient since the last point is not finite."""
        if not math.isfinite(float(self._sums.sum())):
            raise ValueError(
                "pre-training's loss or gradient is not finite: lower pretraining.learning_rate "
                "and begin again"
            )

    def state(self) -> dict[str, Any]:
        """What is written up to here, written through to the disk."""
        self._writer.flush()
        return {
            "files": measure_files(self._folder),
            "sums": self._sums.tolist(),
            "num_words": self._num_words,
        }

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()

    def _begin_point(self) -> None:
        self._sums.zero_()
        self._num_words = self._num_read = 0
        self._started = time.perf_counter()
