"""Pages of a Parquet file, looked at before pyarrow unpacks them.

pyarrow takes a page's size from the page's own header, up to 2 GB, whatever the file's footer
says; a few kilobytes of them fill any memory. So the headers are read here and held against the one
rule of :mod:`sentiment.bounds`. The footer is read here too: pyarrow's own ``metadata.column``
ends the whole process over a footer with a byte changed. The numbers of fields are those of
https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow.parquet as pq

from sentiment.bounds import Unpacked
from sentiment.text.thrift import Damaged, read_struct

# What a row costs in Python besides the characters of its text.
ROW_BYTES = 64
_VALUE_BYTES = 8  # of the shortest value, unpacked

# Fields of the footer, of a row group in it, of a column in that, of what is said of the column.
_NUM_ROWS, _ROW_GROUPS = 3, 4
_COLUMNS, _NUM_ROWS_OF_GROUP = 1, 3
_COLUMN = 3
_NUM_VALUES, _PACKED_BYTES, _DATA_START, _DICTIONARY_START = 5, 7, 9, 11
# Fields of a page's header: sizes, and the headers of its kinds, whose first is a number of values.
_PAGE_UNPACKED, _PAGE_PACKED, _DATA_PAGE, _DATA_PAGE_V2 = 2, 3, 5, 8
_NUM_VALUES_OF_PAGE = 1


def check_pages(
    path: Path, file: BinaryIO, columns: Sequence[str], schema: pq.ParquetSchema
) -> int:
    """Check that some columns of a file unpack to no more than the rule allows.

    Args:
        path: the file's name.
        file: the file, open.
        columns: names of top-level columns.
        schema: what pyarrow made of the footer.

    Returns:
        How many rows may be read at once: a value is never larger than its page, but each row
        may repeat the largest one.

    Raises:
        OutOfProportion: they unpack to more.
        Damaged: the pages are not what the footer says.
    """
    unpacked = Unpacked(path)
    footer = _read_footer(file)
    leaves = [schema.column(place) for place in range(len(schema))]
    largest = 1
    num_rows = 0
    for group in _structs(footer, _ROW_GROUPS):
        num_rows += _integer(group, _NUM_ROWS_OF_GROUP)
        chunks = _structs(group, _COLUMNS)
        if len(chunks) != len(leaves):
            raise Damaged("a part of it has other columns than the whole")
        for leaf, chunk in zip(leaves, chunks, strict=True):
            column = _struct(chunk, _COLUMN)
            if leaf.path.split(".")[0] in columns:
                largest = max(largest, _walk(file, column, unpacked))
                is_flat = leaf.max_repetition_level == 0
                if is_flat and column[_NUM_VALUES] != group[_NUM_ROWS_OF_GROUP]:
                    raise Damaged("a column has not as many values as there are rows")
    if num_rows != footer.get(_NUM_ROWS):
        raise Damaged("the numbers of rows of its parts and of the whole differ")
    return max(1, unpacked.most // largest)


def _read_footer(file: BinaryIO) -> dict[int, Any]:
    file.seek(-8, 2)
    size = int.from_bytes(file.read(4), "little")
    if size + 8 > file.seek(0, 2):
        raise Damaged("its footer is longer than itself")
    file.seek(-8 - size, 2)
    return read_struct(io.BytesIO(file.read(size)), num_bits=64)


def _walk(file: BinaryIO, column: dict[int, Any], unpacked: Unpacked) -> int:
    """Count the pages of a part of a column; the largest one's size."""
    num_values = _integer(column, _NUM_VALUES)
    unpacked.add(num_values * _VALUE_BYTES)
    position = _integer(column, _DATA_START)
    if _DICTIONARY_START in column:
        position = min(position, _integer(column, _DICTIONARY_START) or position)
    end = position + _integer(column, _PACKED_BYTES)
    if end > file.seek(0, 2):
        raise Damaged("a column lies beyond its end")
    largest = 0
    while position < end and num_values:
        file.seek(position)
        header = read_struct(file, num_bits=32)
        size = _integer(header, _PAGE_UNPACKED)
        unpacked.add(size)
        largest = max(largest, size)
        page = _struct(header, _DATA_PAGE) or _struct(header, _DATA_PAGE_V2)
        num_values -= _integer(page, _NUM_VALUES_OF_PAGE) if page else 0
        position = file.tell() + _integer(header, _PAGE_PACKED)
    if num_values:
        raise Damaged("its pages have not as many values as its footer says")
    return largest


def _integer(fields: dict[int, Any], number: int) -> int:
    value = fields.get(number)
    if not isinstance(value, int) or value < 0:
        raise Damaged("a size is missing or negative")
    return value


def _struct(fields: dict[int, Any], number: int) -> dict[int, Any]:
    value = fields.get(number)
    return value if isinstance(value, dict) else {}


def _structs(fields: dict[int, Any], number: int) -> list[dict[int, Any]]:
    values = fields.get(number)
    if not isinstance(values, list):
        return []
    return [each if isinstance(each, dict) else {} for each in values]
