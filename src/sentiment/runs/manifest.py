"""run.json: what a run is, how it was made, and a checksum over it."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
import sys
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from sentiment.display.console import truncate
from sentiment.runtime.distributed import DistributedContext, launch_name
from sentiment.runtime.errors import UserError
from sentiment.runtime.files import write_json

FORMAT_VERSION = 2  # of run.json, weights and checkpoints; 2 knows which run a file belongs to

# What run.json calls a folder whose weights are pre-trained, and no classifier's yet.
LANGUAGE_MODEL = "language model"
# What it calls a folder of a linear model, no LSTM's.
BASELINE = "baseline"

_TEXTS = ("config_sha256", "vocabulary_sha256", "identity")


def write_manifest(run: Path, values: dict[str, Any]) -> None:
    """Write run.json in one step.

    Args:
        run: the run's folder.
        values: what :func:`read_manifest` will return.
    """
    write_json(run / "run.json", {**values, "sha256": _checksum(values)})


def read_manifest(run: Path) -> dict[str, Any]:
    """What run.json says, checked.

    Raises:
        FileNotFoundError: the folder is not a run.
        UserError: the file is damaged, or of another format.
    """
    path = run / "run.json"
    if not path.is_file():
        hint = "" if run.exists() else " (there is no such folder)"
        raise FileNotFoundError(f"{run} is not a run{hint}: it has no run.json")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        version, names = int(values["format_version"]), values["class_names"]
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise UserError(f"{path} is damaged: {truncate(repr(error), 100)}") from error
    check_version(path, version)
    if values.pop("sha256", None) != _checksum(values):
        raise UserError(f"{path} is damaged: its checksum is not that of its content")
    texts = [values.get(name) for name in _TEXTS]
    if not isinstance(names, list) or not all(isinstance(each, str) for each in [*names, *texts]):
        raise UserError(f"{path} is damaged: a value is not of its kind")
    if len(set(names)) < max(2, len(names)) or not all(map(_is_name, names)):
        raise UserError(f"{path} is damaged: its classes are not two names or more")
    return values


def is_pretraining(description: dict[str, Any]) -> bool:
    """Whether run.json says that its folder holds a pre-training, no classifier."""
    return description.get("kind") == LANGUAGE_MODEL


def holds_pretraining(path: Path) -> bool:
    """Whether a folder holds a pre-training; False where it holds no run at all.

    Raises:
        UserError: its run.json is damaged, or of another format.
    """
    return (path / "run.json").exists() and is_pretraining(read_manifest(path))


def is_baseline(description: dict[str, Any]) -> bool:
    """Whether run.json says that its folder holds a baseline, no LSTM's run."""
    return description.get("kind") == BASELINE


def holds_baseline(path: Path) -> bool:
    """Whether a folder holds a baseline; False where it holds no run at all.

    Raises:
        UserError: its run.json is damaged, or of another format.
    """
    return (path / "run.json").exists() and is_baseline(read_manifest(path))


def require_run(path: Path, description: dict[str, Any]) -> None:
    """Refuse a folder whose run.json says that it holds something else than an LSTM classifier.

    Raises:
        UserError: it does.
    """
    if is_pretraining(description):
        raise UserError(
            f"{path} is a pre-training, no classifier: train one from it with --pretraining.path"
        )
    if is_baseline(description):
        raise UserError(
            f"{path} is a baseline, no LSTM's run: its figures are in {path / 'evaluation'}, and "
            f"sentiment compare RUN {path} measures it against a run"
        )


def check_version(path: Path, version: int) -> None:
    """Refuse a file that another release wrote."""
    if version > FORMAT_VERSION:
        raise UserError(
            f"{path} has format {version}, but this program reads up to {FORMAT_VERSION}: "
            "install a newer release of sentiment"
        )
    if version < FORMAT_VERSION:
        raise UserError(
            f"{path} has format {version}, which this program no longer reads: train the run "
            "again, from its config.yaml"
        )


def _is_name(text: str) -> bool:
    """Whether a class can be called so: half a surrogate pair cannot even be written."""
    return text.strip() != "" and not any("\ud800" <= each <= "\udfff" for each in text)


def _checksum(values: dict[str, Any]) -> str:
    text = json.dumps(values, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


_PACKAGES = ("sentiment", "torch", "torchtext", "spacy", "numpy", "scikit-learn", "safetensors")


def collect_provenance(
    *,
    seed: int,
    device: str,
    precision: torch.dtype,
    distributed: DistributedContext,
    data: dict[str, Any],
    vectors: dict[str, Any] | None,
    coverage: dict[str, Any] | None,
) -> dict[str, Any]:
    """The receipt of a training that begins now.

    Args:
        seed: of weights, dropout and order.
        device: what it runs on, in words.
        precision: arithmetic of matrix products.
        world: the ranks.
        data: fingerprints by split.
        vectors: fingerprint of the file of vectors, if there is one.
        coverage: what of the vocabulary it covers.
    """
    return {
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": sys.argv[1:],
        "launch": launch_name(),
        "seed": seed,
        "device": device,
        "precision": str(precision).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "ranks": distributed.world_size,
        "data": data,
        "vectors": vectors,
        "vectors_coverage": coverage,
        "versions": versions(),
        "git": git_state(),
    }


def versions() -> dict[str, str]:
    """Versions of Python and of what decides a run's numbers."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def git_state() -> dict[str, Any] | None:
    """The revision that this code is of, and whether it was changed; None without git."""
    folder = Path(__file__).parent
    try:
        # A package installed into a repository of something else is not of its revision.
        _git(folder, "ls-files", "--error-unmatch", Path(__file__).name)
        revision = _git(folder, "rev-parse", "HEAD")
        changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return {"revision": revision, "is_dirty": bool(changes)}


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()
