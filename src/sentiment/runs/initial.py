"""What a training starts from, a language model or another run: checks, and taking weights over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import yaml
from torchtext.vocab import Vocab

from sentiment.config.config import Config, first_difference, flat_settings
from sentiment.data.reviews import file_fingerprint
from sentiment.model import SentimentClassifier
from sentiment.runs.manifest import (
    check_fingerprints,
    describe_fingerprint,
    is_pretraining,
    read_manifest,
    require_run,
)
from sentiment.runs.run import is_finished, load_settings, load_words
from sentiment.runs.weights import read_weights
from sentiment.runtime.errors import UserError
from sentiment.runtime.files import beside

INITIAL = "best"  # the weights that are taken over from a run
# Settings that a model must share with what it starts from.
_SHAPES = (
    "model.embedding_size", "model.hidden_size", "model.num_layers", "model.bidirectional",
    "model.cell", "model.normalize_embedding", "data.lower_case", "data.language",
)  # fmt: skip
_SHARED_WITH_LANGUAGE_MODEL = (*_SHAPES, "model.implementation")
_SHARED_WITH_RUN = (*_SHAPES, "model.learned_initial_state", "model.pooling")
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
_LOADED = ("embedding.", "recurrence.")  # beginnings of the names of a language model's weights


def starting_folder(config: Config) -> Path | None:
    """The folder of the pre-training that a run starts from, if any; by default next to the run."""
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
    """Refuse a folder whose pre-training has other settings, or that holds a classifier's run."""
    check_kind(path, "output_dir")
    before, now = learned_settings(load_settings(path)), learned_settings(config)
    if (key := first_difference(before, now)) is None:
        return
    if is_finished(path):
        advice = "to start from it anyway, name it with --pretraining.path"
    else:
        advice = "to resume it, set the original value"
    raise UserError(
        f"{path} holds a pre-training whose {key} is {before.get(key)!r}, not {now[key]!r}: "
        f"{advice}; to start anew, remove {path}, or choose another output_dir"
    )


def check_same_texts(config: Config, path: Path, fingerprints: dict[str, Any]) -> None:
    """Refuse a folder whose pre-training has read reviews with other fingerprints, or started from
    other vectors.
    """
    manifest = read_manifest(path)
    owner = f"the pre-training in {path}"
    advice = f"give the original ones, choose another output_dir, or remove {path} to start anew"
    check_fingerprints(manifest["data"], fingerprints, owner=owner, advice=advice)
    file = None if config.vectors.path is None else Path(config.vectors.path).expanduser()
    if file is None and config.vectors.name is not None:
        return  # the same name means the same vectors
    if file is not None and not file.is_file():
        return  # the saved weights no longer need the vectors
    now, before = (None if file is None else file_fingerprint(file)), manifest["vectors"]
    if before is None and load_settings(path).vectors.path is not None:
        return  # written by an early version, without the fingerprint
    if (now or {}).get("sha256") != (before or {}).get("sha256"):
        raise UserError(
            f"vectors.path is {config.vectors.path!r}, with {describe_fingerprint(now)}, but "
            f"{owner} started with {describe_fingerprint(before)}: {advice}"
        )


def check_kind(path: Path, setting: str) -> None:
    """Refuse a folder that holds no pre-training; ``setting`` names the setting behind it."""
    try:
        description = read_manifest(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"no pre-training to start from ({setting}): {error}") from error
    if not is_pretraining(description):
        raise UserError(f"{path} holds a classifier, not a pre-training: choose another {setting}")


def check_fits(config: Config, path: Path) -> None:
    """Refuse a pre-training that a classifier with these settings cannot start from."""
    setting = "output_dir" if config.pretraining.path is None else "pretraining.path"
    check_kind(path, setting)
    if not is_finished(path):
        raise FileNotFoundError(
            f"the pre-training in {path} (from {setting}) is not finished: resume it "
            "with the command that started it"
        )
    before, now = flat_settings(load_settings(path)), flat_settings(config)
    for key in _SHARED_WITH_LANGUAGE_MODEL:
        if before[key] != now[key]:
            raise UserError(
                f"{key} is {now[key]!r}, but the pre-training in {path} has {before[key]!r}: set "
                f"both to the same value, or choose another {setting}"
            )
    if config.data.shared_reviews == "drop" != before["data.shared_reviews"]:
        raise UserError(
            f"data.shared_reviews is 'drop', but the pre-training in {path} was made with "
            f"{before['data.shared_reviews']!r} and may have read copies of test reviews: choose "
            f"another {setting}, made with drop too"
        )


def start_from(model: SentimentClassifier, path: Path) -> None:
    """Give a classifier the embedding and recurrence of a pre-training."""
    tensors, _ = read_weights(path, "last")
    parameters = model.state_dict()
    with torch.no_grad():
        for name, tensor in tensors.items():
            if name.startswith(_LOADED):
                parameters[name].copy_(tensor)


def check_held_out(
    path: Path, validation: dict[str, Any], *, name: str, mend: str = "train it with the same data"
) -> None:
    """Refuse a pre-training or run that may have learned from the validation reviews, of which
    ``validation`` is the fingerprint; ``name`` and ``mend`` are for the message.
    """
    unknown = {"rows": "unknown", "sha256": "unknown"}
    held_out = read_manifest(path).get("data", {}).get("validation", unknown)
    if held_out != validation:
        raise UserError(
            f"{name} held out {held_out['rows']} validation "
            f"reviews with digest {held_out['sha256'][:12]}, but these are {validation['rows']} "
            f"with {validation['sha256'][:12]}, which it may have learned from: {mend}"
        )


def check_measured(path: Path, validation: dict[str, Any]) -> None:
    """Refuse to measure a run, or a baseline, on validation reviews that it may have learned from,
    because its data or the way reviews are held out have changed since.
    """
    mend = "restore the data that it was trained on, or measure it on --split test"
    check_held_out(path, validation, name=str(path), mend=mend)


def find_initial_run(config: Config) -> Path | None:
    """The folder that ``training.init_from`` names, None if it is null.

    Raises:
        FileNotFoundError: it holds no run, or one that is not finished.
        UserError: its run is of another kind or has other layers, or is to be overwritten.
    """
    if config.training.init_from is None:
        return None
    path = Path(config.training.init_from).expanduser()
    if path.resolve() == Path(config.output_dir).expanduser().resolve():
        raise UserError(
            f"training.init_from and output_dir are both {path}: choose another output_dir"
        )
    try:
        manifest = read_manifest(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"training.init_from must name a run: {error}") from error
    require_run(path, manifest)
    if not is_finished(path):
        raise FileNotFoundError(
            f"the run {path}, which training.init_from names, is not finished: resume it with "
            f"python train.py --resume {path}"
        )
    before, now = flat_settings(load_settings(path)), flat_settings(config)
    others = [key for key in _SHARED_WITH_RUN if before[key] != now[key]]
    if others:
        texts = (yaml.safe_dump(before[key]).split("\n")[0] for key in others)
        options = " ".join(f"--{key} {text}" for key, text in zip(others, texts, strict=True))
        raise UserError(
            f"the run {path}, which training.init_from names, differs in {', '.join(others)}: give "
            f"{options}"
        )
    return path


@torch.no_grad()
def start_from_run(
    model: SentimentClassifier, path: Path, vocabulary: Vocab, class_names: tuple[str, ...]
) -> str:
    """Give a model the weights of a run, by words and class names; returns a line about it.

    Other classes leave the model's last layer as it is.
    """
    tensors, _ = read_weights(path, INITIAL)
    parameters = model.state_dict()
    words, names = load_words(path).itos, read_manifest(path)["class_names"]
    rows = torch.tensor([vocabulary.stoi[word] for word in words])
    has_same_classes = set(names) == set(class_names)
    for name, tensor in tensors.items():
        parameter = parameters[name]
        if name == "embedding.weight":
            parameter[rows.to(parameter.device)] = tensor.to(parameter.device)
        elif name.startswith("output."):
            if has_same_classes:
                parameter.copy_(tensor[[names.index(each) for each in class_names]])
        elif name != "embedding.shares":  # which follow from the vocabulary's counts
            parameter.copy_(tensor)
    text = f"starting from {path}: {len(vocabulary) - len(words):,} new words"
    if has_same_classes:
        return f"{text}, the same classes"
    return (
        f"{text}, a new last layer for the classes {', '.join(class_names)}, since {path} has "
        f"{', '.join(names)}"
    )
