"""Tensors and plain values in safetensors files: checksummed, versioned, never pickled."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from sentiment.display.console import truncate
from sentiment.runs.manifest import FORMAT_VERSION, check_version, read_manifest
from sentiment.runtime.errors import UserError
from sentiment.runtime.files import atomic_write

_METADATA_KEY = "sentiment"


def write_tensors(
    path: Path, tensors: dict[str, torch.Tensor], values: dict[str, Any], identity: str
) -> None:
    """Write a file in one step.

    Args:
        path: the file.
        tensors: of any device.
        values: what JSON can hold, infinities included.
        identity: of the run.

    Raises:
        OSError: it cannot be written; what was there stays.
    """
    tensors = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    description = {"format_version": FORMAT_VERSION, "identity": identity, "values": values}
    description["sha256"] = _checksum(description, tensors)
    # In one value, because safetensors writes several in no fixed order: equal runs, equal files.
    atomic_write(path, save(tensors, {_METADATA_KEY: json.dumps(description)}))


def read_tensors(path: Path, identity: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The tensors, on the CPU, and the values of a file that belongs to a run.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: it is damaged, of another format or of another run.
    """
    try:
        with safe_open(path, framework="pt") as file:
            description = json.loads((file.metadata() or {})[_METADATA_KEY])
            # Copies: what is only mapped would change with the file, after it was checked.
            tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
        version, found = int(description["format_version"]), description.pop("sha256", None)
    except FileNotFoundError:
        raise
    except KeyError as error:
        raise UserError(f"{path} is damaged, or no file of ours: it lacks {error}") from error
    except (SafetensorError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UserError(f"{path} is damaged: {truncate(str(error), 100)}") from error
    except RecursionError as error:
        raise UserError(f"{path} is damaged: its metadata is nested too deep") from error
    check_version(path, version)
    if found != _checksum(description, tensors):
        raise UserError(f"{path} is damaged: its checksum is not that of its content")
    if description.get("identity") != identity:
        raise UserError(f"{path} belongs to another run: its files were mixed up")
    return tensors, dict(description["values"])


def _checksum(description: dict[str, Any], tensors: dict[str, torch.Tensor]) -> str:
    digest = hashlib.sha256(json.dumps(description, sort_keys=True).encode())
    for key in sorted(tensors):
        tensor = tensors[key]
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


@dataclass(frozen=True)
class WeightsInfo:
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


def save_weights(run: Path, name: str, model: torch.nn.Module, checkpoint: WeightsInfo) -> None:
    """Write a model's weights to ``checkpoints/NAME`` in one step.

    Raises:
        OSError: they cannot be written; those that were there stay.
    """
    path = weights_path(run, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    values = {"checkpoint": asdict(checkpoint), "name": name}
    write_tensors(path, dict(model.state_dict()), values, read_manifest(run)["identity"])


def load_weights(run: Path, name: str, model: nn.Module) -> WeightsInfo:
    """Give a model the weights of ``checkpoints/NAME``; it may be a bare one, on ``meta``.

    Raises:
        FileNotFoundError: there are none.
        UserError: the file is damaged, of another format, of another run or of another model.
    """
    tensors, position = read_weights(run, name)
    path = weights_path(run, name)
    if any(tensors[key].dtype != own.dtype for key, own in model.state_dict().items()
           if key in tensors):  # fmt: skip
        raise UserError(f"{path} does not fit the run's settings: its numbers are of another kind")
    try:
        # The file's own tensors, so that settings alone never make a model larger than the file.
        model.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        reason = truncate(" ".join(str(error).split()), 300)
        raise UserError(f"{path} does not fit the run's settings: {reason}") from error
    return position


def read_position(run: Path, name: str) -> WeightsInfo:
    """Where training stood at ``checkpoints/NAME``; raises what :func:`load_weights` does."""
    return read_weights(run, name)[1]


def read_weights(run: Path, name: str) -> tuple[dict[str, torch.Tensor], WeightsInfo]:
    """The tensors of ``checkpoints/NAME`` by name, and where training stood.

    Raises:
        FileNotFoundError: there are none.
        UserError: the file is damaged, of another format or of another run.
    """
    path = weights_path(run, name)
    if not path.is_file():
        raise FileNotFoundError(f"the run has no weights {path}: did its training end early?")
    tensors, values = read_tensors(path, read_manifest(run)["identity"])
    try:
        position = WeightsInfo(**values["checkpoint"])
        if not 0 < position.temperature < float("inf"):
            raise UserError(f"temperature is {position.temperature}")
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is damaged: {error}") from error
    if values.get("name") != name:
        raise UserError(f"{path} holds the weights {values.get('name')!r}: they were swapped")
    return tensors, position


def weights_path(run: Path, name: str) -> Path:
    """Where a run keeps the weights of a name."""
    return run / "checkpoints" / name / "model.safetensors"
