"""TensorBoard's event files, put back to where they stood at a checkpoint.

What was drawn after it is drawn again when training goes on; without this, twice. Event files are
only ever written at their ends, so what was there is a length of each.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from sentiment.places import sync_folder


def measure_files(folder: Path) -> dict[str, int]:
    """Lengths in bytes of all files in a folder, which are written through to the disk."""
    lengths = {}
    for path in sorted(each for each in folder.rglob("*") if each.is_file()):
        with path.open("rb") as file:
            os.fsync(file.fileno())
        lengths[path.relative_to(folder).as_posix()] = path.stat().st_size
    sync_folder(folder)
    return lengths


def rewind_files(folder: Path, lengths: dict[str, int]) -> list[str]:
    """Cut each file to its length, and remove the files that have none.

    Returns:
        Names of files that are gone or shorter: of them something is lost.
    """
    lost = []
    for path in sorted(each for each in folder.rglob("*") if each.is_file()):
        if path.relative_to(folder).as_posix() not in lengths:
            path.unlink()
    for name, length in lengths.items():
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"the checkpoint names {name!r}, a file outside {folder}")
        if not path.is_file() or path.stat().st_size < length:
            lost.append(name)
        else:
            os.truncate(path, length)
    for each in sorted(folder.iterdir()) if folder.is_dir() else []:
        if each.is_dir() and not any(path.is_file() for path in each.rglob("*")):
            shutil.rmtree(each)
    return lost
