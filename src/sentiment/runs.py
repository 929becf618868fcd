"""A run's folder, as whoever reads it needs it: settings, vocabulary, classes, weights.

    config.yaml                         all settings, reusable as --config
    run.json                            format, classes, vocabulary's checksum, vectors' coverage
    vocabulary.txt                      a word and its count a line, in the order of ids
    checkpoints/{best,last}/model.safetensors
    metrics.json, train.log, tensorboard/, evaluation/, explanations/

A run rebuilds its model alone: evaluating and predicting need this folder and nothing of training.
run.json holds the checksums of the settings and the vocabulary, weights hold their own; both carry
a format version. All files are text or safetensors: loading one executes nothing.
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
from torchtext.vocab import Vocab

from sentiment.config import Config, ModelConfig
from sentiment.model import SentimentClassifier
from sentiment.settings import load_config, save_config
from sentiment.text.vocabulary import load_vocabulary, save_vocabulary
from sentiment.weights import FORMAT_VERSION, Checkpoint, check_version, load_weights

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
    "explanations",
)


@dataclass(frozen=True)
class Run:
    """A trained run, ready to be used."""

    path: Path
    config: Config
    class_names: tuple[str, ...]
    vocabulary: Vocab
    model: SentimentClassifier
    checkpoint: Checkpoint


def check_place(path: Path, *, overwrite: bool = False) -> None:
    """Check that a run may be written to a folder, and write nothing.

    Raises:
        FileExistsError: the folder is not empty and overwriting was not asked for, or it holds
            something else than a run.
        NotADirectoryError: the path, or one above it, is a file.
        PermissionError: nothing can be written there.
    """
    check_writable(path)
    if path.is_dir() and any(path.iterdir()):
        if not overwrite:
            raise FileExistsError(
                f"{path} is not empty: choose another output_dir, or replace the run in it with "
                "--overwrite"
            )
        if not _is_run(path):
            raise FileExistsError(
                f"{path} is not empty and holds no run, so nothing in it will be overwritten: "
                "choose another output_dir"
            )


def check_writable(path: Path) -> None:
    """Check that files may be written to a folder that there may not be yet.

    Raises:
        NotADirectoryError: the path, or one above it, is a file.
        PermissionError: nothing can be written there.
    """
    there = next(each for each in (path, *path.absolute().parents) if each.exists())
    if not there.is_dir():
        raise NotADirectoryError(f"{there} is a file: choose another folder to write to")
    if not os.access(there, os.W_OK | os.X_OK):
        raise PermissionError(f"nothing can be written in {there}: choose another folder")


def _is_run(path: Path) -> bool:
    try:
        _read_description(path / "run.json")
    except (OSError, ValueError):
        return False
    return True


def create_run(
    path: Path,
    config: Config,
    class_names: tuple[str, ...],
    vocabulary: Vocab,
    coverage: dict[str, Any] | None = None,
    *,
    overwrite: bool = False,
) -> None:
    """Make a run's folder with everything about the run but its weights.

    Raises:
        OSError: as :func:`check_place` says.
    """
    check_place(path, overwrite=overwrite)
    for name in _CONTENTS:
        if (path / name).is_dir():
            shutil.rmtree(path / name)
        else:
            (path / name).unlink(missing_ok=True)
    path.mkdir(parents=True, exist_ok=True)
    save_config(config, path / "config.yaml")
    save_vocabulary(vocabulary, path / "vocabulary.txt")
    write_json(
        path / "run.json",
        {
            "format_version": FORMAT_VERSION,
            "class_names": list(class_names),
            "config_sha256": _sha256(path / "config.yaml"),
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


def load_run(path: Path, *, checkpoint: str = "best") -> Run:
    """Rebuild a run's model on the CPU, in evaluation mode.

    Raises:
        FileNotFoundError: the folder is not a run, or a file of it is missing.
        ValueError: a file is damaged, of a newer format, or does not fit the others.
    """
    if not (path / "run.json").is_file():
        hint = "" if path.exists() else " (there is no such folder)"
        raise FileNotFoundError(f"{path} is not a run{hint}: it has no run.json")
    description = _read_description(path / "run.json")
    config = load_config(path / "config.yaml")
    vocabulary = load_vocabulary(path / "vocabulary.txt")
    for name in ("config.yaml", "vocabulary.txt"):
        if _sha256(path / name) != description[f"{name.partition('.')[0]}_sha256"]:
            raise ValueError(f"{path / name} is not the one this run was trained with")
    class_names = tuple(description["class_names"])
    model = build_model(config.model, vocabulary_size=len(vocabulary), num_classes=len(class_names))
    position = load_weights(path, checkpoint, model)
    return Run(path, config, class_names, vocabulary, model.eval(), position)


def _read_description(path: Path) -> dict[str, Any]:
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
        version, names = int(description["format_version"]), description["class_names"]
        texts = [*names, description["config_sha256"], description["vocabulary_sha256"]]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: {error!r}") from error
    check_version(path, version)
    if len(names) < 2 or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{path} is damaged: a value is not of its kind")
    return description


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
