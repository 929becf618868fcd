"""Files of texts as blocks of rows: CSV, TSV, JSON Lines, Parquet and plain lines.

A new format is a subclass of :class:`FileSource` and an entry in :func:`open_source`.
"""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from sentiment.data.blocks import (
    Block,
    JsonBlock,
    ParquetBlock,
    delimited_block,
    is_utf8,
    plain_column,
    python_values,
    value_problem,
)
from sentiment.display.console import truncate
from sentiment.runtime import files
from sentiment.runtime.errors import UserError
from sentiment.runtime.files import DecompressionLimit, limited_lines, require_file

DELIMITERS = {".csv": ",", ".tsv": "\t"}

# A block of very long texts ends before it has its number of rows.
_MAX_BLOCK_CHARACTERS = 50_000_000
_MAX_LISTED = 20
_ROW_BYTES = 64  # memory that a row takes in Python besides the characters of its text
_MAX_BATCH_ROWS = 1_000  # decoded before their size is known
_BUFFER_BYTES = 1 << 20  # read ahead of a column instead of its whole chunk
_NAME_TEXTS = "name the one with the texts by --text-column"
_STRINGS = (pa.string(), pa.large_string(), pa.string_view(), pa.null())


class Source(ABC):
    """A source of rows."""

    origin: str  # its name in messages
    columns: Sequence[str]

    @abstractmethod
    def blocks(self, size: int) -> Iterator[Block]:
        """Yield blocks of ``size`` rows, or fewer if texts are very long.

        An unchanged file gives the same blocks every time.
        """

    @property
    def schema(self) -> pa.Schema:
        """The columns in Parquet; of strings where the source has no types."""
        return pa.schema([(name, pa.string()) for name in self.columns])


class FileSource(Source):
    """A file of rows, with the columns to read; ``other_columns`` None reads all."""

    def __init__(
        self, path: Path, text_column: str, other_columns: Sequence[str] | None = None
    ) -> None:
        self.path = path
        self.origin = str(path)
        self.text_column = text_column
        self.other_columns = other_columns
        self.columns = self._read_columns()

    @abstractmethod
    def _read_columns(self) -> Sequence[str]:
        """Names of the columns, after :meth:`check_columns`."""

    def check_columns(self, columns: Sequence[str]) -> None:
        """Refuse columns without those to read, or with two of one name."""
        needed = [self.text_column, *(self.other_columns or ())]
        missing = next((name for name in needed if name not in columns), None)
        if missing is not None:
            listed = ", ".join(repr(truncate(name, 60)) for name in columns[:_MAX_LISTED]) or "none"
            if len(columns) > _MAX_LISTED:
                listed += f" and {len(columns) - _MAX_LISTED} more"
            advice = f"columns {' and '.join(needed)} are needed"
            if self.other_columns is None:
                advice = _NAME_TEXTS
            raise UserError(f"{self.path}: no column {missing!r}; found: {listed}: {advice}")
        to_read = columns if self.other_columns is None else needed
        twice = next((name for name in to_read if list(columns).count(name) > 1), None)
        if twice is not None:
            raise UserError(f"{self.path}: column {twice!r} occurs twice: rename one of them")


class TextSource(FileSource):
    """Base of the formats that consist of lines, compressed by gzip or not."""

    @contextmanager
    def open_text(self, newline: str) -> Iterator[tuple[TextIO, BinaryIO]]:
        """The file as text, and the file of bytes under it."""
        try:
            with self.path.open("rb") as raw:
                data: Any = _Gzip(raw, self.path) if self.path.suffix == ".gz" else raw
                # Surrogate escapes keep bytes that are not UTF-8, so that their row can be named.
                yield io.TextIOWrapper(data, "utf-8-sig", "surrogateescape", newline), raw
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise UserError(f"{self.path} is damaged: {error}: pack it again") from error

    def group(
        self, rows: Iterable[tuple[int, Any]], size: int, raw: BinaryIO
    ) -> Iterator[tuple[int, list[Any], float]]:
        """Group rows, given with their sizes: (number of the first, rows, share of the file)."""
        num_bytes = max(1, self.path.stat().st_size)
        first, group, num_characters = 1, [], 0
        for characters, row in rows:
            group.append(row)
            num_characters += characters
            if len(group) == size or num_characters >= _MAX_BLOCK_CHARACTERS:
                yield first, group, raw.tell() / num_bytes
                first, group, num_characters = first + len(group), [], 0
        if group:
            yield first, group, 1.0


class _Gzip(gzip.GzipFile):
    """A gzip file with a limit on what it decompresses to."""

    def __init__(self, raw: BinaryIO, path: Path) -> None:
        super().__init__(fileobj=raw)
        self._limit = DecompressionLimit(path)

    def read1(self, size: int = -1) -> bytes:  # what io.TextIOWrapper calls
        data = super().read1(size)
        self._limit.add(len(data))
        return data


class LineSource(TextSource):
    """Plain text: each line is a text, empty lines too."""

    def _read_columns(self) -> Sequence[str]:
        return [self.text_column]

    def blocks(self, size: int) -> Iterator[Block]:
        with self.open_text(newline="\n") as (file, raw):
            rows = ((len(line), [line.rstrip("\r\n")]) for line in limited_lines(file, self.path))
            for first, group, share in self.group(rows, size, raw):
                yield delimited_block(self.origin, first, self.columns, 0, group, share)


class DelimitedSource(TextSource):
    """CSV or TSV with a header; empty lines are skipped."""

    def _read_columns(self) -> Sequence[str]:
        with self.open_text(newline="") as (file, _):
            header = next(self._rows(file), None)
        if header is None:
            raise UserError(f"{self.path} is empty: it needs a header that names its columns")
        if not all(map(is_utf8, header)) or any("\0" in name for name in header):
            raise UserError(f"{self.path}: the header is not UTF-8 text: save the file as UTF-8")
        self.check_columns(header)
        return header

    def blocks(self, size: int) -> Iterator[Block]:
        text_index = self.columns.index(self.text_column)
        with self.open_text(newline="") as (file, raw):
            rows = itertools.islice(self._rows(file), 1, None)
            sized_rows = ((sum(map(len, row)), row) for row in rows)
            for first, group, share in self.group(sized_rows, size, raw):
                yield delimited_block(self.origin, first, self.columns, text_index, group, share)

    def _rows(self, file: TextIO) -> Iterator[list[str]]:
        delimiter = DELIMITERS[_unpacked_suffix(self.path)]
        reader = csv.reader(limited_lines(file, self.path), delimiter=delimiter, strict=True)
        while True:
            line = reader.line_num + 1
            limit = csv.field_size_limit(files.LONGEST_LINE)  # it holds for the whole process
            try:
                row = next(reader, None)
            except csv.Error as error:
                raise UserError(
                    f"{self.path}, in the row that begins in line {line}: {error}: quote a value "
                    "that holds quotes, delimiters or line breaks, and double the quotes inside "
                    '("")'
                ) from error
            finally:
                csv.field_size_limit(limit)
            if row is None:
                return
            if row:
                yield row


class JsonLinesSource(TextSource):
    """JSON Lines: an object on each line, whose keys may differ; blank lines are skipped."""

    def _read_columns(self) -> Sequence[str]:
        with self.open_text(newline="\n") as (file, _):
            for line in limited_lines(file, self.path):
                record, _ = _parse(line)
                if record is not None:
                    self.check_columns(list(record))
                    return list(record)
        return [self.text_column]

    def blocks(self, size: int) -> Iterator[Block]:
        with self.open_text(newline="\n") as (file, raw):
            # Only \n ends a line: JSON strings may hold U+0085 and U+2028.
            lines = ((len(line), line.strip(" \t\r\n")) for line in limited_lines(file, self.path))
            rows = (row for row in lines if row[1])
            for first, group, share in self.group(rows, size, raw):
                yield self._block(first, group, share)

    def _block(self, first: int, lines: list[str], share_read: float) -> Block:
        texts: list[str | None] = []
        problems: dict[int, str] = {}
        records = []
        for index, line in enumerate(lines):
            record, problem = _parse(line)
            text = None if record is None else record.get(self.text_column)
            problem = problem or value_problem(text, self.text_column, (str,), "a string")
            if problem:
                problems[index], text = problem, None
            texts.append(text)
            records.append(record)
        columns = self.columns
        return JsonBlock(self.origin, first, columns, texts, problems, share_read, lines, records)


def _parse(line: str) -> tuple[dict[str, Any] | None, str]:
    """The object on a line, or what is wrong with it."""
    if not is_utf8(line):
        return None, "not UTF-8: save the file as UTF-8"
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        return None, f"{error.msg} at character {error.colno}: write one JSON object a line"
    except RecursionError:
        return None, "nested too deeply: write one flat JSON object a line"
    except ValueError as error:  # an integer with more digits than Python reads
        return None, str(error).split(";")[0]
    if not isinstance(record, dict):
        return None, f"a JSON {type(record).__name__}, but must be an object"
    return record, ""


class ParquetSource(FileSource):
    """A Parquet file, whose schema is carried over.

    Decompression bombs are refused by the sizes of the row groups in the footer before anything is
    decompressed, and then by counting what each batch holds. A batch has so few rows that each may
    repeat the largest value. Not covered: pyarrow decompresses a page as a whole before it can be
    counted, so a page that is larger than the footer says takes that much memory (at most 2 GiB),
    and so do a row's lists.
    """

    schema: pa.Schema = None

    def _read_columns(self) -> Sequence[str]:
        with self._open() as file:
            self.schema = file.schema_arrow
        self.check_columns(self.schema.names)
        if self.other_columns is not None:
            names = {self.text_column, *self.other_columns}
            self.schema = pa.schema([field for field in self.schema if field.name in names])
        kind = self.schema.field(self.text_column).type
        if pa.types.is_dictionary(kind):  # how pandas writes a categorical column
            kind = kind.value_type
        if kind not in _STRINGS:
            advice = f": {_NAME_TEXTS}" if self.other_columns is None else ""
            raise UserError(
                f"{self.path}: column {self.text_column!r} holds {truncate(str(kind), 60)}, but "
                f"must hold strings{advice}"
            )
        return self.schema.names

    def blocks(self, size: int) -> Iterator[Block]:
        with self._open() as file:
            num_rows = file.metadata.num_rows
            limit = DecompressionLimit(self.path)
            batch_rows = min(size, _MAX_BATCH_ROWS, self._safe_batch_rows(file.metadata))
            first, group, num_bytes = 1, [], 0
            for batch in self._batches(file, size, batch_rows):
                group.append(batch)
                batch_bytes = _num_bytes(batch)
                limit.add(batch_bytes)
                num_bytes += batch_bytes
                num_grouped = sum(map(len, group))
                if num_grouped == size or num_bytes >= _MAX_BLOCK_CHARACTERS:
                    yield self._block(first, group, (first + num_grouped - 1) / max(1, num_rows))
                    first, group, num_bytes = first + num_grouped, [], 0
            if group:
                yield self._block(first, group, 1.0)
            if first - 1 + sum(map(len, group)) != num_rows:
                raise pa.ArrowInvalid("it ends before its last row")

    @contextmanager
    def _open(self) -> Iterator[pq.ParquetFile]:
        try:
            with pq.ParquetFile(
                self.path, buffer_size=_BUFFER_BYTES, page_checksum_verification=True
            ) as file:
                yield file
        except PermissionError:
            raise
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            reason = (str(error).splitlines() or [""])[0]
            raise UserError(
                f"{self.path}: not a whole Parquet file ({reason}): download or write it again"
            ) from error

    def _safe_batch_rows(self, metadata: pq.FileMetaData) -> int:
        """Check the footer's sizes; return how many rows of the largest value fit into memory."""
        # Not the sizes of the column chunks: damaged ones abort the process (pyarrow 26).
        groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
        sizes = [group.total_byte_size for group in groups]
        if min([metadata.num_rows, *sizes]) < 0:
            raise pa.ArrowInvalid("a size in its footer is negative")
        if sum(group.num_rows for group in groups) != metadata.num_rows:
            raise pa.ArrowInvalid("its row groups have not as many rows as the file")
        limit = DecompressionLimit(self.path)
        limit.add(metadata.num_rows * _ROW_BYTES + sum(sizes))
        return max(1, limit.max_bytes // max([1, *sizes]))

    def _batches(
        self, file: pq.ParquetFile, size: int, batch_rows: int
    ) -> Iterator[pa.RecordBatch]:
        """Batches of which one ends wherever a block of ``size`` rows does."""
        remaining = size
        for batch in file.iter_batches(batch_rows, columns=list(self.columns)):
            while len(batch) > remaining:
                yield batch.slice(0, remaining)
                batch, remaining = batch.slice(remaining), size
            yield batch
            remaining = remaining - len(batch) or size

    def _block(self, first: int, batches: list[pa.RecordBatch], share_read: float) -> Block:
        table = pa.Table.from_batches(batches, self.schema)
        texts, problems = python_values(table[self.text_column], self.text_column)
        for index, text in enumerate(texts):
            if text is None and index not in problems:
                problems[index] = value_problem(text, self.text_column, (str,), "a string")
        return ParquetBlock(self.origin, first, self.columns, texts, problems, share_read, table)


def _num_bytes(batch: pa.RecordBatch) -> int:
    """The memory that a batch takes in Python."""
    columns = map(plain_column, batch.columns)
    return len(batch) * _ROW_BYTES + sum(column.nbytes for column in columns)


_COMPRESSIBLE: dict[str, type[FileSource]] = {
    ".csv": DelimitedSource,
    ".tsv": DelimitedSource,
    ".jsonl": JsonLinesSource,
    ".txt": LineSource,
}


def open_source(
    path: Path, text_column: str, other_columns: Sequence[str] | None = None
) -> FileSource:
    """A file of texts in the format that its name ends in; ``other_columns`` None reads all.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: its format is unknown, it is broken, or it lacks a column.
    """
    require_file(path)
    if path.suffix == ".parquet":
        return ParquetSource(path, text_column, other_columns)
    kind = _COMPRESSIBLE.get(_unpacked_suffix(path))
    if kind is None:
        raise UserError(
            f"{path}: cannot tell what kind of file it is: its name must end in "
            f"{', '.join(_COMPRESSIBLE)} (or one of these and .gz) or .parquet"
        )
    return kind(path, text_column, other_columns)


def _unpacked_suffix(path: Path) -> str:
    """The ending of a file's name before ``.gz``."""
    return path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
