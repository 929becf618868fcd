"""run.json: what a run is and where it came from, with a checksum over itself."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from sentiment.places import write_json
from sentiment.shown import shorten

FORMAT_VERSION = 2  # of run.json, weights and checkpoints; 2 knows which run a file belongs to

# What run.json calls a folder whose weights are pre-trained, and no classifier's yet.
LANGUAGE_MODEL = "language model"
# What it calls a folder of a linear model, no LSTM's.
BASELINE = "baseline"

_TEXTS = ("config_sha256", "vocabulary_sha256", "identity")


def write_description(run: Path, values: dict[str, Any]) -> None:
    """Write run.json in one step.

    Args:
        run: the run's folder.
        values: what :func:`read_description` will return.
    """
    write_json(run / "run.json", {**values, "sha256": _checksum(values)})


def read_description(run: Path) -> dict[str, Any]:
    """What run.json says, checked.

    Raises:
        FileNotFoundError: the folder is not a run.
        ValueError: the file is damaged, or of another format.
    """
    path = run / "run.json"
    if not path.is_file():
        hint = "" if run.exists() else " (there is no such folder)"
        raise FileNotFoundError(f"{run} is not a run{hint}: it has no run.json")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        version, names = int(values["format_version"]), values["class_names"]
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {shorten(repr(error), 100)}") from error
    check_version(path, version)
    if values.pop("sha256", None) != _checksum(values):
        raise ValueError(f"{path} is damaged: its checksum is not that of its content")
    texts = [values.get(name) for name in _TEXTS]
    if not isinstance(names, list) or not all(isinstance(each, str) for each in [*names, *texts]):
        raise ValueError(f"{path} is damaged: a value is not of its kind")
    if len(set(names)) < max(2, len(names)) or not all(map(_is_name, names)):
        raise ValueError(f"{path} is damaged: its classes are not two names or more")
    return values


def is_pretraining(description: dict[str, Any]) -> bool:
    """Whether run.json says that its folder holds a pre-training, no classifier."""
    return description.get("kind") == LANGUAGE_MODEL


def holds_pretraining(path: Path) -> bool:
    """Whether a folder holds a pre-training; False where it holds no run at all.

    Raises:
        ValueError: its run.json is damaged, or of another format.
    """
    return (path / "run.json").exists() and is_pretraining(read_description(path))


def is_baseline(description: dict[str, Any]) -> bool:
    """Whether run.json says that its folder holds a baseline, no LSTM's run."""
    return description.get("kind") == BASELINE


def holds_baseline(path: Path) -> bool:
    """Whether a folder holds a baseline; False where it holds no run at all.

    Raises:
        ValueError: its run.json is damaged, or of another format.
    """
    return (path / "run.json").exists() and is_baseline(read_description(path))


def require_run(path: Path, description: dict[str, Any]) -> None:
    """Refuse a folder whose run.json says that it holds something else than an LSTM classifier.

    Raises:
        ValueError: it does.
    """
    if is_pretraining(description):
        raise ValueError(
            f"{path} is a pre-training, no classifier: train one from it with --pretraining.path"
        )
    if is_baseline(description):
        raise ValueError(
            f"{path} is a baseline, no LSTM's run: its figures are in {path / 'evaluation'}, and "
            f"sentiment compare RUN {path} measures it against a run"
        )


def check_version(path: Path, version: int) -> None:
    """Refuse a file that another release wrote."""
    if version > FORMAT_VERSION:
        raise ValueError(
            f"{path} has format {version}, but this program reads up to {FORMAT_VERSION}: "
            "install a newer release of sentiment"
        )
    if version < FORMAT_VERSION:
        raise ValueError(
            f"{path} has format {version}, which this program no longer reads: train the run "
            "again, from its config.yaml"
        )


def _is_name(text: str) -> bool:
    """Whether a class can be called so: half a surrogate pair cannot even be written."""
    return text.strip() != "" and not any("\ud800" <= each <= "\udfff" for each in text)


def _checksum(values: dict[str, Any]) -> str:
    text = json.dumps(values, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
