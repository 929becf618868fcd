"""Files and folders: atomic writes, locks, checks, and limits on untrusted files."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn, TextIO

from filelock import FileLock, Timeout

from sentiment.runtime.errors import UserError

# Text is compressed to a third or a fifth of its size, and to a twentieth if lines are similar: a
# ratio of 100 is not text. Up to the floor, no machine that can train is harmed.
_MAX_RATIO = 100
_MIN_LIMIT = 256 * 2**20

# Characters of a line or a value; a longer one comes from a binary file or an unclosed quote.
LONGEST_LINE = 64 * 2**20
_BLOCK_BYTES = 2**20


class DecompressionBomb(UserError):
    """A file decompresses to far more than its size."""


class DecompressionLimit:
    """Counts the bytes that a compressed file unpacks to, up to a limit relative to its size."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._num_bytes = 0
        self.max_bytes = max(_MIN_LIMIT, _MAX_RATIO * path.stat().st_size)

    def add(self, num_bytes: int) -> None:
        """Count bytes that were or will be unpacked; too many raise ``DecompressionBomb``."""
        self._num_bytes += num_bytes
        if self._num_bytes > self.max_bytes:
            raise DecompressionBomb(
                f"{self._path} unpacks to more than {self.max_bytes // 2**20:,} MiB, which is over "
                f"{_MAX_RATIO} times its size, as files made to exhaust memory do: if you "
                "trust it, unpack it yourself"
            )


def require_file(path: Path) -> None:
    """Refuse anything but a regular file: reading a pipe or a device may never end."""
    if path.is_file():
        return
    if path.is_dir():
        raise UserError(f"{path} is a folder, where a file was expected")
    if path.exists():
        raise UserError(f"{path} is a pipe or a device: give a file")
    raise FileNotFoundError(f"there is no file {path}")


LOCK = ".lock"  # in a folder, locked while it is written to


def beside(output_dir: str, ending: str) -> str:
    """The path next to a run's folder whose name has this ending."""
    path = Path(output_dir).expanduser()
    if path.name in ("", ".."):
        path = path.resolve()
    if not path.name:
        raise UserError(f"output_dir is {output_dir!r}: choose a folder below it")
    return str(path.with_name(path.name + ending))


# Endings of the folders beside a run's, of the models that its training makes first.
_MADE_FIRST = ("-pretraining", "-baseline", "-teacher-1")


def find_earlier(run: Path) -> Path | None:
    """The folder of a model that is trained before the run itself, or None."""
    if not run.resolve().name:  # the root has nothing beside it
        return None
    folders = (Path(beside(str(run), ending)) for ending in reversed(_MADE_FIRST))
    return next((folder for folder in folders if folder.is_dir()), None)


def check_writable(path: Path) -> None:
    """Check that files can be written to a folder, which need not exist yet."""
    existing = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    if not existing.is_dir():
        raise NotADirectoryError(f"{existing} is a file: choose another folder to write to")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise PermissionError(f"{existing} cannot be written to: choose another folder")


def check_links(folder: Path) -> None:
    """Refuse links out of a folder, which may come from somebody else: a report written into the
    folder would overwrite a file of their choice.
    """
    if not folder.is_dir():
        return
    root = folder.resolve()
    for path in folder.rglob("*"):
        if path.is_symlink() and not path.resolve().is_relative_to(root):
            raise UserError(f"{path} is a link out of {folder}: replace it with its target")


@contextmanager
def run_lock(path: Path) -> Iterator[None]:
    """Lock a run's folder, at most until the process ends; ``FileExistsError`` if another training
    has locked it.
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
            f"another training writes to {path}: wait for it, or choose another output_dir"
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
    """Remove a folder that holds only the lock: its training failed before it began."""
    with suppress(OSError):  # it may be gone already
        if [file.name for file in path.iterdir()] == [LOCK]:
            shutil.rmtree(path)


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write a JSON file atomically."""
    atomic_write(path, (json.dumps(values, indent=2, allow_nan=False) + "\n").encode())


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file atomically; half surrogate pairs, which UTF-8 cannot hold, become ``?``."""
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows([columns, *rows])
    atomic_write(path, table.getvalue().encode("utf-8", "replace"))


def atomic_write(path: Path, data: bytes) -> None:
    """Write a file atomically: readers see either the old or the new one, even after a power cut.

    If it cannot be written, the old file stays.
    """
    new = path.with_name(path.name + ".new")
    try:
        with new.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
    except OSError:
        new.unlink(missing_ok=True)  # half a file would keep the disk full
        raise
    sync_folder(path.parent)


def file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def sync_folder(path: Path) -> None:
    """Flush a folder's entries to disk; Windows cannot open folders, and needs no flush."""
    if os.name == "posix":
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def read_text(path: Path, *, max_bytes: int = LONGEST_LINE) -> str:
    """A UTF-8 file's text without a byte order mark, at most ``max_bytes``."""
    require_file(path)
    num_bytes = path.stat().st_size
    if num_bytes > max_bytes:
        raise UserError(f"{path}: {num_bytes:,} bytes, but at most {max_bytes:,} are read")
    try:
        return path.read_bytes().decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError:
        _refuse(path)


def text_lines(path: Path) -> Iterator[str]:
    r"""Yield the lines of a UTF-8 file, which end in ``\n``, without a byte order mark."""
    require_file(path)
    with path.open(encoding="utf-8-sig", newline="\n") as file:
        try:
            yield from limited_lines(file, path)
        except UnicodeDecodeError:
            _refuse(path)


def limited_lines(file: TextIO, path: Path) -> Iterator[str]:
    """Yield the lines of an open file; refuse one longer than LONGEST_LINE."""
    for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE), ""), start=1):
        if len(line) == LONGEST_LINE:
            raise UserError(
                f"{path}, line {number} has more than {LONGEST_LINE:,} characters: is this a text "
                "file?"
            )
        yield line


def _refuse(path: Path) -> NoReturn:
    """Read a file that is not UTF-8 again, to report the first wrong byte."""
    position = 0
    with path.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE), b""), start=1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                position += error.start
                raise UserError(
                    f"{path}: not UTF-8 at byte {position}, in line {number}: save it as UTF-8"
                ) from error
            position += len(line)
    raise UserError(f"{path} changed while it was read: read it again")
