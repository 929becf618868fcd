"""A model's weights in one file: written in one step, checksummed, nothing pickled."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sentiment.description import read_description
from sentiment.shown import shorten
from sentiment.tensor_files import read_tensors, write_tensors


@dataclass(frozen=True)
class Checkpoint:
    """Where training stood when weights were saved.

    Attributes:
        epoch, update: how far it had come.
        metrics: on the validation reviews, at temperature 1.
        temperature: what logits are divided by for probabilities to be calibrated, fitted on the
            validation reviews (:mod:`sentiment.evaluation.calibration`).
    """

    epoch: int
    update: int
    metrics: dict[str, Any]
    temperature: float = 1.0


def save_weights(run: Path, name: str, model: torch.nn.Module, checkpoint: Checkpoint) -> None:
    """Write a model's weights to ``checkpoints/NAME`` in one step.

    Raises:
        OSError: they cannot be written; those that were there stay.
    """
    path = weights_path(run, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    values = {"checkpoint": asdict(checkpoint), "name": name}
    write_tensors(path, dict(model.state_dict()), values, read_description(run)["identity"])


def load_weights(run: Path, name: str, model: nn.Module) -> Checkpoint:
    """Give a model the weights of ``checkpoints/NAME``; it may be a bare one, on ``meta``.

    Raises:
        FileNotFoundError: there are none.
        ValueError: the file is damaged, of another format, of another run or of another model.
    """
    tensors, position = read_weights(run, name)
    path = weights_path(run, name)
    if any(tensors[key].dtype != own.dtype for key, own in model.state_dict().items()
           if key in tensors):  # fmt: skip
        raise ValueError(f"{path} does not fit the run's settings: its numbers are of another kind")
    try:
        # The file's own tensors, so that settings alone never make a model larger than the file.
        model.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        reason = shorten(" ".join(str(error).split()), 300)
        raise ValueError(f"{path} does not fit the run's settings: {reason}") from error
    return position


def read_position(run: Path, name: str) -> Checkpoint:
    """Where training stood at ``checkpoints/NAME``; raises what :func:`load_weights` does."""
    return read_weights(run, name)[1]


def read_weights(run: Path, name: str) -> tuple[dict[str, torch.Tensor], Checkpoint]:
    """The tensors of ``checkpoints/NAME`` by name, and where training stood.

    Raises:
        FileNotFoundError: there are none.
        ValueError: the file is damaged, of another format or of another run.
    """
    path = weights_path(run, name)
    if not path.is_file():
        raise FileNotFoundError(f"the run has no weights {path}: did its training end early?")
    tensors, values = read_tensors(path, read_description(run)["identity"])
    try:
        position = Checkpoint(**values["checkpoint"])
        if not 0 < position.temperature < float("inf"):
            raise ValueError(f"temperature is {position.temperature}")
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if values.get("name") != name:
        raise ValueError(f"{path} holds the weights {values.get('name')!r}: they were swapped")
    return tensors, position


def weights_path(run: Path, name: str) -> Path:
    """Where a run keeps the weights of a name."""
    return run / "checkpoints" / name / "model.safetensors"
