"""Tensors and plain values in one safetensors file: written in one step, checked when read.

The values stand in the file's metadata, and with them the format, a checksum over everything and
the identity of the run that the file belongs to. Nothing is pickled, so reading executes nothing.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from sentiment.description import FORMAT_VERSION, check_version
from sentiment.places import write_whole
from sentiment.shown import shorten

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
    write_whole(path, save(tensors, {_METADATA_KEY: json.dumps(description)}))


def read_tensors(path: Path, identity: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The tensors, on the CPU, and the values of a file that belongs to a run.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, of another format or of another run.
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
        raise ValueError(f"{path} is damaged, or no file of ours: it lacks {error}") from error
    except (SafetensorError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ValueError(f"{path} is damaged: {shorten(str(error), 100)}") from error
    except RecursionError as error:
        raise ValueError(f"{path} is damaged: its metadata is nested too deep") from error
    check_version(path, version)
    if found != _checksum(description, tensors):
        raise ValueError(f"{path} is damaged: its checksum is not that of its content")
    if description.get("identity") != identity:
        raise ValueError(f"{path} belongs to another run: its files were mixed up")
    return tensors, dict(description["values"])


def _checksum(description: dict[str, Any], tensors: dict[str, torch.Tensor]) -> str:
    digest = hashlib.sha256(json.dumps(description, sort_keys=True).encode())
    for key in sorted(tensors):
        tensor = tensors[key]
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
