"""Where predictions go: a file that appears when it is whole, or standard output.

A file is written beside its place, as NAME.partial, and moved there at its end. What a commit has
returned from survives a loss of power; whatever was written after it is cut off when the output is
opened again.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

from sentiment.places import sync_folder
from sentiment.predicting.added import (
    AddedColumns,
    Predictions,
    as_delimited,
    as_json_lines,
    as_table,
    delimited_header,
)
from sentiment.predicting.blocks import Block
from sentiment.predicting.delimited_source import DELIMITERS
from sentiment.predicting.sources import Source

if TYPE_CHECKING:
    import pyarrow as pa


_WHOLE = "whole.parquet"  # the parts, joined


class Output(Protocol):
    """What takes blocks and their predictions, in order."""

    def write(self, block: Block, predictions: Predictions) -> None:
        """Take one block."""

    def commit(self) -> int:
        """Make what was taken last; returns the position to open the output at again."""

    def finish(self) -> None:
        """Make it whole; :func:`publish` then puts a file in its place."""


def partial_path(path: Path) -> Path:
    """Where an output lies until it is whole."""
    return path.with_name(path.name + ".partial")


def publish(path: Path) -> None:
    """Move a whole output to its place; nothing happens where it is there already."""
    partial = partial_path(path)
    whole = partial / _WHOLE if path.suffix == ".parquet" else partial
    if whole.exists():
        os.replace(whole, path)
        sync_folder(path.parent)


def open_output(path: Path, source: Source, added: AddedColumns, position: int = 0) -> Output:
    """An output in the format that its name says.

    Args:
        path: the file.
        source: what is predicted.
        added: the columns to add.
        position: what the last commit returned, 0 to begin.
    """
    added.check(source.place, source.columns)
    if path.suffix == ".parquet":
        return ParquetOutput(path, source, added, position)
    return TextOutput(path, source, added, position)


class TextOutput:
    """CSV, TSV or JSON Lines."""

    def __init__(self, path: Path, source: Source, added: AddedColumns, position: int) -> None:
        self._added = added
        self._delimiter = DELIMITERS.get(path.suffix)
        self._file: BinaryIO = partial_path(path).open("r+b" if position else "wb")
        self._file.truncate(position)
        self._file.seek(position)
        if position == 0 and self._delimiter is not None:
            self._file.write(delimited_header(source.columns, added, self._delimiter))

    def write(self, block: Block, predictions: Predictions) -> None:
        if self._delimiter is None:
            self._file.write(as_json_lines(block, predictions, self._added))
        else:
            self._file.write(as_delimited(block, predictions, self._added, self._delimiter))

    def commit(self) -> int:
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()

    def finish(self) -> None:
        self.commit()
        self._file.close()


class ParquetOutput:
    """Parquet: a part for each block, joined at the end as a row group each.

    A Parquet file is readable only with its end, so that one which was interrupted cannot be
    written on.
    """

    def __init__(self, path: Path, source: Source, added: AddedColumns, position: int) -> None:
        self._added = added
        self._schema = _joined(source, added)
        self._folder = partial_path(path)
        self._num_parts = position
        if position == 0 and self._folder.exists():
            shutil.rmtree(self._folder)
        self._folder.mkdir(exist_ok=True)

    def write(self, block: Block, predictions: Predictions) -> None:
        import pyarrow.parquet as pq

        table = as_table(block, predictions, self._added).cast(self._schema)
        pq.write_table(table, self._part(self._num_parts))
        sync_file(self._part(self._num_parts))
        self._num_parts += 1

    def commit(self) -> int:
        sync_folder(self._folder)
        return self._num_parts

    def finish(self) -> None:
        import pyarrow.parquet as pq

        with pq.ParquetWriter(self._folder / _WHOLE, self._schema) as writer:
            for number in range(self._num_parts):
                writer.write_table(pq.ParquetFile(self._part(number)).read())
        sync_file(self._folder / _WHOLE)

    def _part(self, number: int) -> Path:
        return self._folder / f"{number:06d}.parquet"


class JsonLinesStream:
    """JSON Lines to a stream, each block at once."""

    def __init__(self, stream: BinaryIO, added: AddedColumns) -> None:
        self._stream = stream
        self._added = added

    def write(self, block: Block, predictions: Predictions) -> None:
        self._stream.write(as_json_lines(block, predictions, self._added))
        self._stream.flush()

    def commit(self) -> int:
        return 0

    def finish(self) -> None:
        pass


def _joined(source: Source, added: AddedColumns) -> pa.Schema:
    """The schema of a source with the added columns behind it."""
    schema = source.schema
    for field in added.schema():
        schema = schema.append(field)
    return schema


def sync_file(path: Path) -> None:
    """Have the disk hold what was written to a file."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
