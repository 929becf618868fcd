"""Files of text in UTF-8, strictly: whole, or line by line in bounded memory."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from sentiment.bounds import LONGEST_LINE, require_file

_BLOCK_BYTES = 1 << 20


def read_text(path: Path) -> str:
    """A file's text without a byte order mark.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no plain file, larger than a text can be, or not UTF-8.
    """
    require_file(path)
    num_bytes = path.stat().st_size
    if num_bytes > LONGEST_LINE:
        raise ValueError(
            f"{path} has {num_bytes:,} bytes, more than the {LONGEST_LINE:,} that a text may have: "
            "is it one?"
        )
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
        ValueError: it is no plain file, not UTF-8, or a line is longer than LONGEST_LINE.
    """
    require_file(path)
    with path.open(encoding="utf-8-sig", newline=newline) as file:
        number = 0
        try:
            while line := file.readline(LONGEST_LINE):
                number += 1
                if len(line) == LONGEST_LINE:
                    raise ValueError(
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
                raise ValueError(
                    f"{path}: not UTF-8 at byte {place}, in line {line}: save it as UTF-8"
                ) from error
            if not block:  # another process mended it meanwhile
                raise ValueError(f"{path} changed while it was read: read it again")
            num_bytes += len(block)
            line += block.count(b"\n")
