"""Writing predictions: added columns in CSV, TSV, JSON Lines and Parquet, or a table of answers."""

from __future__ import annotations

import csv
import io
import os
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO

from sentiment.display.console import pad, sanitize, truncate, width
from sentiment.inference.predictor import Prediction
from sentiment.readers.blocks import Block, Source, replace_surrogates, to_json
from sentiment.readers.text_formats import DELIMITERS
from sentiment.runtime.errors import UserError
from sentiment.runtime.files import sync_folder

if TYPE_CHECKING:
    import pyarrow as pa


RowPredictions = Sequence[Prediction | None]  # None for a bad row

OUTPUT_FORMATS = (*DELIMITERS, ".jsonl", ".parquet")

_DIGITS = 6


class AddedColumns:
    """``predicted``, ``probability``, ``probability_NAME`` of each class, ``was_cut``, prefixed."""

    def __init__(self, class_names: Sequence[str], prefix: str = "") -> None:
        probabilities = [f"probability_{name}" for name in class_names]
        names = ("predicted", "probability", *probabilities, "was_cut")
        self.names = [prefix + name for name in names]

    def check(self, place: str, columns: Collection[str]) -> None:
        """Refuse an input that has such a column already."""
        clash = next((name for name in self.names if name in columns), None)
        if clash is not None:
            raise UserError(
                f"{place} has a column {clash!r} already: rename the added columns with "
                "--prefix, as in --prefix lstm_"
            )

    def values(self, prediction: Prediction | None) -> list[Any]:
        """A value for each column; all None for a bad row."""
        if prediction is None:
            return [None] * len(self.names)
        numbers = (prediction.probability, *prediction.probabilities)
        return [prediction.label, *(round(n, _DIGITS) for n in numbers), prediction.was_cut]

    def schema(self) -> pa.Schema:
        """The columns' types in Parquet."""
        import pyarrow as pa

        kinds = [pa.string(), *[pa.float64()] * (len(self.names) - 2), pa.bool_()]
        return pa.schema(list(zip(self.names, kinds, strict=True)))


def as_json_lines(block: Block, predictions: RowPredictions, added: AddedColumns) -> bytes:
    """The rows' objects with the added keys appended."""
    added.check(block.origin, block.keys())
    lines = []
    for row, prediction in zip(block.json_objects(), predictions, strict=True):
        tail = to_json(dict(zip(added.names, added.values(prediction), strict=True)))
        head = row[:-1].rstrip()
        lines.append(f"{head}{'' if head == '{' else ', '}{tail[1:]}\n")
    return "".join(lines).encode()


def _as_cell(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:.{_DIGITS}f}"


def _delimited(rows: list[list[str]], delimiter: str) -> bytes:
    file = io.StringIO()
    plain = csv.writer(file, delimiter=delimiter, lineterminator="\n")
    # With \n as line end, csv does not quote a lone \r, and then cannot read it.
    quoted = csv.writer(file, delimiter=delimiter, lineterminator="\n", quoting=csv.QUOTE_ALL)
    for row in rows:
        has_return = any("\r" in cell for cell in row)
        (quoted if has_return else plain).writerow(row)
    return file.getvalue().encode("utf-8", "surrogateescape")


_JOINED = "whole.parquet"  # the joined parts


class Output:
    """Takes blocks and their predictions in order; this base class discards them."""

    def write(self, block: Block, predictions: RowPredictions) -> None: ...

    def commit(self) -> int:
        """Flush to disk; returns the position at which to reopen the output."""
        return 0

    def finish(self) -> None:
        """Complete the output; :func:`publish` then moves a file to its path."""

    def close(self) -> None:
        """Release the file, complete or not."""


def partial_path(path: Path) -> Path:
    """Where an output is written until it is complete."""
    return path.with_name(path.name + ".partial")


def publish(path: Path) -> None:
    """Move a complete output to its path, unless that was done before."""
    complete = partial_path(path)
    if path.suffix == ".parquet":
        complete /= _JOINED
    if complete.exists():
        os.replace(complete, path)
        sync_folder(path.parent)


def open_output(path: Path, source: Source, added: AddedColumns, position: int) -> Output:
    """Open an output, in the format of its suffix, at the position of its last commit."""
    added.check(source.origin, source.columns)
    if path.suffix == ".parquet":
        return ParquetOutput(path, source, added, position)
    return TextOutput(path, source, added, position)


class TextOutput(Output):
    """CSV, TSV or JSON Lines."""

    def __init__(self, path: Path, source: Source, added: AddedColumns, position: int) -> None:
        self._added = added
        self._delimiter = DELIMITERS.get(path.suffix)
        self._file: BinaryIO = partial_path(path).open("r+b" if position else "wb")
        self._file.truncate(position)
        self._file.seek(position)
        if position == 0 and self._delimiter is not None:
            self._file.write(_delimited([[*source.columns, *added.names]], self._delimiter))

    def write(self, block: Block, predictions: RowPredictions) -> None:
        if self._delimiter is None:
            self._file.write(as_json_lines(block, predictions, self._added))
        else:
            added = map(self._added.values, predictions)
            rows = [
                [*cells, *map(_as_cell, values)]
                for cells, values in zip(block.cells(), added, strict=True)
            ]
            self._file.write(_delimited(rows, self._delimiter))

    def commit(self) -> int:
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()

    def finish(self) -> None:
        self.commit()
        self.close()

    def close(self) -> None:
        self._file.close()


class ParquetOutput(Output):
    """Parquet: one file per block, joined at the end, each as a row group.

    A Parquet file ends with its metadata, so an interrupted one could not be continued.
    """

    def __init__(self, path: Path, source: Source, added: AddedColumns, position: int) -> None:
        self._added = added
        self._schema = source.schema
        for field in added.schema():
            self._schema = self._schema.append(field)
        self._folder = partial_path(path)
        self._num_parts = position
        if position == 0 and self._folder.exists():
            shutil.rmtree(self._folder)
        self._folder.mkdir(exist_ok=True)

    def write(self, block: Block, predictions: RowPredictions) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = block.table()
        columns = zip(*map(self._added.values, predictions), strict=True)
        for field, column in zip(self._added.schema(), columns, strict=True):
            table = table.append_column(field, pa.array(column, field.type))
        pq.write_table(table.cast(self._schema), self._part(self._num_parts))
        _sync_file(self._part(self._num_parts))
        self._num_parts += 1

    def commit(self) -> int:
        sync_folder(self._folder)
        return self._num_parts

    def finish(self) -> None:
        import pyarrow.parquet as pq

        with pq.ParquetWriter(self._folder / _JOINED, self._schema) as writer:
            for number in range(self._num_parts):
                writer.write_table(pq.ParquetFile(self._part(number)).read())
        _sync_file(self._folder / _JOINED)

    def _part(self, number: int) -> Path:
        return self._folder / f"{number:06d}.parquet"


class JsonLinesStream(Output):
    """JSON Lines on a stream, flushed after each block."""

    def __init__(self, stream: BinaryIO, added: AddedColumns) -> None:
        self._stream = stream
        self._added = added

    def write(self, block: Block, predictions: RowPredictions) -> None:
        self._stream.write(as_json_lines(block, predictions, self._added))
        self._stream.flush()


class AnswerTable(Output):
    """A line per text: the class, its probability, the start of the text."""

    def __init__(self, stream: TextIO, class_names: tuple[str, ...], max_length: int) -> None:
        self._stream = stream
        self._width = max(width(sanitize(name)) for name in class_names)
        self._max_length = max_length

    def write(self, block: Block, predictions: RowPredictions) -> None:
        for text, prediction in zip(block.texts, predictions, strict=True):
            if text is not None and prediction is not None:
                print(self._line(text, prediction), file=self._stream)
        self._stream.flush()

    def _line(self, text: str, prediction: Prediction) -> str:
        label = pad(sanitize(prediction.label), self._width)
        head = f"{label}  {100 * prediction.probability:5.1f} %  "
        note = ""
        if prediction.was_cut:
            note = f"  (read {self._max_length:,} of its {prediction.num_tokens:,} tokens)"
        line = " ".join(replace_surrogates(text).split())
        columns = shutil.get_terminal_size().columns - width(head) - width(note)
        return head + truncate(line, max(10, columns)) + note


def _sync_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
