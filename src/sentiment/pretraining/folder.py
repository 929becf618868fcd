"""A pre-training's folder: made once, gone on with if it was stopped, and used again.

It is a run's folder (:mod:`sentiment.runs`) that says it holds no classifier: the weights in it are
a classifier's, of which embedding and recurrence are trained.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from sentiment.config import Config, flat_settings
from sentiment.description import read_description
from sentiment.model import SentimentClassifier
from sentiment.runs import LANGUAGE_MODEL, is_finished, load_settings
from sentiment.weights import read_weights

# Settings that decide what a pre-training learns.
_SECTIONS = ("data", "vocabulary", "vectors", "pretraining")
_OF_MODEL = (
    "embedding_size", "hidden_size", "num_layers", "bidirectional", "cell", "implementation",
    "normalize_embedding", "input_init", "recurrent_init", "forget_bias",
)  # fmt: skip
_WITHOUT_EFFECT = (
    "data.path", "data.cache_dir", "data.num_processes", "data.max_length", "data.keep",
    "vectors.path", "pretraining.path",
)  # fmt: skip
# What a classifier must have in common with the language model that it starts from.
_SHAPES = (
    "model.embedding_size", "model.hidden_size", "model.num_layers", "model.bidirectional",
    "model.cell", "model.implementation", "model.normalize_embedding", "data.lower_case",
)  # fmt: skip
_TAKEN = ("embedding.", "recurrence.")


def default_folder(config: Config) -> Path:
    """Where train.py keeps the pre-training of a run: beside it, for other runs to use."""
    return Path(f"{config.output_dir.rstrip('/')}-pretraining").expanduser()


def learned_settings(config: Config) -> dict[str, Any]:
    """The settings that decide what a pre-training learns, by their dotted keys."""
    return {
        key: value
        for key, value in flat_settings(config).items()
        if key == "seed"
        or (key.split(".")[0] in _SECTIONS and key not in _WITHOUT_EFFECT)
        or key.removeprefix("model.") in _OF_MODEL
    }


def check_same(config: Config, path: Path) -> None:
    """Refuse a folder whose pre-training is one of other settings.

    Raises:
        ValueError: it is; or the folder holds a run.
    """
    check_kind(path)
    own, asked = learned_settings(load_settings(path)), learned_settings(config)
    for key, value in asked.items():
        if own[key] != value:
            raise ValueError(
                f"{path} holds a pre-training whose {key} is {own[key]!r}, not {value!r}: name it "
                "by --pretraining.path to start from it all the same, choose another output_dir, "
                "or move it away"
            )


def check_kind(path: Path) -> None:
    """Raise ``ValueError`` if the folder holds a classifier's run."""
    if read_description(path).get("kind") != LANGUAGE_MODEL:
        raise ValueError(f"{path} holds a classifier, no pre-training: choose another folder")


def check_fits(config: Config, path: Path) -> None:
    """Refuse to start a classifier of these settings from a folder.

    Raises:
        FileNotFoundError: there is no finished pre-training in it.
        ValueError: it does not fit; the message names the setting.
    """
    check_kind(path)
    if not is_finished(path):
        raise FileNotFoundError(
            f"the pre-training in {path} is not finished: go on with it by the command that "
            "began it"
        )
    own, asked = flat_settings(load_settings(path)), flat_settings(config)
    for key in _SHAPES:
        if own[key] != asked[key]:
            raise ValueError(
                f"{key} is {asked[key]!r}, but the pre-training in {path} has {own[key]!r}: set "
                "both alike"
            )


def start_from(model: SentimentClassifier, path: Path) -> None:
    """Give a classifier the embedding and recurrence of a pre-training."""
    tensors, _ = read_weights(path, "last")
    taken = {name: each for name, each in tensors.items() if name.startswith(_TAKEN)}
    with torch.no_grad():
        own = model.state_dict()
        for name, tensor in taken.items():
            own[name].copy_(tensor)


def check_held_out(path: Path, validation: dict[str, Any]) -> None:
    """Refuse a language model that may have read the reviews that choices are made on.

    Args:
        path: the pre-training's folder.
        validation: the fingerprint of the validation reviews.

    Raises:
        ValueError: it had others held out.
    """
    own = read_description(path)["data"]["validation"]
    if own != validation:
        raise ValueError(
            f"the pre-training in {path} held out {own['rows']} validation reviews with digest "
            f"{own['sha256'][:12]}, but these are {validation['rows']} with "
            f"{validation['sha256'][:12]}, which it may have read: pre-train with the same data"
        )
