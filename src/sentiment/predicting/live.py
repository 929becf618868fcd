"""Texts from the command line, and lines of a stream as soon as they are there."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Iterator, Sequence

from sentiment.predicting.blocks import Block
from sentiment.predicting.delimited_source import delimited_block
from sentiment.predicting.sources import LONGEST, Source

_BYTES_OF_A_READ = 1 << 18
_READS_AHEAD = 64


class TextsSource(Source):
    """Texts that are there already, as rows of one column."""

    def __init__(self, texts: Sequence[str], text_column: str) -> None:
        self.place = "the command line"
        self.columns = [text_column]
        self._texts = texts

    def blocks(self, window: int) -> Iterator[Block]:
        for start in range(0, len(self._texts), window):
            rows = [[text] for text in self._texts[start : start + window]]
            share = (start + len(rows)) / len(self._texts)
            yield delimited_block(self.place, start + 1, self.columns, 0, rows, share)


class LiveSource(Source):
    """Lines of a stream, as rows of one column.

    A block holds what has come while the last one was predicted: one line where a person types
    them, many where a program writes them faster than they are read.

    Args:
        descriptor: the stream's number; it is read past Python's own buffer, which a thread must
            not hold when the program ends.
        text_column: name of the column.
    """

    def __init__(self, descriptor: int, text_column: str) -> None:
        self.place = "standard input"
        self.columns = [text_column]
        self._descriptor = descriptor

    def blocks(self, window: int) -> Iterator[Block]:
        first = 1
        for lines in _together(self._start_reading()):
            for start in range(0, len(lines), window):
                rows = [[_decoded(line)] for line in lines[start : start + window]]
                yield delimited_block(self.place, first, self.columns, 0, rows, 0.0)
                first += len(rows)

    def _start_reading(self) -> queue.Queue[list[bytes] | Exception | None]:
        ahead: queue.Queue[list[bytes] | Exception | None] = queue.Queue(_READS_AHEAD)

        def read() -> None:
            try:
                for lines in _read_lines(self._descriptor):
                    ahead.put(lines)
                ahead.put(None)
            except Exception as error:  # told where the lines are awaited
                ahead.put(error)

        threading.Thread(target=read, name="standard input", daemon=True).start()
        return ahead


def _read_lines(descriptor: int) -> Iterator[list[bytes]]:
    """Lines without their ends, as many together as one read brought."""
    rest = b""
    while data := os.read(descriptor, _BYTES_OF_A_READ):
        *lines, last = data.split(b"\n")
        if lines:
            lines[0], rest = rest + lines[0], b""
            yield lines
        rest += last
        if len(rest) > LONGEST:
            raise ValueError(f"standard input: a line of more than {LONGEST:,} bytes")
    if rest:
        yield [rest]


def _together(ahead: queue.Queue[list[bytes] | Exception | None]) -> Iterator[list[bytes]]:
    """Wait for lines, and take all that are there."""
    while True:
        arrived = [ahead.get()]
        while not ahead.empty():
            arrived.append(ahead.get_nowait())
        lines = [line for each in arrived if isinstance(each, list) for line in each]
        if lines:
            yield lines
        if isinstance(arrived[-1], Exception):
            raise arrived[-1]
        if arrived[-1] is None:
            return


def _decoded(line: bytes) -> str:
    return line.removesuffix(b"\r").decode("utf-8", "surrogateescape")
