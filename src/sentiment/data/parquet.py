"""Pages of a Parquet file, measured before pyarrow decompresses them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow.parquet as pq

from sentiment.runtime.errors import UserError
from sentiment.runtime.files import DecompressionLimit

_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _, _STRUCT = range(1, 13)
_DEEPEST = 12  # Parquet nests its structs half as deep


class Damaged(UserError):
    """Bytes that are no such encoding."""


def read_struct(file: BinaryIO, *, num_bits: int, depth: int = 1) -> dict[int, Any]:
    """Read a struct: its structs, lists and integers by the numbers of their fields.

    Args:
        file: stands where the struct begins, and then where it ends.
        num_bits: 32 or 64, the kind of integers that is wanted.
        depth: for itself alone.

    Raises:
        Damaged: it is cut off, has a field twice, or nests too deeply.
    """
    fields: dict[int, Any] = {}
    number = 0
    while head := _read_byte(file):
        kind, step = head & 0x0F, head >> 4
        number = (number + step if step else _signed(_read_number(file))) & 0xFFFF
        if number in fields:
            raise Damaged("a field is there twice")
        is_flag = kind in (_TRUE, _FALSE)  # whose value is its kind
        fields[number] = None if is_flag else _read_value(file, kind, num_bits, depth)
    return fields


def _read_value(file: BinaryIO, kind: int, num_bits: int, depth: int) -> Any:
    if depth > _DEEPEST:
        raise Damaged("it nests too deeply")
    if kind in (_I16, _I32, _I64):
        value = _signed(_read_number(file))
        return value if kind == (_I32 if num_bits == 32 else _I64) else None
    if kind == _STRUCT:
        return read_struct(file, num_bits=num_bits, depth=depth + 1)
    if kind in (_LIST, _SET):
        head = _read_byte(file)
        size = head >> 4 if head >> 4 < 15 else _read_number(file)
        return [_read_value(file, head & 0x0F, num_bits, depth + 1) for _ in range(size)]
    if kind == _BINARY:
        _skip(file, _read_number(file))
    elif kind in (_TRUE, _FALSE, _BYTE):
        _skip(file, 1)
    elif kind == _DOUBLE:
        _skip(file, 8)
    else:
        raise Damaged("a value is of no known kind")
    return None


def _skip(file: BinaryIO, num_bytes: int) -> None:
    if num_bytes >= 2**31:
        raise Damaged("a text is too long")
    file.seek(num_bytes - 1, 1)  # and one more, which must be there
    if num_bytes:
        _read_byte(file)
    else:
        file.seek(1, 1)


def _read_number(file: BinaryIO) -> int:
    number = 0
    for shift in range(0, 64, 7):
        byte = _read_byte(file)
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number
    raise Damaged("a number is too long")


def _signed(number: int) -> int:
    return (number >> 1) ^ -(number & 1)


def _read_byte(file: BinaryIO) -> int:
    byte = file.read(1)
    if not byte:
        raise Damaged("it is cut off")
    return byte[0]


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
    unpacked = DecompressionLimit(path)
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


def _walk(file: BinaryIO, column: dict[int, Any], unpacked: DecompressionLimit) -> int:
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
