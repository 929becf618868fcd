"""Text files as characters: compression, byte order marks and encodings."""

from __future__ import annotations

import bz2
import codecs
import errno
import gzip
import io
import lzma
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from sentiment.config.config import DataConfig
from sentiment.runtime.errors import UserError
from sentiment.runtime.files import LONGEST_LINE, DecompressionLimit, require_file

COMPRESSIONS = (".gz", ".bz2", ".xz", ".zip")

_MARKS = (  # the longer ones first: UTF-16's mark begins UTF-32's
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Encodings of public files; cp1252 includes Latin-1's letters. Of equally likely ones, the first is
# taken.
_CANDIDATES = [
    "cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "koi8_r",
    "mac_roman", "gb18030", "shift_jis", "euc_jp", "big5", "cp949",
]  # fmt: skip
_NEARLY_AS_GOOD = 0.02  # difference of charset-normalizer's measure of chaos, 0 to 1
_ESCAPED = re.compile("[\udc80-\udcff]")  # bytes that an encoding does not know
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f]")
_HEAD_BYTES = 4_096
_SAMPLE_BYTES = 1 << 16


class _Limited(io.BufferedIOBase):
    """A decompressed file with a limit on its size."""

    def __init__(self, file: Any, path: Path) -> None:
        self._file = file
        self._limit = DecompressionLimit(path)

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1) -> bytes:
        return self._counted(self._file.read(size))

    def read1(self, size: int = -1) -> bytes:  # what io.TextIOWrapper calls
        return self._counted(self._file.read1(size))

    def _counted(self, data: bytes) -> bytes:
        self._limit.add(len(data))
        return data


def unpacked_suffix(path: Path) -> str:
    """The lower-case ending of the name of a file, or of the file in a compressed one."""
    suffix = path.suffix.lower()
    if suffix == ".zip":
        with path.open("rb") as raw, _explained(path), zipfile.ZipFile(raw) as archive:
            return Path(_only_member(archive, path)).suffix.lower()
    return (path.with_suffix("") if suffix in COMPRESSIONS else path).suffix.lower()


def members(archive: zipfile.ZipFile) -> list[str]:
    """The names of the files in an archive, without what macOS adds."""
    return [
        name
        for name in archive.namelist()
        if not name.endswith("/") and not name.startswith("__MACOSX/")
    ]


# Which file of an archive is read.
ChooseMember = Callable[[zipfile.ZipFile, Path], str]


def _only_member(archive: zipfile.ZipFile, path: Path) -> str:
    names = members(archive)
    if len(names) == 1:
        return names[0]
    found = f"{', '.join(names[:5])}{', …' if len(names) > 5 else ''}" or "nothing"
    raise UserError(
        f"{path} holds {found}, but must hold one file: unpack it and give the folder or a file"
    )


@contextmanager
def open_unpacked(path: Path, choose_member: ChooseMember = _only_member) -> Iterator[Any]:
    """A file's bytes, unpacked if it is compressed: of a zip, the member that is chosen."""
    with path.open("rb") as raw, _explained(path):
        yield _unpack(raw, path, choose_member)


@contextmanager
def open_text(
    path: Path, encoding: str | None = None, *, newline: str = ""
) -> Iterator[tuple[TextIO, BinaryIO]]:
    """A file, compressed or not, as text, and the file of bytes under it.

    A byte order mark decides the encoding, then ``encoding``, then UTF-8. Bytes of another encoding
    become surrogate escapes, so that their row can be named.
    """
    with path.open("rb") as raw, _explained(path):
        encoding = _marked_encoding(_unpack(raw, path).read(_HEAD_BYTES)) or encoding or "utf-8"
        raw.seek(0)
        yield io.TextIOWrapper(_unpack(raw, path), encoding, "surrogateescape", newline), raw


def _unpack(raw: BinaryIO, path: Path, choose_member: ChooseMember = _only_member) -> Any:
    match path.suffix.lower():
        case ".gz":
            return _Limited(gzip.GzipFile(fileobj=raw), path)
        case ".bz2":
            return _Limited(bz2.BZ2File(raw), path)
        case ".xz":
            return _Limited(lzma.LZMAFile(raw), path)
        case ".zip":
            archive = zipfile.ZipFile(raw)
            member = archive.getinfo(choose_member(archive, path))
            # zipfile bounds the memory of decompression for deflate only, not for bzip2 and LZMA.
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise UserError(
                    f"{path}: {member.filename!r} is neither stored nor deflated: unpack it"
                )
            return _Limited(archive.open(member), path)
    return raw


# What the libraries raise for missing or wrong bytes, besides OSError; RuntimeError for a password.
_DAMAGE = (
    EOFError, OverflowError, RuntimeError, ValueError, struct.error, lzma.LZMAError,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not {error.encoding} text: {error.reason} at byte {error.start}"
        ) from error
    except (*_DAMAGE, OSError) as error:
        # OSErrors of decompressors have no number; EINVAL comes from a wrong offset in a zip.
        is_of_disk = isinstance(error, OSError) and error.errno not in (None, errno.EINVAL)
        if is_of_disk or path.suffix.lower() not in COMPRESSIONS:
            raise
        raise UserError(
            f"{path} is damaged, truncated or password-protected ({error}): get it again"
        ) from error


def _marked_encoding(head: bytes) -> str | None:
    """The encoding that a byte order mark or the zeros of UTF-16 show."""
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding
    for start, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
        high, low = head[start::2], head[1 - start :: 2]
        if len(head) > 1 and high.count(0) > 0.9 * len(high) and low.count(0) < 0.1 * len(low):
            return encoding
    return None


def read_text_file(path: Path, data: DataConfig) -> str:
    """The text of a file that is one review."""
    require_file(path)
    if path.stat().st_size > LONGEST_LINE:
        raise UserError(f"{path}: more than {LONGEST_LINE:,} bytes: is this one review?")
    content = path.read_bytes()
    encoding = _marked_encoding(content[:_HEAD_BYTES]) or data.encoding or "utf-8"
    try:
        return content.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: {wrong_encoding(path, data)}") from error


def wrong_encoding(path: Path, data: DataConfig) -> str:
    """The error message for text that the encoding in the settings cannot read."""
    guess = guess_encoding(path)
    if guess is None:
        return f"not {data.encoding or 'UTF-8'}: save the file as UTF-8"
    setting = data.option("encoding", guess)
    return f"not {data.encoding or 'UTF-8'}, but probably {guess}: set {setting}"


def guess_encoding(path: Path) -> str | None:
    """The encoding that is likely to have written a file that is not UTF-8, and reads all of it."""
    import charset_normalizer  # here for start-up time

    sample = _lines_beyond_ascii(path)
    matches = charset_normalizer.from_bytes(sample, cp_isolation=_CANDIDATES)
    best = matches.best()
    if best is None:
        return None
    likely = [match for match in matches if match.chaos <= best.chaos + _NEARLY_AS_GOOD]
    coherence = max(match.coherence for match in likely)
    likely = [match for match in likely if match.coherence == coherence]
    names = {name for match in likely for name in match.could_be_from_charset}
    found = [name for name in _CANDIDATES if name in names]
    return next((name for name in found if _is_text(path, name)), None)


def _lines_beyond_ascii(path: Path) -> bytes:
    """The first lines with bytes that are not ASCII."""
    sample = rest = b""
    with open_unpacked(path) as data:
        while len(sample) < _SAMPLE_BYTES and (block := data.read(_SAMPLE_BYTES)):
            *lines, rest = (rest + block).split(b"\n")
            if len(rest) > _SAMPLE_BYTES:
                lines, rest = [*lines, rest], b""
            sample += b"\n".join(line for line in lines if not line.isascii())
    return sample + rest


def is_readable(path: Path, encoding: str | None) -> bool:
    """Whether an encoding knows all bytes of a file."""
    return not any(map(_ESCAPED.search, _text_blocks(path, encoding)))


def _is_text(path: Path, encoding: str) -> bool:
    """Whether an encoding reads a file without control characters, which binary files have."""
    blocks = _text_blocks(path, encoding)
    return not any(_ESCAPED.search(block) or _CONTROL.search(block) for block in blocks)


def _text_blocks(path: Path, encoding: str | None) -> Iterator[str]:
    with open_text(path, encoding) as (file, _):
        while block := file.read(_SAMPLE_BYTES):
            yield block
