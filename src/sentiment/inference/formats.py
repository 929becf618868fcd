"""The file formats of texts to predict: CSV, TSV, JSON Lines, Parquet."""

from __future__ import annotations

import csv
import itertools
import json
import reprlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from sentiment.data.parquet import ROW_BYTES, Damaged, check_pages
from sentiment.display.console import truncate
from sentiment.inference.readers import (
    Block,
    DelimitedBlock,
    FileSource,
    JsonBlock,
    ParquetBlock,
    TextSource,
    is_utf8,
    unpacked_suffix,
)
from sentiment.runtime.errors import UserError
from sentiment.runtime.files import LONGEST_LINE, DecompressionLimit

DELIMITERS = {".csv": ",", ".tsv": "\t"}


class LineSource(TextSource):
    """Plain text: each line is one, empty ones too."""

    def _read_columns(self) -> Sequence[str]:
        return [self.text_column]

    def blocks(self, window: int) -> Iterator[Block]:
        with self.open_text(newline="\n") as (file, raw):
            rows = ((len(line), [line.rstrip("\r\n")]) for line in self.lines(file))
            for first, taken, share in self.cut(rows, window, raw):
                yield delimited_block(self.place, first, self.columns, 0, taken, share)


class DelimitedSource(TextSource):
    """CSV or TSV, with a header."""

    def _read_columns(self) -> Sequence[str]:
        with self.open_text(newline="") as (file, _):
            header = next(self._rows(file), None)
        if header is None:
            raise UserError(f"{self.path} is empty: it needs a header that names its columns")
        if not all(map(is_utf8, header)) or any("\0" in name for name in header):
            raise UserError(f"{self.path}: the header is not UTF-8 text: save the file as UTF-8")
        self.check_columns(header)
        return header

    def blocks(self, window: int) -> Iterator[Block]:
        text = self.columns.index(self.text_column)
        with self.open_text(newline="") as (file, raw):
            rows = (
                (sum(map(len, row)), row) for row in itertools.islice(self._rows(file), 1, None)
            )
            for first, taken, share in self.cut(rows, window, raw):
                yield delimited_block(self.place, first, self.columns, text, taken, share)

    def _rows(self, file: TextIO) -> Iterator[list[str]]:
        delimiter = DELIMITERS[unpacked_suffix(self.path)]
        reader = csv.reader(self.lines(file), delimiter=delimiter, strict=True)
        while True:
            line = reader.line_num + 1
            limit = csv.field_size_limit(LONGEST_LINE)  # of all readers of the process
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


def delimited_block(
    place: str, first: int, columns: Sequence[str], text: int, rows: list[list[str]], share: float
) -> DelimitedBlock:
    """A block of rows of cells, the texts in column number ``text``."""
    texts: list[str | None] = []
    problems: dict[int, str] = {}
    for number, row in enumerate(rows):
        if len(row) != len(columns):
            problems[number] = (
                f"{len(row)} values, but the header names {len(columns)} columns: quote a value "
                "that holds the delimiter"
            )
        elif not all(map(is_utf8, row)):
            problems[number] = "not UTF-8"
        texts.append(None if number in problems else row[text])
    return DelimitedBlock(place, first, columns, texts, problems, share, rows)


class JsonLinesSource(TextSource):
    """JSON Lines: an object a line, whose keys may differ; lines of white space are none."""

    def _read_columns(self) -> Sequence[str]:
        """The keys of the first object."""
        with self.open_text(newline="\n") as (file, _):
            for line in self.lines(file):
                record, _ = _parse(line)
                if record is not None:
                    self.check_columns(list(record))
                    return list(record)
        return [self.text_column]

    def blocks(self, window: int) -> Iterator[Block]:
        with self.open_text(newline="\n") as (file, raw):
            rows = ((len(line), line.strip(" \t\r\n")) for line in self.lines(file))
            there = ((size, line) for size, line in rows if line)
            for first, taken, share in self.cut(there, window, raw):
                yield self._block(first, taken, share)

    def _block(self, first: int, lines: list[str], share: float) -> Block:
        texts: list[str | None] = []
        problems: dict[int, str] = {}
        records = []
        for place, line in enumerate(lines):
            record, problem = _parse(line)
            text = None if record is None else record.get(self.text_column)
            problem = problem or _text_problem(text, self.text_column)
            if problem:
                problems[place], text = problem, None
            texts.append(text)
            records.append(record)
        args = (self.place, first, self.columns, texts, problems, share)
        return JsonBlock(*args, lines, records)


def _parse(line: str) -> tuple[dict[str, Any] | None, str]:
    """A line's object, or what is wrong with it."""
    if not is_utf8(line):
        return None, "not UTF-8"
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        return None, f"{error.msg} at character {error.colno}: write one JSON object a line"
    except (ValueError, RecursionError) as error:
        return None, f"not JSON that can be read ({error})"
    if not isinstance(record, dict):
        return None, f"a JSON {type(record).__name__}, but must be an object"
    return record, ""


def _text_problem(text: Any, column: str) -> str:
    """What keeps a value from being predicted; nothing for a string."""
    if text is None:
        return f"no {column}"
    if not isinstance(text, str):
        return f"the {column} is {reprlib.repr(text)}, but must be a string"
    return "" if is_utf8(text) else f"the {column} holds half a surrogate pair"


_ROWS_AT_ONCE = 1_000  # decoded before their size is known
_MOST_BYTES_OF_A_BLOCK = 50_000_000
_BUFFER_BYTES = 1 << 20  # read ahead of a column, instead of its whole part in a row group


class ParquetSource(FileSource):
    """A Parquet file; its schema is carried as it is."""

    @cached_property
    def schema(self) -> pa.Schema:
        with self._open() as file:
            return file.schema_arrow

    def _read_columns(self) -> Sequence[str]:
        self.check_columns(self.schema.names)
        kind = self.schema.field(self.text_column).type
        if pa.types.is_dictionary(kind):  # how pandas writes a categorical column
            kind = kind.value_type
        if kind not in (pa.string(), pa.large_string(), pa.string_view(), pa.null()):
            raise UserError(
                f"{self.path}: column {self.text_column!r} holds {truncate(str(kind), 60)}, but "
                "must hold strings: name the one with the texts by --text-column"
            )
        return self.schema.names

    def blocks(self, window: int) -> Iterator[Block]:
        with self._open() as file:
            num_rows = max(1, file.metadata.num_rows)
            first, taken, num_bytes = 1, [], 0
            unpacked = DecompressionLimit(self.path)
            with self.path.open("rb") as raw:
                at_once = check_pages(self.path, raw, self.schema.names, file.schema)
            for batch in _batches(file, window, at_once):
                taken.append(batch)
                size = _num_bytes(batch)
                unpacked.add(size)
                num_bytes += size
                num_taken = sum(map(len, taken))
                if num_taken == window or num_bytes >= _MOST_BYTES_OF_A_BLOCK:
                    yield self._block(first, taken, (first + num_taken - 1) / num_rows)
                    first, taken, num_bytes = first + num_taken, [], 0
            if taken:
                yield self._block(first, taken, 1.0)
            if first - 1 + sum(map(len, taken)) != file.metadata.num_rows:
                raise Damaged("it ends before its last row")

    @contextmanager
    def _open(self) -> Iterator[pq.ParquetFile]:
        try:
            with pq.ParquetFile(self.path, buffer_size=_BUFFER_BYTES) as file:
                yield file
        except (pa.ArrowException, OSError, UnicodeDecodeError, Damaged) as error:
            reason = (str(error).splitlines() or [""])[0]
            raise UserError(
                f"{self.path}: not a whole Parquet file ({reason}): download or write it again"
            ) from error

    def _block(self, first: int, batches: list[pa.RecordBatch], share: float) -> Block:
        table = pa.Table.from_batches(batches, self.schema)
        column = table[self.text_column]
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        texts, problems = _texts(column, self.text_column)
        return ParquetBlock(self.place, first, self.columns, texts, problems, share, table)


def _num_bytes(batch: pa.RecordBatch) -> int:
    """What a batch takes where each row has its own text, as they are predicted."""
    plain = (
        column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
        for column in batch.columns
    )
    return len(batch) * ROW_BYTES + sum(column.nbytes for column in plain)


def _batches(file: pq.ParquetFile, window: int, at_once: int) -> Iterator[pa.RecordBatch]:
    """Batches of which some end where each window does."""
    left = window
    for batch in file.iter_batches(batch_size=min(window, at_once, _ROWS_AT_ONCE)):
        while len(batch) > left:
            yield batch.slice(0, left)
            batch, left = batch.slice(left), window
        yield batch
        left = left - len(batch) or window


def _texts(column: pa.ChunkedArray, name: str) -> tuple[list[str | None], dict[int, str]]:
    problems: dict[int, str] = {}
    try:
        texts = column.to_pylist()
    except UnicodeDecodeError:
        texts = []
        for place, value in enumerate(column):
            try:
                texts.append(value.as_py())
            except UnicodeDecodeError:
                texts.append(None)
                problems[place] = "not UTF-8"
    for place, text in enumerate(texts):
        if text is None:
            problems.setdefault(place, f"no {name}")
    return texts, problems


_TEXT_SOURCES: dict[str, type[FileSource]] = {
    ".csv": DelimitedSource,
    ".tsv": DelimitedSource,
    ".jsonl": JsonLinesSource,
    ".txt": LineSource,
}
OUTPUT_FORMATS = (".csv", ".tsv", ".jsonl", ".parquet")


def open_source(path: Path, text_column: str) -> FileSource:
    """A file of texts, by the ending of its name.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: it is of no kind that can be read, is broken, or has no such column.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder: name a file of texts")
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    if path.suffix == ".parquet":
        return ParquetSource(path, text_column)
    kind = _TEXT_SOURCES.get(unpacked_suffix(path))
    if kind is None:
        raise UserError(
            f"{path}: cannot tell what kind of file it is: its name must end in "
            f"{', '.join(_TEXT_SOURCES)} (or one of these and .gz) or .parquet"
        )
    return kind(path, text_column)


def output_format(path: Path) -> str:
    """The ending of an output's name.

    Raises:
        UserError: nothing is written in that format.
    """
    if path.suffix not in OUTPUT_FORMATS:
        raise UserError(
            f"{path}: its name must end in {', '.join(OUTPUT_FORMATS)}, which decides the format"
        )
    return path.suffix
