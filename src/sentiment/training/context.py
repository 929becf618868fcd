"""What all parts of a training share."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch

from sentiment.config.config import Config
from sentiment.model.classifier import describe_recurrence
from sentiment.runtime.device import describe_device
from sentiment.runtime.distributed import DistributedContext


@dataclass(frozen=True)
class TrainingContext:
    """Settings, output folder, device, precision and ranks of a training or a pre-training."""

    config: Config
    path: Path  # the output folder
    device: torch.device
    precision: torch.dtype  # of matrix products while training; validation runs in fp32
    distributed: DistributedContext = field(default_factory=DistributedContext)

    def describe(self) -> str:
        """The device, the precision and how the recurrence is computed, for a log line."""
        model, precision = self.config.model, str(self.precision).removeprefix("torch.")
        how = describe_recurrence(model.cell, model.implementation, self.device, self.precision)
        return f"{describe_device(self.device)}, {precision}, {how}"
