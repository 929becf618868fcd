"""What all parts of a training share."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch

from sentiment.config.config import Config
from sentiment.runtime.distributed import DistributedContext


@dataclass(frozen=True)
class TrainingContext:
    """Settings, output folder, and what the training runs on.

    Attributes:
        config: all settings.
        path: the folder that the run or the pre-training is written to.
        device: where model and batches are.
        precision: of matrix products while training; validation runs in fp32.
        distributed: the ranks that train together.
    """

    config: Config
    path: Path
    device: torch.device
    precision: torch.dtype
    distributed: DistributedContext = field(default_factory=DistributedContext)
