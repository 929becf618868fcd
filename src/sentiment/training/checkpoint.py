"""What resuming needs besides settings and vocabulary: one file, replaced in one step.

The weights stand in it beside the optimizer's state, so that no two files have to agree.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sentiment.config import TrainingConfig
from sentiment.description import read_description
from sentiment.tensor_files import read_tensors, write_tensors
from sentiment.world import World


@dataclass(frozen=True)
class TrainingState:
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


def save_state(run: Path, state: TrainingState) -> None:
    """Write the state in one step.

    Raises:
        OSError: it cannot be written; the one before stays.
    """
    path = state_path(run)
    path.parent.mkdir(exist_ok=True)
    write_tensors(path, state.tensors, state.values, read_description(run)["identity"])


def load_state(run: Path) -> TrainingState:
    """The state of an unfinished training.

    Raises:
        FileNotFoundError: there is none.
        ValueError: the file is damaged, of another format or of another run.
    """
    path = state_path(run)
    if not path.is_file():
        raise FileNotFoundError(
            f"{run} has no checkpoint to resume from, {path.name}: its training was stopped before "
            "the first one; begin it again with --overwrite"
        )
    tensors, values = read_tensors(path, read_description(run)["identity"])
    return TrainingState(values, tensors)


class Cadence:
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


def generator_states(device: torch.device, world: World) -> dict[str, torch.Tensor]:
    """The states of torch's generators on all ranks; all ranks must ask at once."""
    found = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        found["device"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        found["device"] = torch.mps.get_rng_state()
    return {
        f"{name}.{rank}": state
        for name, own in found.items()
        for rank, state in enumerate(world.gather(own))
    }


def restore_generators(states: dict[str, torch.Tensor], device: torch.device, world: World) -> None:
    """Take up the states of a training with as many ranks."""
    torch.set_rng_state(states[f"cpu.{world.rank}"])
    own = states.get(f"device.{world.rank}")
    if own is not None and device.type == "cuda":
        torch.cuda.set_rng_state(own, device)
    elif own is not None and device.type == "mps":
        torch.mps.set_rng_state(own)
