"""What all parts of a training share, and what a run records of how it was trained."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from sentiment.config.config import Config
from sentiment.model.classifier import describe_recurrence
from sentiment.runs.manifest import git_state, versions
from sentiment.runtime.device import describe_device
from sentiment.runtime.distributed import DistributedContext, launch_name


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


def collect_provenance(
    context: TrainingContext,
    *,
    data: dict[str, Any],
    vectors: dict[str, Any] | None,
    coverage: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """What run.json records of a training that begins now; data and vectors by fingerprint."""
    return {
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": sys.argv[1:],
        "launch": launch_name(),
        "seed": context.config.seed,
        "device": describe_device(context.device),
        "precision": str(context.precision).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "ranks": context.distributed.world_size,
        "data": data,
        "vectors": vectors,
        "vectors_coverage": coverage,
        "versions": versions(),
        "git": git_state(),
    }
