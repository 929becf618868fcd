"""Parquet files of texts to predict, read in pieces of a few thousand rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property

import pyarrow as pa
import pyarrow.parquet as pq

from sentiment.bounds import Unpacked, shortened
from sentiment.predicting.blocks import Block, ParquetBlock
from sentiment.predicting.sources import FileSource
from sentiment.text.parquet_pages import ROW_BYTES, check_pages
from sentiment.text.thrift import Damaged

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
            raise ValueError(
                f"{self.path}: column {self.text_column!r} holds {shortened(str(kind))}, but must "
                "hold strings: name the one with the texts by --text-column"
            )
        return self.schema.names

    def blocks(self, window: int) -> Iterator[Block]:
        with self._open() as file:
            num_rows = max(1, file.metadata.num_rows)
            first, taken, num_bytes = 1, [], 0
            unpacked = Unpacked(self.path)
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
            raise ValueError(
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
