"""Seeded mutations of valid files."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

ABSURD_NUMBERS = [
    b"-1", b"0", b"1e999", b"nan", b"inf", b"-0.0", b"1_000", b"2147483648", b"9223372036854775808",
    b"18446744073709551616", b"1" * 5_000, b"0x7fffffff",
    "٣".encode(),  # a digit of another script
]  # fmt: skip
PIECES = [
    b"\xed\xa0\x80",  # a lone surrogate, as UTF-8 would encode it
    b"\0", b"\0" * 50, b"\\ud83d", b"\xff\xfe", b"\xef\xbb\xbf", b"\r", b"\r\n", b"\n\n\n",
    "\u2028\u0085\u202e".encode(), b'"', b'"",""', b"\t", b",", b"[" * 3_000, b'{"a":' * 3_000,
    b"{a: " * 60, b"- " * 400, b"&a [*a]", b"*a", b"!!python/object/apply:os.system [true]",
    b"!!int ''", b"<<: ", b"class_path: antigravity", b"../../etc/passwd", b"null", b"true",
    b"text", b"label", b"x" * 10_000, b" " * 9_000, b"(5, 5)", b"'|O'", b"__reduce__",
]  # fmt: skip


def _slice(data: bytes, generator: random.Random) -> tuple[int, int]:
    start = generator.randrange(len(data) + 1)
    return start, min(len(data), start + generator.choice((1, 2, 8, 40, 400)))


def _flip_bit(data: bytes, generator: random.Random) -> bytes:
    if not data:
        return data
    at = generator.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << generator.randrange(8)]) + data[at + 1 :]


def _cut_out(data: bytes, generator: random.Random) -> bytes:
    start, end = _slice(data, generator)
    return data[:start] + data[end:]


def _double(data: bytes, generator: random.Random) -> bytes:
    start, end = _slice(data, generator)
    return data[:end] + data[start:end] * generator.choice((1, 1, 20)) + data[end:]


def _insert(data: bytes, generator: random.Random) -> bytes:
    at = generator.randrange(len(data) + 1)
    return data[:at] + generator.choice(PIECES) + data[at:]


def _change_number(data: bytes, generator: random.Random) -> bytes:
    numbers = list(re.finditer(rb"\d+", data))
    if not numbers:
        return _insert(data, generator)
    number = generator.choice(numbers)
    return data[: number.start()] + generator.choice(ABSURD_NUMBERS) + data[number.end() :]


def _change_encoding(data: bytes, generator: random.Random) -> bytes:
    text = data.decode("latin-1")
    return text.encode(generator.choice(("utf-8", "utf-16", "utf-8-sig", "utf-7")))


_MUTATIONS: list[Callable[[bytes, random.Random], bytes]] = [
    *[_flip_bit] * 4, _cut_out, _double, *[_insert] * 2, *[_change_number] * 2,
]  # fmt: skip


def mutate(data: bytes, generator: random.Random) -> bytes:
    """A copy with one to four mutations; one in forty copies has none."""
    if generator.random() < 0.025:
        return data
    if generator.random() < 0.01:
        return _change_encoding(data, generator)
    for _ in range(generator.choice((1, 1, 2, 4))):
        data = generator.choice(_MUTATIONS)(data, generator)
    return data
