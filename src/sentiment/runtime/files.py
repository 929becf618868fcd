"""Files and folders: locks, checks, limits on untrusted files, writing in one step."""

from __future__ import annotations

import codecs
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from filelock import FileLock, Timeout

from sentiment.runtime.errors import UserError

# Text packs to a third or a fifth of its size, and to a twentieth where lines are much alike: a
# hundred times is no text any more. What unpacks to less than the floor hurts no machine that can
# train, however small its file.
MOST_TIMES_UNPACKED = 100
ALWAYS_UNPACKED = 256 * 2**20

# Characters of a line or a value: beyond it a file is none of lines, or a quote was never closed.
LONGEST_LINE = 64 * 2**20


class DecompressionBomb(UserError):
    """A file unpacks to more than the rule allows."""


class DecompressionLimit:
    """Counts what comes out of a packed file, and refuses what is out of proportion to it.

    Args:
        path: the packed file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._num_bytes = 0
        self.most = max(ALWAYS_UNPACKED, MOST_TIMES_UNPACKED * path.stat().st_size)

    def add(self, num_bytes: int) -> None:
        """Count bytes that were unpacked, or are about to be.

        Raises:
            OutOfProportion: it is more than the rule allows.
        """
        self._num_bytes += num_bytes
        if self._num_bytes > self.most:
            raise DecompressionBomb(
                f"{self._path} unpacks to more than {self.most // 2**20:,} MiB, which is over "
                f"{MOST_TIMES_UNPACKED} times its size: it was made to fill memory, or write it "
                "again unpacked if you trust it"
            )


def require_file(path: Path) -> None:
    """Refuse what only looks like a file by its name: reading a pipe or a device may never end.

    Raises:
        FileNotFoundError: there is nothing of that name.
        UserError: it is a folder, a pipe, a device or the like.
    """
    if path.is_file():
        return
    if path.is_dir():
        raise UserError(f"{path} is a folder, where a file was expected")
    if path.exists():
        raise UserError(f"{path} is a pipe or a device: give a file")
    raise FileNotFoundError(f"there is no file {path}")


LOCK = ".lock"  # held while a folder is written to


def beside(output_dir: str, ending: str) -> str:
    """A folder that belongs to a run's and lies next to it.

    Raises:
        UserError: the run's is the whole disk, which nothing lies next to.
    """
    path = Path(output_dir).expanduser()
    if path.name in ("", ".."):
        path = path.resolve()
    if not path.name:
        raise UserError(f"output_dir is {output_dir!r}: choose a folder below it")
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
        UserError: one does.
    """
    if not folder.is_dir():
        return
    place = folder.resolve()
    for each in folder.rglob("*"):
        if each.is_symlink() and not each.resolve().is_relative_to(place):
            raise UserError(
                f"{each} is a link out of {folder}: put what it leads to in its place, or remove it"
            )


@contextmanager
def run_lock(path: Path) -> Iterator[None]:
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
                _remove_if_empty(path)
    except Timeout as error:
        raise FileExistsError(
            f"another training writes to {path}: let it end, or choose another output_dir"
        ) from error


def is_locked(path: Path) -> bool:
    """Whether a training writes to a run's folder."""
    if not (path / LOCK).exists():
        return False
    try:
        with FileLock(path / LOCK, blocking=False):
            return False
    except Timeout:
        return True


def _remove_if_empty(path: Path) -> None:
    """Remove a folder in which there is nothing but the lock: its training failed to begin."""
    with suppress(OSError):  # it may be gone already
        if [each.name for each in path.iterdir()] == [LOCK]:
            shutil.rmtree(path)


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write a JSON file in one step: readers see the old one or the new one."""
    atomic_write(path, (json.dumps(values, indent=2, allow_nan=False) + "\n").encode())


def atomic_write(path: Path, data: bytes) -> None:
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


_BLOCK_BYTES = 1 << 20


def read_text(path: Path, *, max_bytes: int = LONGEST_LINE) -> str:
    """A file's text without a byte order mark.

    Raises:
        FileNotFoundError: the file does not exist.
        UserError: it is not a regular file, has more than ``max_bytes``, or is not UTF-8.
    """
    require_file(path)
    num_bytes = path.stat().st_size
    if num_bytes > max_bytes:
        raise UserError(f"{path}: {num_bytes:,} bytes, but at most {max_bytes:,} are read")
    try:
        return path.read_bytes().decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError:
        _refuse(path)


def text_lines(path: Path, *, newline: str) -> Iterator[str]:
    r"""Yield a file's lines with their ends, without a byte order mark.

    Args:
        path: the file.
        newline: what ends a line, as :func:`open` takes it: ``"\n"``, or ``""`` for ``\n``,
            ``\r\n`` and ``\r``, as :mod:`csv` wants it.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: it is no plain file, not UTF-8, or a line is longer than LONGEST_LINE.
    """
    require_file(path)
    with path.open(encoding="utf-8-sig", newline=newline) as file:
        number = 0
        try:
            while line := file.readline(LONGEST_LINE):
                number += 1
                if len(line) == LONGEST_LINE:
                    raise UserError(
                        f"{path}, line {number} has more than {LONGEST_LINE:,} characters: is "
                        "this a text file?"
                    )
                yield line
        except UnicodeDecodeError:
            _refuse(path)


def _refuse(path: Path) -> NoReturn:
    """Read a file that is not UTF-8 again, to say where it is not."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    num_bytes, line = 0, 1
    with path.open("rb") as file:
        while True:
            block = file.read(_BLOCK_BYTES)
            kept = decoder.getstate()[0]  # the beginning of a character
            try:
                decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                line += (kept + block).count(b"\n", 0, error.start)
                place = num_bytes - len(kept) + error.start
                raise UserError(
                    f"{path}: not UTF-8 at byte {place}, in line {line}: save it as UTF-8"
                ) from error
            if not block:  # another process mended it meanwhile
                raise UserError(f"{path} changed while it was read: read it again")
            num_bytes += len(block)
            line += block.count(b"\n")
