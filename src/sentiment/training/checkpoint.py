"""The trainer's state, and checkpoints to resume from."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from sentiment.config.config import TrainingConfig
from sentiment.runs.manifest import read_manifest
from sentiment.runs.weights import WeightsInfo, read_tensors, write_tensors
from sentiment.runtime.device import get_rng_state, set_rng_state
from sentiment.training.context import TrainingContext
from sentiment.training.meters import EpochProgress


@dataclass(frozen=True)
class CheckpointData:
    """Content of a checkpoint: plain values, and tensors by ``SECTION/NAME``."""

    values: dict[str, Any]
    tensors: dict[str, torch.Tensor]

    @classmethod
    def from_sections(
        cls, values: dict[str, Any], **sections: dict[str, torch.Tensor]
    ) -> CheckpointData:
        tensors = {
            f"{section}/{name}": tensor
            for section, part in sections.items()
            for name, tensor in part.items()
        }
        return cls(values, tensors)

    def section(self, name: str) -> dict[str, torch.Tensor]:
        prefix = f"{name}/"
        return {
            key.removeprefix(prefix): tensor
            for key, tensor in self.tensors.items()
            if key.startswith(prefix)
        }


def state_path(run: Path) -> Path:
    """The checkpoint of a training that is unfinished, or to which epochs can be added."""
    return run / "checkpoints" / "resume.safetensors"


def has_lost_state(run: Path) -> bool:
    """Whether an unfinished run has weights but no checkpoint to continue from."""
    return not state_path(run).exists() and any((run / "checkpoints").rglob("model.safetensors"))


def save_state(run: Path, checkpoint: CheckpointData) -> None:
    """Replace the checkpoint in one step; if it cannot be written, the previous one stays."""
    path = state_path(run)
    path.parent.mkdir(exist_ok=True)
    write_tensors(path, checkpoint.tensors, checkpoint.values, read_manifest(run)["identity"])


def load_state(run: Path) -> CheckpointData:
    """Read the checkpoint of an unfinished training.

    Raises:
        FileNotFoundError: there is none.
        UserError: the file is damaged, of another format or of another run.
    """
    path = state_path(run)
    if not path.is_file():
        raise FileNotFoundError(
            f"{run} has no checkpoint to resume from ({path.name}): its training stopped before "
            "the first one; start it again with --overwrite"
        )
    tensors, values = read_tensors(path, read_manifest(run)["identity"])
    return CheckpointData(values, tensors)


class CheckpointSchedule:
    """Decides after which updates a checkpoint is due."""

    def __init__(self, config: TrainingConfig) -> None:
        self._updates = config.checkpoint_updates
        minutes = config.checkpoint_minutes
        self._seconds = float("inf") if minutes is None else 60 * minutes
        self._last = time.monotonic()

    def is_due(self, update: int) -> bool:
        if self._updates is not None and update % self._updates == 0:
            return True
        return time.monotonic() - self._last >= self._seconds

    def restart_clock(self) -> None:
        """Count minutes from now on, because a checkpoint was just saved."""
        self._last = time.monotonic()


def generator_states(context: TrainingContext) -> dict[str, torch.Tensor]:
    """States of torch's random generators on all ranks, by ``NAME.RANK``; a collective call."""
    states = {"cpu": torch.get_rng_state()}
    if context.device.type != "cpu":
        states["device"] = get_rng_state(context.device)
    return {
        f"{name}.{rank}": state
        for name, local in states.items()
        for rank, state in enumerate(context.distributed.all_gather(local))
    }


def restore_generators(states: dict[str, torch.Tensor], context: TrainingContext) -> None:
    """Restore :func:`generator_states`, saved by the same number of ranks."""
    rank = context.distributed.rank
    torch.set_rng_state(states[f"cpu.{rank}"])
    state = states.get(f"device.{rank}")  # missing if saved on a CPU
    if state is not None and context.device.type != "cpu":
        set_rng_state(state, context.device)


# The monitored metric of an epoch and, to break ties, its NLL, with signs by which more is better.
Score = tuple[float, float]


@dataclass
class TrainerState:
    """Progress of a training, without weights and optimizer."""

    progress: EpochProgress  # of the current epoch
    best: WeightsInfo | None = None  # the best epoch so far, None before the first has ended
    num_resumed: int = 0
    _best_score: Score = (float("-inf"), float("-inf"))
    _earlier_seconds: float = 0.0
    _started: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        """Time spent, in all processes that took part."""
        return self._earlier_seconds + time.perf_counter() - self._started

    @property
    def best_epoch(self) -> int:
        """Number of the best epoch, 0 before the first has ended."""
        return 0 if self.best is None else self.best.epoch

    def end_epoch(self, finished: WeightsInfo, score: Score, following: EpochProgress) -> bool:
        """Continue with the following epoch; returns whether the finished one is the best."""
        is_best = self.best is None or score > self._best_score
        if is_best:
            self.best, self._best_score = finished, score
        self.progress = following
        return is_best

    def result(self) -> dict[str, Any]:
        """What run.json says of a finished training; seconds are of training and validation."""
        assert self.best is not None
        return {
            "seconds": round(self.seconds, 2),
            "num_epochs": self.progress.epoch - 1,
            "best_epoch": self.best.epoch,
            "num_resumed": self.num_resumed,
            "metrics": self.best.metrics,  # on the validation reviews
        }

    def values(self, finished: WeightsInfo | None) -> dict[str, Any]:
        """Values of a checkpoint; ``finished`` is the epoch that has just ended, if one has."""
        return {
            "best": None if self.best is None else asdict(self.best),
            "best_score": self._best_score[0],
            "last": None if finished is None else asdict(finished),
            "seconds": self.seconds,
            "num_resumed": self.num_resumed,
        }

    def restore(self, values: dict[str, Any], progress: EpochProgress) -> WeightsInfo | None:
        """Continue from :meth:`values`; returns the epoch that had just ended, if one had."""
        self.progress = progress
        self.best = None if values["best"] is None else WeightsInfo(**values["best"])
        if self.best is not None:
            self._best_score = values["best_score"], -self.best.metrics["nll"]
        self._earlier_seconds = values["seconds"]
        self.num_resumed = values["num_resumed"] + 1
        return None if values["last"] is None else WeightsInfo(**values["last"])
