"""The run that a training starts from: what must match it, and taking over its weights."""

from __future__ import annotations

from pathlib import Path

import torch
import yaml
from torchtext.vocab import Vocab

from sentiment.config.config import Config, flat_settings
from sentiment.model import SentimentClassifier
from sentiment.runs.manifest import read_manifest, require_run
from sentiment.runs.run import is_finished, load_settings, load_words
from sentiment.runs.weights import read_weights
from sentiment.runtime.errors import UserError

INITIAL = "best"  # the weights that are taken over
_SHARED = (
    "model.embedding_size", "model.hidden_size", "model.num_layers", "model.bidirectional",
    "model.cell", "model.learned_initial_state", "model.pooling", "model.normalize_embedding",
    "data.lower_case", "data.language",
)  # fmt: skip


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
    others = [key for key in _SHARED if before[key] != now[key]]
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
