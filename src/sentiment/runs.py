"""A run's folder, as whoever reads it needs it: settings, vocabulary, classes, weights.

    config.yaml                         all settings, reusable as --config
    run.json                            format, classes, vocabulary's checksum, vectors' coverage
    vocabulary.txt                      a word and its count a line, in the order of ids
    checkpoints/{best,last}/model.safetensors
    metrics.json, train.log, tensorboard/, evaluation/

A run rebuilds its model alone: evaluating and predicting need this folder and nothing of training.
Files are written beside their place and renamed into it, carry a format version and a checksum,
and are text or safetensors: loading one executes nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torchtext.vocab import Vocab

from sentiment.config import Config, ModelConfig
from sentiment.model import SentimentClassifier
from sentiment.settings import load_config, save_config
from sentiment.text.vocabulary import load_vocabulary, save_vocabulary

FORMAT_VERSION = 1
_METADATA_KEY = "sentiment"
# What a run consists of: all that overwriting one may remove.
_CONTENTS = (
    "config.yaml",
    "run.json",
    "vocabulary.txt",
    "metrics.json",
    "train.log",
    "checkpoints",
    "tensorboard",
    "evaluation",
)


@dataclass(frozen=True)
class Checkpoint:
    """Where training stood when weights were saved."""

    epoch: int
    update: int
    metrics: dict[str, Any]


@dataclass(frozen=True)
class Run:
    """A trained run, ready to be used."""

    path: Path
    config: Config
    class_names: tuple[str, ...]
    vocabulary: Vocab
    model: SentimentClassifier
    checkpoint: Checkpoint


def create_run(path: Path, *, overwrite: bool = False) -> None:
    """Make an empty run folder.

    Raises:
        FileExistsError: the folder is not empty and overwriting was not asked for, or it holds
            something else than a run.
        NotADirectoryError: the path is a file.
    """
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(f"{path} is a file: choose another output_dir")
    if path.is_dir() and any(path.iterdir()):
        if not overwrite:
            raise FileExistsError(
                f"{path} is not empty: choose another output_dir, or replace the run in it with "
                "--overwrite"
            )
        if not (path / "config.yaml").is_file():
            raise FileExistsError(
                f"{path} is not empty and holds no run, so nothing in it will be overwritten: "
                "choose another output_dir"
            )
        for name in _CONTENTS:
            if (path / name).is_dir():
                shutil.rmtree(path / name)
            else:
                (path / name).unlink(missing_ok=True)
    path.mkdir(parents=True, exist_ok=True)


def describe_run(
    path: Path,
    config: Config,
    class_names: tuple[str, ...],
    vocabulary: Vocab,
    coverage: dict[str, Any] | None,
) -> None:
    """Write everything about a run but its weights."""
    save_config(config, path / "config.yaml")
    save_vocabulary(vocabulary, path / "vocabulary.txt")
    write_json(
        path / "run.json",
        {
            "format_version": FORMAT_VERSION,
            "class_names": list(class_names),
            "vocabulary_sha256": _sha256(path / "vocabulary.txt"),
            "vectors_coverage": coverage,
        },
    )


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write a JSON file in one step: readers see the old one or the new one."""
    new = path.with_name(path.name + ".new")
    new.write_text(json.dumps(values, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(new, path)


def build_model(
    config: ModelConfig,
    *,
    vocabulary_size: int,
    num_classes: int,
    vectors: torch.Tensor | None = None,
    freeze_embedding: bool = False,
) -> SentimentClassifier:
    """The classifier that the settings describe."""
    return SentimentClassifier(
        vocabulary_size=vocabulary_size,
        num_classes=num_classes,
        vectors=vectors,
        freeze_embedding=freeze_embedding,
        **asdict(config),
    )


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


def load_run(path: Path, *, checkpoint: str = "best") -> Run:
    """Rebuild a run's model on the CPU, in evaluation mode.

    Raises:
        FileNotFoundError: the folder is not a run, or a file of it is missing.
        ValueError: a file is damaged, of a newer format, or does not fit the others.
    """
    if not (path / "run.json").is_file():
        hint = "" if path.is_dir() else " (there is no such folder)"
        raise FileNotFoundError(f"{path} is not a run{hint}: it has no run.json")
    description = _read_description(path / "run.json")
    config = load_config(path / "config.yaml")
    vocabulary = load_vocabulary(path / "vocabulary.txt")
    if _sha256(path / "vocabulary.txt") != description["vocabulary_sha256"]:
        raise ValueError(f"{path / 'vocabulary.txt'} is not the one this run was trained with")
    class_names = tuple(description["class_names"])
    model = build_model(config.model, vocabulary_size=len(vocabulary), num_classes=len(class_names))
    position = _load_weights(path / "checkpoints" / checkpoint / "model.safetensors", model)
    return Run(path, config, class_names, vocabulary, model.eval(), position)


def _read_description(path: Path) -> dict[str, Any]:
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
        version = description["format_version"]
        names = description["class_names"]
        is_valid = isinstance(version, int) and isinstance(description["vocabulary_sha256"], str)
        is_valid = is_valid and len(names) >= 2 and all(isinstance(name, str) for name in names)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged: {error!r}") from error
    if not is_valid:
        raise ValueError(f"{path} is damaged: a value is not of its kind")
    _check_version(path, version)
    return description


def _check_version(path: Path, version: int) -> None:
    if version > FORMAT_VERSION:
        raise ValueError(
            f"{path} has format {version}, but this program reads up to {FORMAT_VERSION}: "
            "install a newer release of sentiment"
        )


def _load_weights(path: Path, model: SentimentClassifier) -> Checkpoint:
    if not path.is_file():
        raise FileNotFoundError(f"the run has no weights {path}: did its training end early?")
    try:
        with safe_open(path, framework="pt") as file:
            description = json.loads((file.metadata() or {})[_METADATA_KEY])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        version, digest = int(description["format_version"]), description["sha256"]
        position = Checkpoint(**description["checkpoint"])
    except KeyError as error:
        raise ValueError(f"{path} is damaged, or no weights of ours: it lacks {error}") from error
    except (SafetensorError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    _check_version(path, version)
    if digest != _tensors_sha256(tensors):
        raise ValueError(f"{path} is damaged: its checksum is not that of its weights")
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} does not fit the run's settings: {reason}") from error
    return position


def _tensors_sha256(tensors: dict[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for key in sorted(tensors):
        digest.update(f"{key} {tensors[key].dtype} {tuple(tensors[key].shape)}".encode())
        digest.update(tensors[key].numpy().data)
    return digest.hexdigest()


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
