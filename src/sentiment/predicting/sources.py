"""Where texts to predict come from, read block by block.

What is wrong with one row is the row's problem and told with it; what makes the rest of a file
unreadable (a quote that is never closed, a cut-off archive) is an error.
"""

from __future__ import annotations

import gzip
import io
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO

from sentiment.bounds import LONGEST_LINE, Unpacked, require_file, shortened
from sentiment.predicting.blocks import Block

if TYPE_CHECKING:
    import pyarrow as pa

LONGEST = LONGEST_LINE
# Where a block ends before it has its number of rows.
_MOST_CHARACTERS_OF_A_BLOCK = 50_000_000
_ESCAPED = "surrogateescape"  # keeps bytes that are not UTF-8, so that their row can be named


class Source(ABC):
    """Where texts come from.

    Attributes:
        place: what to call it in messages.
        columns: names of the columns.
    """

    place: str
    columns: Sequence[str]

    @abstractmethod
    def blocks(self, window: int) -> Iterator[Block]:
        """The rows in blocks of ``window``, of fewer where texts are very long.

        A file gives the same blocks every time.
        """

    @property
    def schema(self) -> pa.Schema:
        """The columns in Parquet: of text, where the source does not say what they hold."""
        import pyarrow as pa

        return pa.schema([(name, pa.string()) for name in self.columns])


class FileSource(Source):
    """A file of texts.

    Args:
        path: the file.
        text_column: name of the column with the texts.
    """

    def __init__(self, path: Path, text_column: str) -> None:
        require_file(path)
        self.path = path
        self.place = str(path)
        self.text_column = text_column
        self.columns = self._read_columns()

    @abstractmethod
    def _read_columns(self) -> Sequence[str]:
        """Names of the columns, the text column among them."""

    def check_columns(self, columns: Sequence[str]) -> None:
        found = ", ".join(repr(shortened(name)) for name in columns[:20]) or "none"
        if len(columns) > 20:
            found += f" and {len(columns) - 20} more"
        if self.text_column not in columns:
            raise ValueError(
                f"{self.path}: no column {self.text_column!r}; found: {found}: name the one with "
                "the texts by --text-column"
            )
        twice = next((name for name in columns if columns.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"{self.path}: column {twice!r} is there twice: rename one of them")


class TextSource(FileSource):
    """What files of lines have in common."""

    @contextmanager
    def open_text(self, newline: str) -> Iterator[tuple[TextIO, BinaryIO]]:
        """The file as text, and the file of bytes under it."""
        try:
            with self.path.open("rb") as raw:
                is_packed = self.path.suffix == ".gz"
                data: Any = _Gzip(raw, self.path) if is_packed else raw
                yield io.TextIOWrapper(data, "utf-8-sig", _ESCAPED, newline), raw
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise ValueError(f"{self.path} is damaged: {error}: pack it again") from error

    def lines(self, file: TextIO) -> Iterator[str]:
        for number, line in enumerate(iter(lambda: file.readline(LONGEST), ""), start=1):
            if len(line) == LONGEST:
                raise ValueError(
                    f"{self.path}, line {number} has more than {LONGEST:,} characters: is this "
                    "a text file?"
                )
            yield line

    def cut(
        self, rows: Iterable[tuple[int, Any]], window: int, raw: BinaryIO
    ) -> Iterator[tuple[int, list[Any], float]]:
        """Rows with their sizes to (number of the first, rows, share of the file read)."""
        size = max(1, self.path.stat().st_size)
        first, taken, num_characters = 1, [], 0
        for characters, row in rows:
            taken.append(row)
            num_characters += characters
            if len(taken) == window or num_characters >= _MOST_CHARACTERS_OF_A_BLOCK:
                yield first, taken, raw.tell() / size
                first, taken, num_characters = first + len(taken), [], 0
        if taken:
            yield first, taken, 1.0


class _Gzip(gzip.GzipFile):
    """A gzip file that counts what it unpacks to."""

    def __init__(self, raw: BinaryIO, path: Path) -> None:
        super().__init__(fileobj=raw)
        self._unpacked = Unpacked(path)

    def read1(self, size: int = -1) -> bytes:
        """What is there next, as :class:`io.TextIOWrapper` asks for it."""
        data = super().read1(size)
        self._unpacked.add(len(data))
        return data


def unpacked_suffix(path: Path) -> str:
    """The ending of a file's name, that of what is packed where it is packed."""
    return path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
