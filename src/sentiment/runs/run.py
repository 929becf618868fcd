"""A run's folder: created, checked, and loaded without the code that trained it.

    config.yaml                         all settings, reusable as --config
    run.json                            format, classes, checksums, and the provenance: data,
                                        versions, device, revision, wall time, final metrics
    vocabulary.txt                      a word and its count a line, in the order of ids
    checkpoints/{best,last}/model.safetensors
    checkpoints/resume.safetensors      what --resume needs, while more epochs can follow
    checkpoints/soft_labels.safetensors other models' probabilities of reviews, if there are any
    metrics.json, train.log, tensorboard/, evaluation/, explanations/, export/

run.json holds checksums of itself, the settings and the vocabulary; weights and checkpoints hold
their own, and the identity of their run. All have a format version, and are text or safetensors:
loading them executes nothing.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from torchtext.vocab import Vocab

from sentiment.config.config import Config, ModelConfig, deciding_settings
from sentiment.config.parser import as_yaml, load_config, save_config
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
from sentiment.runtime.files import LOCK, check_links, check_writable, file_sha256

# Marks a folder whose run is being created: a later training may start it over.
HALF_MADE = ".begun"
# All that overwriting a run may remove; first what makes the folder a run.
_CONTENTS = (
    "run.json", "config.yaml", "vocabulary.txt", "metrics.json", "train.log", "checkpoints",
    "tensorboard", "evaluation", "explanations", "export",
)  # fmt: skip


@dataclass(frozen=True)
class Run:
    """A trained run, ready to be used."""

    path: Path
    config: Config
    class_names: tuple[str, ...]
    vocabulary: Vocab
    model: SentimentClassifier
    checkpoint: WeightsInfo


def occupant(path: Path) -> dict[str, Any] | None:
    """The manifest in a folder: {} if it has no readable one, None if the folder can be used.

    Raises:
        OSError: nothing can be written there.
    """
    check_writable(path)
    if (path / HALF_MADE).exists():
        return None  # the training was killed before it began
    if not path.is_dir() or all(file.name == LOCK for file in path.iterdir()):
        return None
    with suppress(OSError, ValueError):  # missing or damaged
        return read_manifest(path)
    return {}


def check_place(path: Path, *, overwrite: bool = False, for_pretraining: bool = False) -> None:
    """Check, without writing anything, that a run can be written to a folder.

    With ``overwrite``, a run in it may be replaced, but a pre-training only ``for_pretraining``.
    Anything else in it raises ``FileExistsError``.
    """
    manifest = occupant(path)
    if manifest is None:
        return
    other = "choose another output_dir"
    if is_pretraining(manifest) and not for_pretraining:
        problem = f"holds a pre-training: start from it with --pretraining.path {path}, or {other}"
    elif is_baseline(manifest):
        problem = f"holds a baseline, which train does not replace: {other}"
    elif for_pretraining and not overwrite:
        problem = f"is not empty and holds no pre-training: {other}"
    elif not overwrite:
        problem = f"is not empty: {other}, or replace the run in it with --overwrite"
    elif not manifest:
        problem = f"is not empty and holds no run, so nothing in it will be overwritten: {other}"
    else:
        return
    raise FileExistsError(f"{path} {problem}")


def create_run(
    path: Path,
    config: Config,
    class_names: tuple[str, ...],
    vocabulary: Vocab,
    provenance: dict[str, Any] | None = None,
    *,
    overwrite: bool = False,
) -> None:
    """Create a run's folder with everything but the weights, after :func:`check_place`.

    ``provenance`` goes into run.json.
    """
    check_place(path, overwrite=overwrite, for_pretraining=is_pretraining(provenance or {}))
    begin_folder(path, _CONTENTS)
    save_config(config, path / "config.yaml")
    save_vocabulary(vocabulary, path / "vocabulary.txt")
    sha256 = file_sha256(path / "vocabulary.txt")
    description = describe_model(path, deciding_settings(config), class_names, sha256)
    write_manifest(path, description | (provenance or {}))
    (path / HALF_MADE).unlink()


def begin_folder(path: Path, contents: Sequence[str]) -> None:
    """Create a folder, or remove its former contents, and mark it as half-made."""
    path.mkdir(parents=True, exist_ok=True)
    (path / HALF_MADE).touch()
    for old in [*(path / name for name in contents), *path.glob("*.new")]:
        if old.is_dir():
            shutil.rmtree(old)
        else:
            old.unlink(missing_ok=True)


def describe_model(
    path: Path, settings: dict[str, Any], class_names: tuple[str, ...], vocabulary_sha256: str
) -> dict[str, Any]:
    """What run.json says of a model with these deciding settings, whose config.yaml is written.

    The identity is a digest of what decides a run, the same wherever its folder lies.
    """
    names = list(class_names)
    deciding = json.dumps([settings, names, vocabulary_sha256], sort_keys=True)
    return {
        "format_version": FORMAT_VERSION,
        "class_names": names,
        "config_sha256": file_sha256(path / "config.yaml"),
        "vocabulary_sha256": vocabulary_sha256,
        "identity": hashlib.sha256(deciding.encode()).hexdigest()[:32],
    }


def finish_run(path: Path, result: dict[str, Any]) -> None:
    """Write the training's result and the time into run.json, which marks the run as finished."""
    finished = datetime.now(timezone.utc).isoformat(timespec="seconds")
    write_manifest(path, {**read_manifest(path), "result": {"finished": finished, **result}})


def extend_run(path: Path, config: Config) -> None:
    """Give a run settings with more epochs, which makes it unfinished again."""
    manifest = read_manifest(path)
    manifest.pop("result", None)
    # run.json comes first and allows both files: a kill in between leaves the former settings.
    manifest["former_config_sha256"] = file_sha256(path / "config.yaml")
    manifest["config_sha256"] = hashlib.sha256(as_yaml(config)).hexdigest()
    write_manifest(path, manifest)
    save_config(config, path / "config.yaml")


def is_finished(path: Path) -> bool:
    """Whether a folder holds a finished run or pre-training."""
    return (path / "run.json").is_file() and "result" in read_manifest(path)


def build_model(
    config: ModelConfig, vocabulary: Vocab, num_classes: int, **more: Any
) -> SentimentClassifier:
    """The untrained classifier with these settings and ``more``, further arguments."""
    return SentimentClassifier(
        vocabulary_size=len(vocabulary), num_classes=num_classes,
        frequencies=token_counts(vocabulary), **asdict(config), **more,
    )  # fmt: skip


def load_run(path: Path, *, checkpoint: str = "best") -> Run:
    """Rebuild a run's model on the CPU, in evaluation mode.

    Raises:
        FileNotFoundError: the folder is not a run, or one of its files is missing.
        UserError: a file is damaged, has another format, or belongs to another run.
    """
    check_links(path)
    description = read_manifest(path)
    require_run(path, description)
    config, vocabulary = load_settings(path), load_words(path)
    class_names = tuple(description["class_names"])
    with torch.device("meta"):  # only shapes: the weights come from the file
        model = build_model(config.model, vocabulary, len(class_names))
    info = load_weights(path, checkpoint, model)
    return Run(path, config, class_names, vocabulary, model.eval(), info)


def load_settings(path: Path) -> Config:
    """A run's settings; raises as :func:`load_run`."""
    _check_digest(path, "config.yaml")
    return load_config(path / "config.yaml")


def load_words(path: Path) -> Vocab:
    """A run's vocabulary; raises as :func:`load_run`."""
    _check_digest(path, "vocabulary.txt")
    return load_vocabulary(path / "vocabulary.txt")


def _check_digest(path: Path, name: str) -> None:
    """Refuse a file that is missing or was changed since training."""
    if not (path / name).is_file():
        raise FileNotFoundError(f"the run has no {path / name}: copy it from where it was trained")
    manifest, key = read_manifest(path), f"{name.partition('.')[0]}_sha256"
    if file_sha256(path / name) not in (manifest[key], manifest.get(f"former_{key}")):
        raise UserError(f"{path / name} is not the one this run was trained with")
