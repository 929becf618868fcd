"""run.json: what a run is, how it was trained, and a checksum over both."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from sentiment.display.console import truncate
from sentiment.runtime.errors import UserError
from sentiment.runtime.files import find_earlier, write_json

FORMAT_VERSION = 2  # of run.json, weights and checkpoints; since 2 they name their run

# Values of "kind" for folders that hold no LSTM classifier.
LANGUAGE_MODEL = "language model"
BASELINE = "baseline"

# What reading values from a damaged file of JSON raises.
DAMAGE = (KeyError, TypeError, ValueError, OverflowError, RecursionError)
_TEXTS = ("config_sha256", "vocabulary_sha256", "identity")


def write_manifest(run: Path, values: dict[str, Any]) -> None:
    """Write run.json atomically; :func:`read_manifest` returns the same values."""
    write_json(run / "run.json", {**values, "sha256": _checksum(values)})


def read_manifest(run: Path) -> dict[str, Any]:
    """The checked values of run.json; a folder that is not a run raises ``FileNotFoundError``."""
    path = run / "run.json"
    if not path.is_file():
        if (earlier := find_earlier(run)) is not None:
            raise FileNotFoundError(
                f"{run} is not a run yet, as its training has not gone beyond {earlier}: wait for "
                "it, or repeat the command that started it, which resumes what was stopped"
            )
        hint = "" if run.exists() else " (there is no such folder)"
        raise FileNotFoundError(f"{run} is not a run{hint}: it has no run.json")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        version, names = int(values["format_version"]), values["class_names"]
    except DAMAGE as error:
        raise UserError(f"{path} is damaged: {truncate(repr(error), 100)}") from error
    check_version(path, version)
    if values.pop("sha256", None) != _checksum(values):
        raise UserError(f"{path} is damaged: its checksum does not match its content")
    texts = [values.get(name) for name in _TEXTS]
    if not isinstance(names, list) or not all(isinstance(text, str) for text in [*names, *texts]):
        raise UserError(f"{path} is damaged: a value has the wrong type")
    if len(set(names)) < max(2, len(names)) or not all(map(_is_name, names)):
        raise UserError(f"{path} is damaged: it needs two or more different class names")
    return values


def is_pretraining(description: dict[str, Any]) -> bool:
    return description.get("kind") == LANGUAGE_MODEL


def holds_pretraining(path: Path) -> bool:
    """Whether a folder holds a pre-training."""
    return (path / "run.json").exists() and is_pretraining(read_manifest(path))


def is_baseline(description: dict[str, Any]) -> bool:
    return description.get("kind") == BASELINE


def holds_baseline(path: Path) -> bool:
    """Whether a folder holds a baseline."""
    return (path / "run.json").exists() and is_baseline(read_manifest(path))


def require_run(path: Path, description: dict[str, Any]) -> None:
    """Refuse a folder that does not hold an LSTM classifier."""
    if is_pretraining(description):
        raise UserError(
            f"{path} is a pre-training, not a classifier: train one from it with --pretraining.path"
        )
    if is_baseline(description):
        raise UserError(
            f"{path} is a baseline, not an LSTM's run: its metrics are in {path / 'evaluation'}; "
            f"sentiment compare RUN {path} compares it with a run"
        )


def check_version(path: Path, version: int) -> None:
    """Refuse a file with another format than this release's."""
    if version > FORMAT_VERSION:
        raise UserError(
            f"{path} has format {version}, but this program reads up to {FORMAT_VERSION}: "
            "install a newer release of sentiment"
        )
    if version < FORMAT_VERSION:
        raise UserError(
            f"{path} has format {version}, which this program no longer reads: train the run "
            "again from its config.yaml"
        )


def _is_name(text: str) -> bool:
    """Whether a class can have this name; a lone surrogate cannot be written to a file."""
    return text.strip() != "" and not any("\ud800" <= char <= "\udfff" for char in text)


def _checksum(values: dict[str, Any]) -> str:
    text = json.dumps(values, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


_PACKAGES = ("sentiment", "torch", "torchtext", "spacy", "numpy", "scikit-learn", "safetensors")


def check_fingerprints(
    before: dict[str, Any], now: dict[str, Any], *, owner: str, advice: str
) -> None:
    """Refuse reviews other than those ``before`` that ``owner`` was made with; both are
    fingerprints by split, of which some may be missing.
    """
    for split in sorted(before.keys() | now.keys()):
        if before.get(split) != now.get(split):
            raise UserError(
                f"the {split} reviews are {describe_fingerprint(now.get(split))}, but {owner} has "
                f"{describe_fingerprint(before.get(split))}: {advice}"
            )


def describe_fingerprint(fingerprint: dict[str, Any] | None) -> str:
    if fingerprint is None:
        return "none"
    rows = f"{fingerprint['rows']} with " if "rows" in fingerprint else ""
    return f"{rows}digest {fingerprint['sha256'][:12]}"


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a run's numbers."""
    result = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            result[name] = version(name)
        except PackageNotFoundError:
            result[name] = "not installed"
    if torch.cuda.is_available():
        result["cudnn"] = str(torch.backends.cudnn.version())
    return result


def git_state() -> dict[str, Any] | None:
    """This code's revision, and whether it has changes; None outside of its repository."""
    folder = Path(__file__).parent
    try:
        # Fails for a package that is installed inside another repository.
        _git(folder, "ls-files", "--error-unmatch", Path(__file__).name)
        revision = _git(folder, "rev-parse", "HEAD")
        changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return {"revision": revision, "is_dirty": bool(changes)}


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    process = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    return process.stdout.strip()
