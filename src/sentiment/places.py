"""Folders to write to: whether one may, and alone."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

LOCK = ".lock"  # held while a folder is written to


def beside(output_dir: str, ending: str) -> str:
    """A folder that belongs to a run's and lies next to it.

    Raises:
        ValueError: the run's is the whole disk, which nothing lies next to.
    """
    path = Path(output_dir).expanduser()
    if path.name in ("", ".."):
        path = path.resolve()
    if not path.name:
        raise ValueError(f"output_dir is {output_dir!r}: choose a folder below it")
    return str(path.with_name(path.name + ending))


def check_writable(path: Path) -> None:
    """Check that files may be written to a folder that there may not be yet.

    Raises:
        NotADirectoryError: the path, or one above it, is a file.
        PermissionError: nothing can be written there.
    """
    there = next(each for each in (path, *path.absolute().parents) if each.exists())
    if not there.is_dir():
        raise NotADirectoryError(f"{there} is a file: choose another folder to write to")
    if not os.access(there, os.W_OK | os.X_OK):
        raise PermissionError(f"nothing can be written in {there}: choose another folder")


def check_links(folder: Path) -> None:
    """Check that no link leads out of a folder, which others may have put together.

    Whoever writes a report into it would write, by such a link, to a place of their choice.

    Raises:
        ValueError: one does.
    """
    if not folder.is_dir():
        return
    place = folder.resolve()
    for each in folder.rglob("*"):
        if each.is_symlink() and not each.resolve().is_relative_to(place):
            raise ValueError(
                f"{each} is a link out of {folder}: put what it leads to in its place, or remove it"
            )


@contextmanager
def written_alone(path: Path) -> Iterator[None]:
    """Hold a run's folder against other trainings, until the process ends in whatever way.

    Raises:
        FileExistsError: another process trains into it.
        OSError: nothing can be written there.
    """
    check_writable(path)
    path.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path / LOCK, blocking=False):
            try:
                yield
            finally:
                _leave_nothing_of_nothing(path)
    except Timeout as error:
        raise FileExistsError(
            f"another training writes to {path}: let it end, or choose another output_dir"
        ) from error


def _leave_nothing_of_nothing(path: Path) -> None:
    """Remove a folder in which there is nothing but the lock: its training failed to begin."""
    with suppress(OSError):  # it may be gone already
        if [each.name for each in path.iterdir()] == [LOCK]:
            shutil.rmtree(path)


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write a JSON file in one step: readers see the old one or the new one."""
    write_whole(path, (json.dumps(values, indent=2, allow_nan=False) + "\n").encode())


def write_whole(path: Path, data: bytes) -> None:
    """Write a file in one step, to last: after it, a loss of power leaves the new one.

    Raises:
        OSError: it could not be written; the old file stays, and nothing of the new one.
    """
    new = path.with_name(path.name + ".new")
    try:
        with new.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
    except OSError:
        new.unlink(missing_ok=True)  # half a file would take the room that is lacking
        raise
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Have the disk hold the names in a folder, where a system lets folders be opened."""
    if os.name == "posix":
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
