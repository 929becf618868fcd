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
from sentiment.runs.manifest import (
    DAMAGE,
    FORMAT_VERSION,
    check_version,
    is_baseline,
    read_manifest,
)
from sentiment.runtime.errors import UserError
from sentiment.runtime.files import atomic_write, file_sha256

BASELINE_WEIGHTS = "weights.safetensors"
_METADATA_KEY = "sentiment"


def write_tensors(
    path: Path, tensors: dict[str, torch.Tensor], values: dict[str, Any], identity: str
) -> None:
    """Write tensors and JSON values, with the run's identity, to a file atomically."""
    tensors = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    description = {"format_version": FORMAT_VERSION, "identity": identity, "values": values}
    description["sha256"] = _checksum(description, tensors)
    # One value, because safetensors writes several in no fixed order: equal runs, equal files.
    atomic_write(path, save(tensors, {_METADATA_KEY: json.dumps(description)}))


def read_tensors(path: Path, identity: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The tensors, on the CPU, and the values of a file of the run with this identity.

    A file that is damaged, has another format, or belongs to another run raises ``UserError``.
    """
    try:
        with safe_open(path, framework="pt") as file:
            description = json.loads((file.metadata() or {})[_METADATA_KEY])
            # Copies: mapped tensors would change with the file, after the checksum was checked.
            tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
        version, checksum = int(description["format_version"]), description.pop("sha256", None)
    except FileNotFoundError:
        raise
    except (SafetensorError, *DAMAGE, AttributeError) as error:
        reason = truncate(repr(error), 100)
        raise UserError(f"{path} is damaged, or not a file of this program: {reason}") from error
    check_version(path, version)
    if checksum != _checksum(description, tensors):
        raise UserError(f"{path} is damaged: its checksum does not match its content")
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
    """When in training the weights were saved, and their metrics."""

    epoch: int  # number of completed epochs
    update: int  # number of completed updates
    metrics: dict[str, Any]  # on the validation reviews, at temperature 1
    # Divisor of the logits that calibrates probabilities (sentiment.evaluation.calibration).
    temperature: float = 1.0
    # For the calibrated probability of the positive class of two (sentiment.evaluation.evaluate);
    # None with more classes, and in earlier runs.
    threshold: float | None = None


def save_weights(run: Path, name: str, model: nn.Module, checkpoint: WeightsInfo) -> None:
    """Write a model's weights to ``checkpoints/NAME`` atomically."""
    path = weights_path(run, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    values = {"checkpoint": asdict(checkpoint), "name": name}
    write_tensors(path, dict(model.state_dict()), values, read_manifest(run)["identity"])


def load_weights(run: Path, name: str, model: nn.Module) -> WeightsInfo:
    """Load the weights of ``checkpoints/NAME`` into a model, which may be on ``meta``.

    Raises as :func:`read_weights`, and if the weights belong to another model.
    """
    tensors, info = read_weights(run, name)
    path = weights_path(run, name)
    for key, parameter in model.state_dict().items():
        if key in tensors and tensors[key].dtype != parameter.dtype:
            raise UserError(f"{path} does not fit the run's settings: {key} has another data type")
    try:
        # assign: settings alone never allocate a model larger than the file.
        model.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        reason = truncate(" ".join(str(error).split()), 300)
        raise UserError(f"{path} does not fit the run's settings: {reason}") from error
    return info


def read_weights(run: Path, name: str) -> tuple[dict[str, torch.Tensor], WeightsInfo]:
    """The tensors of ``checkpoints/NAME`` by name, and when they were saved.

    Raises:
        FileNotFoundError: they do not exist.
        UserError: the file is damaged, has another format, or belongs to another run.
    """
    path = weights_path(run, name)
    if not path.is_file():
        raise FileNotFoundError(f"the run has no weights {path}: did its training end early?")
    tensors, values = read_tensors(path, read_manifest(run)["identity"])
    try:
        info = WeightsInfo(**values["checkpoint"])
        if not 0 < info.temperature < float("inf"):
            raise UserError(f"temperature is {info.temperature}")
        if info.threshold is not None and not 0 <= info.threshold <= 1:
            raise UserError(f"threshold is {info.threshold}")
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is damaged: {error}") from error
    if values.get("name") != name:
        raise UserError(f"{path} holds the weights {values.get('name')!r}: files were swapped")
    return tensors, info


def describe_weights(run: Path, name: str) -> dict[str, str]:
    """Folder, identity and digest of the weights ``name`` of a run, or of a baseline's only ones,
    for run.json.
    """
    manifest = read_manifest(run)
    path = run / BASELINE_WEIGHTS if is_baseline(manifest) else weights_path(run, name)
    return {"path": str(run), "identity": manifest["identity"], "sha256": file_sha256(path)}


def weights_path(run: Path, name: str) -> Path:
    """The file of a run's weights ``best`` or ``last``."""
    return run / "checkpoints" / name / "model.safetensors"
