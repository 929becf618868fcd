"""Reviews from Parquet, read a thousand rows at a time so that what they unpack to is counted."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sentiment.bounds import Unpacked, require_file, shortened
from sentiment.text.parquet_pages import ROW_BYTES, check_pages
from sentiment.text.review_columns import Columns, expected, needed_columns
from sentiment.text.thrift import Damaged

_ROWS_AT_ONCE = 1_000
_STRINGS = (pa.string(), pa.large_string(), pa.string_view())


def read_parquet(path: Path, with_labels: bool, group_column: str | None = None) -> Columns:
    """Texts and, if they are asked for, labels and groups.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is broken, unpacks out of proportion, lacks a column or a value.
    """
    require_file(path)
    read = Columns()
    unpacked = Unpacked(path)
    try:
        data = path.read_bytes()
        with pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True) as file:
            schema, metadata = file.schema_arrow, file.metadata
            columns = needed_columns(path, schema.names, with_labels, group_column)
            for name in columns:
                _check_type(path, schema.field(name), metadata.num_rows)
            unpacked.add(max(0, metadata.num_rows) * ROW_BYTES)
            at_once = min(_ROWS_AT_ONCE, check_pages(path, io.BytesIO(data), columns, file.schema))
            for batch in file.iter_batches(at_once, columns=columns):
                for name in columns:
                    column, values = _plain(batch[name]), read.of(name)
                    unpacked.add(column.nbytes)
                    values += _values(path, len(values), name, column)
            if len(read.texts) != metadata.num_rows:
                raise pa.ArrowInvalid("it ends before its last row")
    except (pa.ArrowException, OSError, UnicodeDecodeError, Damaged) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise ValueError(
            f"{path}: not a whole Parquet file ({reason}): download or write it again"
        ) from error
    return read


def _check_type(path: Path, column: pa.Field, num_rows: int) -> None:
    """Refuse a column of other kinds than strings, or, but for ``text``, integers or strings."""
    kind = column.type
    if pa.types.is_dictionary(kind):  # how pandas writes a categorical column
        kind = kind.value_type
    is_string = kind in _STRINGS
    is_label = is_string or pa.types.is_integer(kind) or pa.types.is_boolean(kind)
    is_empty = pa.types.is_null(kind) or not num_rows  # said with the first row, or of the file
    if not (is_string if column.name == "text" else is_label) and not is_empty:
        raise ValueError(
            f"{path}: column {column.name!r} holds {shortened(str(kind))}, but must hold "
            f"{expected(column.name)}"
        )


def _plain(column: pa.Array) -> pa.Array:
    is_dictionary = pa.types.is_dictionary(column.type)
    return column.cast(column.type.value_type) if is_dictionary else column


def _values(path: Path, num_before: int, name: str, column: pa.Array) -> list[Any]:
    """Values of a part of a Parquet column, whose first row follows ``num_before`` others."""
    if column.null_count:
        row = next(row for row, value in enumerate(column, num_before + 1) if not value.is_valid)
        raise ValueError(f"{path}, row {row}: no {name}: fill it in or delete the row")
    try:
        values = column.to_pylist()
    except UnicodeDecodeError as error:
        places = enumerate(column, num_before + 1)
        row = next(row for row, value in places if not _is_utf8(value.as_buffer()))
        raise ValueError(f"{path}, row {row}: the {name} is not UTF-8") from error
    return [int(value) for value in values] if pa.types.is_boolean(column.type) else values


def _is_utf8(data: pa.Buffer) -> bool:
    try:
        data.to_pybytes().decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
