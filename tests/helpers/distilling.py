"""What the tests of distillation share."""

from __future__ import annotations

from pathlib import Path

from sentiment.runs.manifest import read_manifest, write_manifest

SPLITS = {"train": 120, "validation": 30, "unsupervised": 70}


def learn_from(*teachers: Path) -> str:
    return f"--distillation.teachers=[{','.join(map(str, teachers))}]"


def rewrite(run: Path, **values: object) -> None:
    """Change values in run.json; None removes a key."""
    changed = {**read_manifest(run), **values}
    write_manifest(run, {key: value for key, value in changed.items() if value is not None})
