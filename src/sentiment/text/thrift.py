"""Integers out of Thrift's compact encoding, in which Parquet writes its footer and page headers.

https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md; texts and numbers
with a fraction are passed over. Whatever is unusual is refused, so that no two readers can take one
file for two things.
"""

from __future__ import annotations

from typing import Any, BinaryIO

_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _, _STRUCT = range(1, 13)
_DEEPEST = 12  # Parquet nests its structs half as deep


class Damaged(ValueError):
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
