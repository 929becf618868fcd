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
        state: what :meth:`state` returned at a checkpoint: whatever was written after it goes.

    Attributes:
        last: the last point in words, None before the first.
    """

    def __init__(self, path: Path, state: dict[str, Any] | None = None) -> None:
        self._folder = path / "tensorboard" / "pretraining"
        self.last: str | None = None
        self._sums: torch.Tensor | None
        self._begin_point()
        if state is not None:
            rewind_files(self._folder, state["files"])
            self._sums = None if state["sums"] is None else torch.tensor(state["sums"])
            self._num_words = state["num_words"]
        self._writer = SummaryWriter(str(self._folder))

    def add(self, losses: torch.Tensor, num_words: int, num_read: int) -> None:
        """An update is done.

        Args:
            losses: (directions,) sums of the sampled losses.
            num_words: words that were foretold.
            num_read: words that were read.
        """
        # Summed on the device: looking at a number would wait for it.
        self._sums = losses.double() if self._sums is None else self._sums + losses
        self._num_words += num_words
        self._num_read += num_read

    def point(self, update: int, learning_rate: float) -> None:
        """A point of the curves by update.

        Raises:
            ValueError: the loss is not finite.
        """
        self.check()
        if self._sums is None or self._num_words == 0:
            return
        means = (self._sums * len(self._sums) / self._num_words).tolist()
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
        """Raise ``ValueError`` if a loss since the last point is not finite."""
        if self._sums is not None and not math.isfinite(float(self._sums.sum())):
            raise ValueError(
                "pre-training's loss is not finite: lower pretraining.learning_rate or "
                "pretraining.gradient_clip; the last checkpoint is from before"
            )

    def state(self) -> dict[str, Any]:
        """What is written up to here, written through to the disk."""
        self._writer.flush()
        return {
            "files": measure_files(self._folder),
            "sums": None if self._sums is None else self._sums.tolist(),
            "num_words": self._num_words,
        }

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()

    def _begin_point(self) -> None:
        self._sums = None
        self._num_words = self._num_read = 0
        self._started = time.perf_counter()
