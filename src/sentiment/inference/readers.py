"""Texts to predict, read in blocks, and carried over into another file."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO

from sentiment.display.console import truncate
from sentiment.runtime.errors import UserError
from sentiment.runtime.files import LONGEST_LINE, DecompressionLimit, require_file

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Block(ABC):
    """Successive rows of a file.

    Attributes:
        place: the file, for messages.
        first_row: number of the first row, counted from 1 without the header.
        columns: names of the columns.
        texts: what to predict in each row; None where the row is a bad one.
        problems: what is wrong with a bad row, by its place in the block.
        share_read: of the file, up to the end of this block, between 0 and 1.
    """

    place: str
    first_row: int
    columns: Sequence[str]
    texts: list[str | None]
    problems: dict[int, str]
    share_read: float

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def last_row(self) -> int:
        """Number of the last row."""
        return self.first_row + len(self) - 1

    def keys(self) -> set[str]:
        """Names of all that the rows hold."""
        return set(self.columns)

    @abstractmethod
    def json_objects(self) -> list[str]:
        """Each row as a JSON object; an empty one for a row that cannot be read at all."""

    @abstractmethod
    def cells(self) -> list[list[str]]:
        """Each row as one text for each column; empty ones where there is no value."""

    def table(self) -> pa.Table:
        """The rows as columns, of text where the file does not say what they hold."""
        import pyarrow as pa

        rows = self.cells()
        columns = [[whole_characters(row[place]) for row in rows] for place in self._places()]
        return pa.table([pa.array(each, pa.string()) for each in columns], list(self.columns))

    def _places(self) -> range:
        return range(len(self.columns))


@dataclass(frozen=True)
class DelimitedBlock(Block):
    """Rows of CSV or TSV, or lines of text.

    Attributes:
        rows: cells; not as many as there are columns where the row is a bad one. Bytes that are
            not UTF-8 stand in them as Python's surrogate escapes.
    """

    rows: list[list[str]]

    def json_objects(self) -> list[str]:
        return [
            to_json(dict(zip(self.columns, map(whole_characters, row), strict=True)))
            for row in self.cells()
        ]

    def cells(self) -> list[list[str]]:
        width = len(self.columns)
        return [row if len(row) == width else (row + [""] * width)[:width] for row in self.rows]


@dataclass(frozen=True)
class JsonBlock(Block):
    """Rows of JSON Lines.

    Attributes:
        lines: as the file has them; those that are JSON objects are carried to the character.
        records: what they hold; None where a line is no JSON object.
    """

    lines: list[str]
    records: list[dict[str, Any] | None]

    def keys(self) -> set[str]:
        return set().union(*filter(None, self.records))

    def json_objects(self) -> list[str]:
        pairs = zip(self.lines, self.records, strict=True)
        return ["{}" if record is None else line for line, record in pairs]

    def cells(self) -> list[list[str]]:
        rows = []
        known = set(self.columns)
        for place, record in enumerate(self.records):
            record = record or {}
            if not record.keys() <= known:
                extra = next(key for key in record if key not in known)
                raise UserError(
                    f"{self.place}, row {self.first_row + place}: {extra!r} is not among the keys "
                    "of the first row, which become the columns: write JSON Lines, whose rows may "
                    "differ (--output NAME.jsonl)"
                )
            rows.append([_as_cell(record.get(name)) for name in self.columns])
        return rows


@dataclass(frozen=True)
class ParquetBlock(Block):
    """Rows of Parquet.

    Attributes:
        rows: as the file has them, types and metadata of the schema included.
    """

    rows: pa.Table

    def json_objects(self) -> list[str]:
        return [to_json(record) for record in self._records]

    def cells(self) -> list[list[str]]:
        return [[_as_cell(value) for value in record.values()] for record in self._records]

    def table(self) -> pa.Table:
        return self.rows

    @cached_property
    def _records(self) -> list[dict[str, Any]]:
        try:
            return self.rows.to_pylist()
        except UnicodeDecodeError as error:
            raise UserError(
                f"{self.place}, rows {self.first_row} to {self.last_row}: a value is not UTF-8: "
                "write Parquet, which carries it as it is (--output NAME.parquet)"
            ) from error


def to_json(value: Any) -> str:
    """JSON on one line; what JSON does not know (dates, decimals) as its text, NaN as null."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, default=str)
    except ValueError:
        return json.dumps(_without_nan(value), ensure_ascii=False, default=str)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_without_nan(each) for each in value]
    is_number = not isinstance(value, float) or abs(value) < float("inf")
    return value if is_number else None


def _as_cell(value: Any) -> str:
    if value is None:
        return ""
    return whole_characters(value) if isinstance(value, str) else to_json(value).strip('"')


def whole_characters(text: str) -> str:
    """Text without halves of surrogate pairs, which UTF-8 cannot hold."""
    if text.isascii():
        return text
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def is_utf8(text: str) -> bool:
    """Whether UTF-8 can hold a text."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


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
        found = ", ".join(repr(truncate(name, 60)) for name in columns[:20]) or "none"
        if len(columns) > 20:
            found += f" and {len(columns) - 20} more"
        if self.text_column not in columns:
            raise UserError(
                f"{self.path}: no column {self.text_column!r}; found: {found}: name the one with "
                "the texts by --text-column"
            )
        twice = next((name for name in columns if columns.count(name) > 1), None)
        if twice is not None:
            raise UserError(f"{self.path}: column {twice!r} is there twice: rename one of them")


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
            raise UserError(f"{self.path} is damaged: {error}: pack it again") from error

    def lines(self, file: TextIO) -> Iterator[str]:
        for number, line in enumerate(iter(lambda: file.readline(LONGEST), ""), start=1):
            if len(line) == LONGEST:
                raise UserError(
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
        self._unpacked = DecompressionLimit(path)

    def read1(self, size: int = -1) -> bytes:
        """What is there next, as :class:`io.TextIOWrapper` asks for it."""
        data = super().read1(size)
        self._unpacked.add(len(data))
        return data


def unpacked_suffix(path: Path) -> str:
    """The ending of a file's name, that of what is packed where it is packed."""
    return path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
