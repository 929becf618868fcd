"""The folder of a pre-trained language model: written, checked, read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from sentiment.config.config import Config, first_difference, flat_settings
from sentiment.data.reviews import file_fingerprint
from sentiment.model import SentimentClassifier
from sentiment.runs.manifest import is_pretraining, read_manifest
from sentiment.runs.run import is_finished, load_settings
from sentiment.runs.weights import read_weights
from sentiment.runtime.errors import UserError
from sentiment.runtime.files import beside

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


def starting_folder(config: Config) -> Path | None:
    """The folder of the pre-training that a run starts from, None if it starts from none.

    Where the settings name none, it is beside the run's, for other runs to use.
    """
    if not config.pretraining.is_wanted:
        return None
    named = config.pretraining.path
    path = beside(config.output_dir, "-pretraining") if named is None else named
    return Path(path).expanduser()


def learned_settings(config: Config) -> dict[str, Any]:
    """The settings that decide what a pre-training learns, by their dotted keys."""
    return {
        key: value
        for key, value in flat_settings(config).items()
        if key == "seed"
        or (key.split(".")[0] in _SECTIONS and key not in _WITHOUT_EFFECT)
        or key.removeprefix("model.") in _OF_MODEL
        or key == "training.precision"
        or (key == "model.dropout" and config.model.num_layers > 1)  # between layers
    }


def check_same(config: Config, path: Path) -> None:
    """Refuse a folder, which output_dir leads to, whose pre-training is one of other settings.

    Raises:
        UserError: it is; or the folder holds a run.
    """
    check_kind(path, "output_dir")
    own, asked = learned_settings(load_settings(path)), learned_settings(config)
    if (key := first_difference(own, asked)) is None:
        return
    if is_finished(path):
        advice = "to start from it all the same, name it by --pretraining.path"
    else:
        advice = "to go on, set it as then"
    raise UserError(
        f"{path} holds a pre-training whose {key} is {own.get(key)!r}, not {asked[key]!r}: "
        f"{advice}; to begin again, remove {path}, or choose another output_dir"
    )


def check_same_texts(config: Config, path: Path, found: dict[str, Any]) -> None:
    """Refuse a folder whose pre-training has read, or begun from, something else.

    Args:
        config: the settings.
        path: the folder.
        found: fingerprints of the reviews that the settings lead to, by split.

    Raises:
        UserError: reviews, or the file that vectors.path names, are others than then.
    """
    description = read_manifest(path)
    then = description["data"]
    way_out = f"give those of then, or choose another output_dir, or remove {path} to begin again"
    for split in sorted(then.keys() | found.keys()):
        if then.get(split) != found.get(split):
            raise UserError(
                f"the {split} reviews are {_told(found.get(split))}, but the pre-training in "
                f"{path} has {_told(then.get(split))}: {way_out}"
            )
    file = None if config.vectors.path is None else Path(config.vectors.path).expanduser()
    if file is None and config.vectors.name is not None:
        return  # by its name they are the same
    if file is not None and not file.is_file():
        return  # its weights are there, which need no vectors any more
    now, before = (None if file is None else file_fingerprint(file)), description["vectors"]
    if before is None and load_settings(path).vectors.path is not None:
        return  # a receipt that does not tell
    if (now or {}).get("sha256") != (before or {}).get("sha256"):
        raise UserError(
            f"vectors.path is {config.vectors.path!r}, with {_told(now)}, but the pre-training in "
            f"{path} began with {_told(before)}: {way_out}"
        )


def _told(fingerprint: dict[str, Any] | None) -> str:
    """What a fingerprint says, in words."""
    if fingerprint is None:
        return "none"
    rows = f"{fingerprint['rows']} with " if "rows" in fingerprint else ""
    return f"{rows}digest {fingerprint['sha256'][:12]}"


def check_kind(path: Path, setting: str) -> None:
    """Refuse a folder without a pre-training.

    Args:
        path: the folder.
        setting: what leads to it.

    Raises:
        FileNotFoundError: there is nothing of the kind in it.
        UserError: it holds a classifier's run.
    """
    try:
        description = read_manifest(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{setting} leads to no pre-training: {error}") from error
    if not is_pretraining(description):
        raise UserError(f"{path} holds a classifier, no pre-training: choose another {setting}")


def check_fits(config: Config, path: Path) -> None:
    """Refuse to start a classifier of these settings from a folder.

    Raises:
        FileNotFoundError: there is no finished pre-training in it.
        UserError: it does not fit; the message names the setting.
    """
    setting = "output_dir" if config.pretraining.path is None else "pretraining.path"
    check_kind(path, setting)
    if not is_finished(path):
        raise FileNotFoundError(
            f"the pre-training in {path}, to which {setting} leads, is not finished: go on with "
            "it by the command that began it"
        )
    own, asked = flat_settings(load_settings(path)), flat_settings(config)
    for key in _SHAPES:
        if own[key] != asked[key]:
            raise UserError(
                f"{key} is {asked[key]!r}, but the pre-training in {path} has {own[key]!r}: set "
                f"both alike, or choose another {setting}"
            )
    if config.data.shared_reviews == "drop" != own["data.shared_reviews"]:
        raise UserError(
            f"data.shared_reviews is 'drop', but the pre-training in {path} was made with "
            f"{own['data.shared_reviews']!r} and may have read copies of test reviews: choose "
            f"another {setting}, made with drop too"
        )


def start_from(model: SentimentClassifier, path: Path) -> None:
    """Give a classifier the embedding and recurrence of a pre-training."""
    tensors, _ = read_weights(path, "last")
    taken = {name: each for name, each in tensors.items() if name.startswith(_TAKEN)}
    with torch.no_grad():
        own = model.state_dict()
        for name, tensor in taken.items():
            own[name].copy_(tensor)


def describe_pretraining(path: Path) -> dict[str, str]:
    """Which pre-training it is, for run.json: folder, identity, digest of the weights.

    Raises:
        FileNotFoundError: it is not there.
    """
    identity = read_manifest(path)["identity"]
    weights = file_fingerprint(path / "checkpoints" / "last" / "model.safetensors")
    return {"path": str(path), "identity": identity, "sha256": weights["sha256"]}


def check_held_out(path: Path, validation: dict[str, Any], *, name: str | None = None) -> None:
    """Refuse a model that may have learned from the validation reviews.

    Args:
        path: folder of a pre-training or a run.
        validation: fingerprint of the validation reviews.
        name: what the model is called in the message; None calls it a pre-training.

    Raises:
        UserError: it held out others.
    """
    unknown = {"rows": "unknown", "sha256": "unknown"}
    held_out = read_manifest(path).get("data", {}).get("validation", unknown)
    if held_out != validation:
        raise UserError(
            f"{name or f'the pre-training in {path}'} held out {held_out['rows']} validation "
            f"reviews with digest {held_out['sha256'][:12]}, but these are {validation['rows']} "
            f"with {validation['sha256'][:12]}, which it may have learned from: train it with the "
            "same data"
        )
