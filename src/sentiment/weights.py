"""A model's weights in one file: written in one step, checksummed, nothing pickled."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

FORMAT_VERSION = 1
_METADATA_KEY = "sentiment"


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


def save_weights(path: Path, name: str, model: torch.nn.Module, checkpoint: Checkpoint) -> None:
    """Write a model's weights to ``checkpoints/NAME`` in one step."""
    folder = path / "checkpoints" / name
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    description = {
        "format_version": FORMAT_VERSION,
        "sha256": _tensors_sha256(tensors),
        "checkpoint": asdict(checkpoint),
    }
    new = folder / "model.safetensors.new"
    # In one value, because safetensors writes several in no fixed order: equal runs, equal files.
    save_file(tensors, new, {_METADATA_KEY: json.dumps(description)})
    os.replace(new, folder / "model.safetensors")


def load_weights(run: Path, name: str, model: nn.Module) -> Checkpoint:
    """Fill a model with the weights of ``checkpoints/NAME``.

    Raises:
        FileNotFoundError: there are none.
        ValueError: the file is damaged, of a newer format, or of another model.
    """
    path = run / "checkpoints" / name / "model.safetensors"
    if not path.is_file():
        raise FileNotFoundError(f"the run has no weights {path}: did its training end early?")
    try:
        with safe_open(path, framework="pt") as file:
            description = json.loads((file.metadata() or {})[_METADATA_KEY])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        version, digest = int(description["format_version"]), description["sha256"]
        position = Checkpoint(**description["checkpoint"])
        if not 0 < position.temperature < float("inf"):
            raise ValueError(f"temperature is {position.temperature}")
    except KeyError as error:
        raise ValueError(f"{path} is damaged, or no weights of ours: it lacks {error}") from error
    except (SafetensorError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    check_version(path, version)
    if digest != _tensors_sha256(tensors):
        raise ValueError(f"{path} is damaged: its checksum is not that of its weights")
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} does not fit the run's settings: {reason}") from error
    return position


def check_version(path: Path, version: int) -> None:
    """Refuse a file that a newer release wrote."""
    if version > FORMAT_VERSION:
        raise ValueError(
            f"{path} has format {version}, but this program reads up to {FORMAT_VERSION}: "
            "install a newer release of sentiment"
        )


def _tensors_sha256(tensors: dict[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for key in sorted(tensors):
        digest.update(f"{key} {tensors[key].dtype} {tuple(tensors[key].shape)}".encode())
        digest.update(tensors[key].numpy().data)
    return digest.hexdigest()
