"""A run's folder, as whoever reads it needs it: settings, vocabulary, classes, weights.

    config.yaml                         all settings, reusable as --config
    run.json                            format, classes, checksums, and the receipt: data, versions,
                                        device, revision, wall time, final metrics
    vocabulary.txt                      a word and its count a line, in the order of ids
    checkpoints/{best,last}/model.safetensors
    checkpoints/resume.safetensors      while training is unfinished: what --resume needs
    checkpoints/soft_labels.safetensors what teachers said of unlabelled reviews, if there are any
    metrics.json, train.log, tensorboard/, evaluation/, explanations/

A run rebuilds its model alone: evaluating and predicting need this folder and nothing of training.
run.json holds the checksums of itself, the settings and the vocabulary; weights and checkpoints
hold their own, and the identity of the run they belong to. All carry a format version. All files
are text or safetensors: loading one executes nothing.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torchtext.vocab import Vocab

from sentiment.config.config import Config, ModelConfig, deciding_settings
from sentiment.config.parser import load_config, save_config
from sentiment.data.vocabulary import load_vocabulary, save_vocabulary, token_counts
from sentiment.model import SentimentClassifier
from sentiment.runs.manifest import (
    FORMAT_VERSION,
    is_baseline,
    is_pretraining,
    read_manifest,
    require_run,
    write_manifest,
)
from sentiment.runs.weights import WeightsInfo, load_weights
from sentiment.runtime.errors import UserError
from sentiment.runtime.files import LOCK, check_links, check_writable

# Stands in a folder while a run is made there, so that another training may do it over.
HALF_MADE = ".begun"
# What a run consists of: all that overwriting one may remove, what makes it one first.
_CONTENTS = (
    "run.json",
    "config.yaml",
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
    checkpoint: WeightsInfo


def check_place(path: Path, *, overwrite: bool = False, for_pretraining: bool = False) -> None:
    """Check that a run may be written to a folder, and write nothing.

    Args:
        path: the folder.
        overwrite: whether a run that is there may be replaced.
        for_pretraining: whether it is a pre-training, which alone may replace another.

    Raises:
        FileExistsError: the folder is not empty and overwriting was not asked for, or it holds
            something else than a run.
        NotADirectoryError: the path, or one above it, is a file.
        PermissionError: nothing can be written there.
    """
    check_writable(path)
    if (path / HALF_MADE).exists():
        return  # by a training that was killed before it began
    if path.is_dir() and any(each.name != LOCK for each in path.iterdir()):
        description = _readable_description(path)
        if is_pretraining(description or {}) and not for_pretraining:
            raise FileExistsError(
                f"{path} holds a pre-training: start from it with --pretraining.path {path}, or "
                "choose another output_dir"
            )
        if is_baseline(description or {}):
            raise FileExistsError(
                f"{path} holds a baseline, which no training replaces: choose another output_dir"
            )
        if not overwrite and for_pretraining:
            raise FileExistsError(
                f"{path} is not empty and holds no pre-training: choose another output_dir"
            )
        if not overwrite:
            raise FileExistsError(
                f"{path} is not empty: choose another output_dir, or replace the run in it with "
                "--overwrite"
            )
        if description is None:
            raise FileExistsError(
                f"{path} is not empty and holds no run, so nothing in it will be overwritten: "
                "choose another output_dir"
            )


def _readable_description(path: Path) -> dict[str, Any] | None:
    """What run.json says; None where there is none that can be read."""
    try:
        return read_manifest(path)
    except (OSError, ValueError):
        return None


def create_run(
    path: Path,
    config: Config,
    class_names: tuple[str, ...],
    vocabulary: Vocab,
    receipt: dict[str, Any] | None = None,
    *,
    overwrite: bool = False,
) -> None:
    """Make a run's folder with everything about the run but its weights.

    Args:
        path: the folder.
        config, class_names, vocabulary: what the run's model is rebuilt from.
        receipt: what else run.json is to say of where the run comes from.
        overwrite: whether a run that is there may be replaced.

    Raises:
        OSError: as :func:`check_place` says.
    """
    check_place(path, overwrite=overwrite, for_pretraining=is_pretraining(receipt or {}))
    path.mkdir(parents=True, exist_ok=True)
    (path / HALF_MADE).touch()
    for old in [*(path / name for name in _CONTENTS), *path.glob("*.new")]:
        if old.is_dir():
            shutil.rmtree(old)
        else:
            old.unlink(missing_ok=True)
    save_config(config, path / "config.yaml")
    save_vocabulary(vocabulary, path / "vocabulary.txt")
    vocabulary_sha256 = _sha256(path / "vocabulary.txt")
    write_manifest(
        path,
        {
            "format_version": FORMAT_VERSION,
            "class_names": list(class_names),
            "config_sha256": _sha256(path / "config.yaml"),
            "vocabulary_sha256": vocabulary_sha256,
            "identity": _identity(config, class_names, vocabulary_sha256),
            **(receipt or {}),
        },
    )
    (path / HALF_MADE).unlink()


def finish_run(path: Path, result: dict[str, Any]) -> None:
    """Write what training came to into run.json, which marks the run as finished."""
    write_manifest(path, {**read_manifest(path), "result": result})


def is_finished(path: Path) -> bool:
    """Whether a run's training has come to its end."""
    return "result" in read_manifest(path)


def _identity(config: Config, class_names: tuple[str, ...], vocabulary_sha256: str) -> str:
    """What equal runs have in common, wherever they lie, and others do not."""
    values = [deciding_settings(config), list(class_names), vocabulary_sha256]
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:32]


def build_model(
    config: ModelConfig,
    *,
    vocabulary_size: int,
    num_classes: int,
    vectors: torch.Tensor | None = None,
    freeze_embedding: bool = False,
    frequencies: Sequence[int] | None = None,
) -> SentimentClassifier:
    """The classifier that the settings describe; its arguments are those of the classifier."""
    return SentimentClassifier(
        vocabulary_size=vocabulary_size,
        num_classes=num_classes,
        vectors=vectors,
        freeze_embedding=freeze_embedding,
        frequencies=frequencies,
        **asdict(config),
    )


def load_run(path: Path, *, checkpoint: str = "best") -> Run:
    """Rebuild a run's model on the CPU, in evaluation mode.

    Raises:
        FileNotFoundError: the folder is not a run, or a file of it is missing.
        UserError: a file is damaged, of a newer format, or does not fit the others.
    """
    check_links(path)
    description = read_manifest(path)
    require_run(path, description)
    config, vocabulary = load_settings(path), load_words(path)
    class_names = tuple(description["class_names"])
    with torch.device("meta"):  # shapes alone: the weights come from the file
        model = build_model(
            config.model,
            vocabulary_size=len(vocabulary),
            num_classes=len(class_names),
            frequencies=token_counts(vocabulary),
        )
    position = load_weights(path, checkpoint, model)
    return Run(path, config, class_names, vocabulary, model.eval(), position)


def load_settings(path: Path) -> Config:
    """A run's settings.

    Raises:
        FileNotFoundError, UserError: as for :func:`load_run`.
    """
    _check_own(path, "config.yaml")
    return load_config(path / "config.yaml")


def load_words(path: Path) -> Vocab:
    """A run's vocabulary.

    Raises:
        FileNotFoundError, UserError: as for :func:`load_run`.
    """
    _check_own(path, "vocabulary.txt")
    return load_vocabulary(path / "vocabulary.txt")


def _check_own(path: Path, name: str) -> None:
    """Refuse a file that is missing, or not the one that the run was made with."""
    if not (path / name).is_file():
        raise FileNotFoundError(f"the run has no {path / name}: copy it from where it was trained")
    if _sha256(path / name) != read_manifest(path)[f"{name.partition('.')[0]}_sha256"]:
        raise UserError(f"{path / name} is not the one this run was trained with")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
