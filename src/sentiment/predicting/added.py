"""The columns that predicting adds to a file's own, and rows of both as bytes."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from sentiment.predicting.blocks import Block, to_json
from sentiment.predictor import Prediction

if TYPE_CHECKING:
    import pyarrow as pa

Predictions = Sequence[Prediction | None]  # None for a bad row

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
            ValueError: it has.
        """
        clash = next((name for name in self.names if name in columns), None)
        if clash is not None:
            raise ValueError(
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
    added.check(block.place, block.keys())
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
