"""Parquet and Arrow files, whose schema is carried over."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sentiment.display.console import truncate
from sentiment.readers.blocks import (
    MAX_BLOCK_CHARACTERS,
    Block,
    FileSource,
    TableBlock,
    join_texts,
    plain_column,
    python_values,
)
from sentiment.runtime.errors import UserError
from sentiment.runtime.files import DecompressionLimit

_ROW_BYTES = 64  # memory that a row takes in Python besides the characters of its text
_MAX_BATCH_ROWS = 1_000  # decoded before their size is known
_BUFFER_BYTES = 1 << 20  # read ahead of a column instead of its whole chunk
_STRINGS = (pa.string(), pa.large_string(), pa.string_view(), pa.null())
_ARROW_MAGIC = b"ARROW1"


class TableSource(FileSource):
    """Base of the formats whose columns have types."""

    schema: pa.Schema = None

    def _read_columns(self) -> Sequence[str]:
        with self._open() as file:
            self.schema = self._schema_of(file)
        return list(self.schema.names)

    def _prepare(self) -> None:
        for name in self.text_columns:
            kind = self.schema.field(name).type
            if pa.types.is_dictionary(kind):  # how pandas writes a categorical column
                kind = kind.value_type
            if kind not in _STRINGS:
                setting = self.data.option("text_column", "NAME")
                raise UserError(
                    f"{self.path}: column {name!r} holds {truncate(str(kind), 60)}, but must hold "
                    f"strings: name the one with the texts by {setting}"
                )
        self.label_names = _label_names(self.schema, self.label_column)
        names = set(self.read_columns)
        self.schema = pa.schema(
            [field for field in self.schema if field.name in names], self.schema.metadata
        )
        self.columns = self.schema.names

    @abstractmethod
    def _open(self) -> Any:
        """A context manager that opens the file."""

    @contextmanager
    def _explained(self, kind: str) -> Iterator[None]:
        try:
            yield
        except PermissionError:
            raise
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            reason = (str(error).splitlines() or [""])[0]
            raise UserError(
                f"{self.path}: not a complete {kind} file ({reason}): download or write it again"
            ) from error

    @abstractmethod
    def _schema_of(self, file: Any) -> pa.Schema: ...

    @abstractmethod
    def _batches(self, file: Any, size: int) -> Iterator[tuple[pa.RecordBatch, float]]:
        """Batches of at most ``size`` rows of the columns to read, and the share read so far."""

    def blocks(self, size: int) -> Iterator[Block]:
        with self._open() as file:
            limit = DecompressionLimit(self.path)
            first, group, num_rows, num_bytes, share = 1, [], 0, 0, 1.0
            for batch, share in _cut(self._batches(file, size), size):
                group.append(batch)
                num_rows += len(batch)
                batch_bytes = _num_bytes(batch)
                limit.add(batch_bytes)
                num_bytes += batch_bytes
                if num_rows == size or num_bytes >= MAX_BLOCK_CHARACTERS:
                    yield self._block(first, group, share)
                    first, group, num_rows, num_bytes = first + num_rows, [], 0, 0
            if group:
                yield self._block(first, group, 1.0)

    def _block(self, first: int, batches: list[pa.RecordBatch], share_read: float) -> Block:
        table = pa.Table.from_batches(batches, batches[0].schema)
        problems: dict[int, str] = {}
        columns = []
        for name in self.text_columns:
            values, wrong = python_values(table[name], name)
            columns.append(values)
            problems = wrong | problems
        texts = [join_texts(parts) for parts in zip(*columns, strict=True)]
        if not columns:
            texts = [None] * len(table)
        return TableBlock(self.origin, first, self.columns, texts, problems, share_read, table)


def _cut(
    batches: Iterator[tuple[pa.RecordBatch, float]], size: int
) -> Iterator[tuple[pa.RecordBatch, float]]:
    """The batches, sliced so that none crosses the end of a block of ``size`` rows."""
    remaining = size
    for batch, share in batches:
        while len(batch) > remaining:
            yield batch.slice(0, remaining), share
            batch, remaining = batch.slice(remaining), size
        yield batch, share
        remaining = remaining - len(batch) or size


def _num_bytes(batch: pa.RecordBatch) -> int:
    """The memory that a batch takes in Python."""
    columns = map(plain_column, batch.columns)
    return len(batch) * _ROW_BYTES + sum(column.nbytes for column in columns)


def _label_names(schema: pa.Schema, column: str | None) -> tuple[str, ...] | None:
    """The names of a ClassLabel column, which the datasets library keeps in the schema."""
    try:
        info = json.loads((schema.metadata or {})[b"huggingface"])
        names = info["info"]["features"][column]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    is_valid = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return tuple(names) if is_valid else None


class ParquetSource(TableSource):
    """A Parquet file.

    Decompression bombs are refused by the sizes of the row groups in the footer before anything is
    decompressed, and then by counting what each batch holds. A batch has so few rows that each may
    repeat the largest value. Not covered: pyarrow decompresses a page as a whole before it can be
    counted, so a page that is larger than the footer says takes that much memory (at most 2 GiB),
    and so do a row's lists.
    """

    @contextmanager
    def _open(self) -> Iterator[pq.ParquetFile]:
        with (
            self._explained("Parquet"),
            pq.ParquetFile(
                self.path, buffer_size=_BUFFER_BYTES, page_checksum_verification=True
            ) as file,
        ):
            yield file

    def _schema_of(self, file: pq.ParquetFile) -> pa.Schema:
        return file.schema_arrow

    def _batches(self, file: pq.ParquetFile, size: int) -> Iterator[tuple[pa.RecordBatch, float]]:
        num_rows, num_read = file.metadata.num_rows, 0
        batch_rows = min(size, _MAX_BATCH_ROWS, self._safe_batch_rows(file.metadata))
        for batch in file.iter_batches(batch_rows, columns=list(self.columns)):
            num_read += len(batch)
            yield batch, num_read / max(1, num_rows)
        if num_read != num_rows:
            raise pa.ArrowInvalid("it ends before its last row")

    def _safe_batch_rows(self, metadata: pq.FileMetaData) -> int:
        """Check the footer's sizes; return how many rows of the largest value fit into memory."""
        # Not the sizes of the column chunks: damaged ones abort the process (pyarrow 26).
        groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
        sizes = [group.total_byte_size for group in groups]
        if min([metadata.num_rows, *sizes]) < 0:
            raise pa.ArrowInvalid("a size in its footer is negative")
        if sum(group.num_rows for group in groups) != metadata.num_rows:
            raise pa.ArrowInvalid("its row groups do not add up to its number of rows")
        limit = DecompressionLimit(self.path)
        limit.add(metadata.num_rows * _ROW_BYTES + sum(sizes))
        return max(1, limit.max_bytes // max([1, *sizes]))


class ArrowSource(TableSource):
    """An Arrow file or stream, as ``save_to_disk`` of the datasets library writes.

    Each batch is validated, since pyarrow trusts the offsets in it; compressed ones are
    decompressed as a whole before they can be counted.
    """

    @contextmanager
    def _open(self) -> Iterator[pa.OSFile]:
        with self._explained("Arrow"), pa.OSFile(str(self.path)) as file:
            yield file

    def _schema_of(self, file: pa.OSFile) -> pa.Schema:
        return self._reader(file).schema

    def _reader(self, file: pa.OSFile, **options: Any) -> Any:
        is_file = file.read(len(_ARROW_MAGIC)) == _ARROW_MAGIC
        file.seek(0)
        open_reader = pa.ipc.open_file if is_file else pa.ipc.open_stream
        return open_reader(file, options=pa.ipc.IpcReadOptions(**options))

    def _batches(self, file: pa.OSFile, size: int) -> Iterator[tuple[pa.RecordBatch, float]]:
        names = self._schema_of(file).names
        file.seek(0)
        reader = self._reader(file, included_fields=[names.index(name) for name in self.columns])
        if isinstance(reader, pa.RecordBatchFileReader):
            reader = map(reader.get_batch, range(reader.num_record_batches))
        num_bytes = max(1, self.path.stat().st_size)
        for batch in reader:
            batch.validate(full=True)
            for start in range(0, len(batch), _MAX_BATCH_ROWS):
                yield batch.slice(start, _MAX_BATCH_ROWS), min(1.0, file.tell() / num_bytes)
