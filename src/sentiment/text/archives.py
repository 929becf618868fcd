"""Text that may be packed: opened without unpacking it to the disk, read line by line, checked.

What a file says of its own sizes is not believed: nothing is allocated by it, and what it unpacks
to is counted (:mod:`sentiment.bounds`).
"""

from __future__ import annotations

import errno
import gzip
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, TypeAlias

from sentiment.bounds import OutOfProportion, Unpacked, require_file, shortened

MAX_LINE_BYTES = 1 << 20  # a word and 300 values take about 2,600: what is longer is no such line
BLOCK_BYTES = 1 << 20
TOO_LONG = b"\n"  # stands for a line over MAX_LINE_BYTES; no other line can be this

_File: TypeAlias = IO[bytes] | gzip.GzipFile

# What gzip and zipfile raise over missing or wrong bytes, besides OSError. RuntimeError stands for
# flags of a zip, set by damage or not: a password, a way of packing that Python does not know.
_DAMAGE = (
    EOFError,
    OverflowError,
    RuntimeError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


@contextmanager
def open_text(path: Path, *, name_part: str) -> Iterator[Iterator[bytes]]:
    """Open `.zip`, `.gz` or plain text and hand out its lines, as ``text_lines`` describes them.

    Of several texts in a zip, the one with ``name_part`` in its name is taken.

    Raises FileNotFoundError without a file, ValueError if it is damaged or the choice is unclear.
    """
    if not path.exists() or path.is_dir():
        raise FileNotFoundError(
            f"there is no vectors file {path}: correct --vectors.path, or set it to null"
        )
    require_file(path)
    is_packed = path.suffix.lower() in (".zip", ".gz")
    with ExitStack() as stack:
        file: _File
        with _damage_named(path):
            if path.suffix.lower() == ".zip":
                archive = stack.enter_context(zipfile.ZipFile(path))
                file = stack.enter_context(_open_member(archive, path, name_part))
            elif path.suffix.lower() == ".gz":
                file = stack.enter_context(gzip.open(path))
            else:
                file = stack.enter_context(path.open("rb"))
        yield _lines_of(path, file, Unpacked(path) if is_packed else None)


def text_lines(file: _File, unpacked: Unpacked | None = None) -> Iterator[bytes]:
    r"""Yield each line without its end (``\n`` or ``\r\n``) and without trailing spaces.

    A line over MAX_LINE_BYTES is skipped and ``TOO_LONG`` stands in its place, so that the lines
    keep their numbers. A block and a line at a time are all that is held; blocks are counted where
    they are unpacked.
    """
    rest, too_long = b"", False
    while block := file.read(BLOCK_BYTES):
        if unpacked is not None:
            unpacked.add(len(block))
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            yield TOO_LONG if too_long or len(line) > MAX_LINE_BYTES else line.rstrip(b" \r")
            too_long = False
        if len(rest) > MAX_LINE_BYTES:
            rest, too_long = b"", True
    if rest or too_long:
        yield TOO_LONG if too_long else rest.rstrip(b" \r")


def damage(path: Path, *, suffix: str) -> str | None:
    """Read an archive through and say what is wrong with it; None if it is whole.

    ``suffix`` says how to read it (``.zip``, ``.gz``): the file itself may carry another name.
    """
    unpacked = Unpacked(path)
    try:
        with _damage_named("it"):
            if suffix == ".zip":
                with zipfile.ZipFile(path) as archive:
                    return _damaged_member(archive, unpacked)
            if path.stat().st_size == 0:
                return "it is empty"  # which gzip takes for a whole file of no members
            with gzip.open(path) as file:
                _read_through(file, unpacked)
    except ValueError as error:
        return str(error)
    return None


def _damaged_member(archive: zipfile.ZipFile, unpacked: Unpacked) -> str | None:
    for member in archive.infolist():
        with archive.open(member) as file:
            try:
                _read_through(file, unpacked)
            except zipfile.BadZipFile:
                return f"the checksum of {shortened(member.filename)!r} in it is wrong"
    return None


def _read_through(file: _File, unpacked: Unpacked) -> None:
    while block := file.read(BLOCK_BYTES):
        unpacked.add(len(block))


def _lines_of(path: Path, file: _File, unpacked: Unpacked | None) -> Iterator[bytes]:
    with _damage_named(path):
        yield from text_lines(file, unpacked)


@contextmanager
def _damage_named(what: Path | str) -> Iterator[None]:
    """Turn what gzip and zipfile raise over missing or wrong bytes into one ValueError."""
    try:
        yield
    except (_Refused, OutOfProportion):
        raise
    except (*_DAMAGE, OSError) as error:
        # gzip's own OSErrors have no number, and EINVAL comes from an offset that a zip makes up.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise  # of the disk
        raise ValueError(f"{what} is damaged, cut off or locked ({error}): get it again") from error


class _Refused(ValueError):
    """A zip that is whole and yet of no use."""


def _open_member(archive: zipfile.ZipFile, path: Path, name_part: str) -> IO[bytes]:
    """Open the text with ``name_part`` in its name, or the only text there is."""
    texts = [
        member
        for member in archive.infolist()
        if member.filename.endswith(".txt") and not member.filename.startswith("__MACOSX/")
    ]
    fitting = [member for member in texts if name_part in member.filename] or texts
    if len(fitting) != 1:
        names = (
            ", ".join(repr(shortened(member.filename)) for member in texts[:10]) or "no .txt file"
        )
        raise _Refused(
            f"{path} holds {names}, but not exactly one text with {name_part!r} in its name: set "
            f"--model.embedding_size to a dimension that it has, or unpack the one that you mean"
        )
    # bzip2 and LZMA would be unpacked without a bound on memory: zipfile sets one for deflate only.
    if fitting[0].compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise _Refused(f"{path}: {fitting[0].filename!r} is neither stored nor deflated; repack it")
    return archive.open(fitting[0])
