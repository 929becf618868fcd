"""Where predictions go: added columns, a file that appears when it is whole, standard output."""

from __future__ import annotations

import csv
import io
import os
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from sentiment.data.blocks import Block, to_json
from sentiment.data.readers import DELIMITERS, Source
from sentiment.inference.predictor import Prediction
from sentiment.runtime.errors import UserError
from sentiment.runtime.files import sync_folder

if TYPE_CHECKING:
    import pyarrow as pa


Predictions = Sequence[Prediction | None]  # None for a bad row

OUTPUT_FORMATS = (*DELIMITERS, ".jsonl", ".parquet")

_DIGITS = 6


class AddedColumns:
    """``predicted``, ``probability``, ``probability_NAME`` of each class, ``was_cut``.

    Args:
        class_names: names of the classes.
        prefix: what the columns' names begin with.
    """

    def __init__(self, class_names: Sequence[str], prefix: str = "") -> None:
        of_classes = [f"probability_{name}" for name in class_names]
        names = ["predicted", "probability", *of_classes, "was_cut"]
        self.names = [prefix + name for name in names]

    def check(self, place: str, columns: Collection[str]) -> None:
        """Refuse a file that has such a column already.

        Raises:
            UserError: it has.
        """
        clash = next((name for name in self.names if name in columns), None)
        if clash is not None:
            raise UserError(
                f"{place} has a column {clash!r} already: give the added ones names of their own "
                "by --prefix, as in --prefix lstm_"
            )

    def values(self, prediction: Prediction | None) -> list[Any]:
        """A value for each name; None for all of them in a bad row."""
        if prediction is None:
            return [None] * len(self.names)
        shares = [round(each, _DIGITS) for each in prediction.probabilities]
        share = round(prediction.probability, _DIGITS)
        return [prediction.label, share, *shares, prediction.was_cut]

    def schema(self) -> pa.Schema:
        """The columns in Parquet."""
        import pyarrow as pa

        kinds = [pa.string(), *[pa.float64()] * (len(self.names) - 2), pa.bool_()]
        return pa.schema(list(zip(self.names, kinds, strict=True)))


def as_json_lines(block: Block, predictions: Predictions, added: AddedColumns) -> bytes:
    """Each row's own object with the added keys at its end."""
    added.check(block.origin, block.keys())
    lines = []
    for row, prediction in zip(block.json_objects(), predictions, strict=True):
        tail = to_json(dict(zip(added.names, added.values(prediction), strict=True)))
        head = row[:-1].rstrip()
        lines.append(f"{head}{'' if head == '{' else ', '}{tail[1:]}\n")
    return "".join(lines).encode()


def delimited_header(columns: Sequence[str], added: AddedColumns, delimiter: str) -> bytes:
    """The line of names."""
    return _delimited([[*columns, *added.names]], delimiter)


def as_delimited(
    block: Block, predictions: Predictions, added: AddedColumns, delimiter: str
) -> bytes:
    """Each row's own cells with the added ones at its end."""
    rows = zip(block.cells(), predictions, strict=True)
    return _delimited(
        [[*cells, *map(_as_cell, added.values(prediction))] for cells, prediction in rows],
        delimiter,
    )


def as_table(block: Block, predictions: Predictions, added: AddedColumns) -> pa.Table:
    """The rows' own columns, of their own types, with the added ones behind them."""
    import pyarrow as pa

    table = block.table()
    columns = list(zip(*map(added.values, predictions), strict=True))
    for field, column in zip(added.schema(), columns, strict=True):
        table = table.append_column(field, pa.array(column, field.type))
    return table


def _as_cell(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:.{_DIGITS}f}"


def _delimited(rows: list[list[str]], delimiter: str) -> bytes:
    file = io.StringIO()
    plain = csv.writer(file, delimiter=delimiter, lineterminator="\n")
    # Where lines end in \n, csv leaves a lone \r without quotes, and cannot read it again.
    quoted = csv.writer(file, delimiter=delimiter, lineterminator="\n", quoting=csv.QUOTE_ALL)
    for row in rows:
        has_return = any("\r" in cell for cell in row)
        (quoted if has_return else plain).writerow(row)
    return file.getvalue().encode("utf-8", "surrogateescape")


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
    added.check(source.origin, source.columns)
    if path.suffix == ".parquet":
        return ParquetOutput(path, source, added, position)
    return TextOutput(path, source, added, position)


def check_format(path: Path) -> None:
    """Refuse the name of an output that ends in no known format.

    Raises:
        UserError: it does.
    """
    if path.suffix not in OUTPUT_FORMATS:
        raise UserError(
            f"{path}: its name must end in {', '.join(OUTPUT_FORMATS)}, which decides the format"
        )


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
