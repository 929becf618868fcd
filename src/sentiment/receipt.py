"""What a run was made with and by, for run.json: enough to make it again and to compare."""

from __future__ import annotations

import platform
import subprocess
import sys
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from sentiment.world import World, launch_name

_PACKAGES = ("sentiment", "torch", "torchtext", "spacy", "numpy", "scikit-learn", "safetensors")


def write_receipt(
    *,
    seed: int,
    device: str,
    precision: torch.dtype,
    world: World,
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
        "ranks": world.size,
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
