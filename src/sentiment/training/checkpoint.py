"""Checkpoints, and the trainer's state that they hold."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from sentiment.config.config import TrainingConfig
from sentiment.model import SentimentClassifier
from sentiment.runs.manifest import read_manifest
from sentiment.runs.weights import WeightsInfo, read_tensors, write_tensors
from sentiment.runtime.device import mixed_seed
from sentiment.runtime.distributed import DistributedContext
from sentiment.training.meters import EpochProgress
from sentiment.training.step import TrainStep


@dataclass(frozen=True)
class CheckpointData:
    """Where training stands.

    Attributes:
        values: numbers and names by section.
        tensors: by ``SECTION/NAME``.
    """

    values: dict[str, Any]
    tensors: dict[str, torch.Tensor]

    def section(self, name: str) -> dict[str, torch.Tensor]:
        """The tensors of a section, by their own names."""
        prefix = f"{name}/"
        return {
            key.removeprefix(prefix): tensor
            for key, tensor in self.tensors.items()
            if key.startswith(prefix)
        }


def state_path(run: Path) -> Path:
    """Where the state of an unfinished training lies."""
    return run / "checkpoints" / "resume.safetensors"


def has_lost_state(run: Path) -> bool:
    """Whether a run that is not finished has weights, but no state to go on from."""
    return not state_path(run).exists() and any((run / "checkpoints").rglob("model.safetensors"))


def save_state(run: Path, state: CheckpointData) -> None:
    """Write the state in one step.

    Raises:
        OSError: it cannot be written; the one before stays.
    """
    path = state_path(run)
    path.parent.mkdir(exist_ok=True)
    write_tensors(path, state.tensors, state.values, read_manifest(run)["identity"])


def load_state(run: Path) -> CheckpointData:
    """The state of an unfinished training.

    Raises:
        FileNotFoundError: there is none.
        UserError: the file is damaged, of another format or of another run.
    """
    path = state_path(run)
    if not path.is_file():
        raise FileNotFoundError(
            f"{run} has no checkpoint to resume from, {path.name}: its training was stopped before "
            "the first one; begin it again with --overwrite"
        )
    tensors, values = read_tensors(path, read_manifest(run)["identity"])
    return CheckpointData(values, tensors)


class CheckpointSchedule:
    """When the next checkpoint is due.

    Args:
        config: how many updates or minutes lie between two.
    """

    def __init__(self, config: TrainingConfig) -> None:
        self._updates = config.checkpoint_updates
        minutes = config.checkpoint_minutes
        self._seconds = float("inf") if minutes is None else 60 * minutes
        self._last = time.monotonic()

    def is_due(self, update: int) -> bool:
        """Whether one is, after so many updates."""
        if self._updates is not None and update % self._updates == 0:
            return True
        return time.monotonic() - self._last >= self._seconds

    def note(self) -> None:
        """One is written."""
        self._last = time.monotonic()


def generator_states(
    device: torch.device, distributed: DistributedContext
) -> dict[str, torch.Tensor]:
    """The states of torch's generators on all ranks; all ranks must ask at once."""
    found = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        found["device"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        found["device"] = torch.mps.get_rng_state()
    return {
        f"{name}.{rank}": state
        for name, own in found.items()
        for rank, state in enumerate(distributed.all_gather(own))
    }


def restore_generators(
    states: dict[str, torch.Tensor], device: torch.device, distributed: DistributedContext
) -> None:
    """Take up the states of a training with as many ranks."""
    torch.set_rng_state(states[f"cpu.{distributed.rank}"])
    own = states.get(f"device.{distributed.rank}")
    if own is not None and device.type == "cuda":
        torch.cuda.set_rng_state(own, device)
    elif own is not None and device.type == "mps":
        torch.mps.set_rng_state(own)


@dataclass(frozen=True)
class FitResult:
    """What training came to.

    Attributes:
        best_epoch: the best epoch.
        best_metrics: its figures on the validation reviews, by name.
        num_epochs: epochs trained.
        seconds: time spent training and validating, in all processes that had a part in it.
        num_resumed: how often it was taken up again, by processes whose work was kept.
    """

    best_epoch: int
    best_metrics: dict[str, Any]
    num_epochs: int
    seconds: float
    num_resumed: int

    def entry(self) -> dict[str, Any]:
        """What it adds to run.json."""
        return {
            "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "seconds": round(self.seconds, 2),
            "num_epochs": self.num_epochs,
            "best_epoch": self.best_epoch,
            "num_resumed": self.num_resumed,
            "metrics": self.best_metrics,
        }


class TrainerState:
    """Model, optimizer, position, best epoch.

    Args:
        model: the classifier.
        updates: what trains it.
        device: where.
        world: the ranks.

    Attributes:
        progress: the epoch that has been reached, and how far it has come.
        best: where the best epoch stood, None before the first has ended.
        num_resumed: how often training was taken up again.
    """

    def __init__(
        self,
        model: SentimentClassifier,
        updates: TrainStep,
        device: torch.device,
        distributed: DistributedContext,
    ) -> None:
        self._model = model
        self._updates = updates
        self._device = device
        self._distributed = distributed
        self.progress = EpochProgress(1, device)
        self.best: WeightsInfo | None = None
        self.num_resumed = 0
        self._best_score = float("-inf")
        self._earlier_seconds = 0.0
        self._started = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Time spent, in all processes that had a part in it."""
        return self._earlier_seconds + time.perf_counter() - self._started

    @property
    def best_epoch(self) -> int:
        """0 before the first has ended."""
        return 0 if self.best is None else self.best.epoch

    def is_better(self, score: float) -> bool:
        """Whether a score is the best so far."""
        return self.best is None or score > self._best_score

    def end_epoch(self, last: WeightsInfo, score: float) -> None:
        """An epoch is over and measured; the next one begins."""
        if self.is_better(score):
            self.best, self._best_score = last, score
        self.progress = EpochProgress(last.epoch + 1, self._device)

    def result(self) -> FitResult:
        """What it has come to, when it is over."""
        assert self.best is not None
        return FitResult(
            best_epoch=self.best.epoch,
            best_metrics=self.best.metrics,
            num_epochs=self.progress.epoch - 1,
            seconds=self.seconds,
            num_resumed=self.num_resumed,
        )

    def state(self, journal: dict[str, Any], last: WeightsInfo | None) -> CheckpointData:
        """All of it; all ranks must ask at once.

        Args:
            journal: what is written.
            last: the epoch that is just over, if one is.
        """
        updates, moments = self._updates.state()
        progress, sums = self.progress.state(self._distributed)
        sections = {
            "model": self._model.state_dict(),
            "optimizer": moments,
            "average": {} if self._updates.average is None else self._updates.average.state(),
            "sums": sums,
            "generators": generator_states(self._device, self._distributed),
        }
        values = {
            "updates": updates,
            "progress": progress,
            "best": None if self.best is None else asdict(self.best),
            "best_score": self._best_score,
            "last": None if last is None else asdict(last),
            "seconds": self.seconds,
            "num_resumed": self.num_resumed,
            "num_ranks": self._distributed.world_size,
            "device": self._device.type,
            "journal": journal,
        }
        tensors = {
            f"{section}/{name}": tensor
            for section, part in sections.items()
            for name, tensor in part.items()
        }
        return CheckpointData(values, tensors)

    def restore(self, state: CheckpointData) -> WeightsInfo | None:
        """Take up what :meth:`state` returned; returns the epoch that was just over, if any.

        With another number of ranks, or on another device, random numbers go other ways.
        """
        values = state.values
        self._model.load_state_dict(state.section("model"))
        self._updates.restore(values["updates"], state.section("optimizer"))
        if self._updates.average is not None:
            self._updates.average.restore(state.section("average"))
        self.progress = EpochProgress.restore(
            values["progress"], state.section("sums"), self._device, self._distributed
        )
        if (
            values["num_ranks"] == self._distributed.world_size
            and values["device"] == self._device.type
        ):
            restore_generators(state.section("generators"), self._device, self._distributed)
        else:
            update = values["updates"]["update"]
            torch.manual_seed(mixed_seed(torch.initial_seed(), update, self._distributed.rank))
        self.best = None if values["best"] is None else WeightsInfo(**values["best"])
        self._best_score = values["best_score"]
        self._earlier_seconds = values["seconds"]
        self.num_resumed = values["num_resumed"] + 1
        return None if values["last"] is None else WeightsInfo(**values["last"])
