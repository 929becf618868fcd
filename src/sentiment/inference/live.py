"""Predicting interactively: arguments and standard input, and a table."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from typing import TextIO

from sentiment.data.blocks import Block, delimited_block, replace_surrogates
from sentiment.data.file_source import Source
from sentiment.display.console import pad, sanitize, truncate, width
from sentiment.inference.outputs import Output, Predictions
from sentiment.inference.predictor import Prediction
from sentiment.runtime.errors import UserError
from sentiment.runtime.files import LONGEST_LINE

_BYTES_OF_A_READ = 1 << 18


class TextsSource(Source):
    """Texts of the command line, as rows of one column."""

    def __init__(self, texts: Sequence[str], text_column: str) -> None:
        self.origin = "the command line"
        self.columns, self.text_columns = [text_column], (text_column,)
        self._texts = texts

    def blocks(self, window: int) -> Iterator[Block]:
        for start in range(0, len(self._texts), window):
            rows = [[text] for text in self._texts[start : start + window]]
            share = (start + len(rows)) / len(self._texts)
            yield delimited_block(self.origin, start + 1, self.columns, [0], rows, share)


class LiveSource(Source):
    """Lines of a stream, given by its file descriptor, as rows of one column.

    A block holds the lines that have arrived, so that each is answered at once on a terminal.
    """

    def __init__(self, descriptor: int, text_column: str) -> None:
        self.origin = "standard input"
        self.columns, self.text_columns = [text_column], (text_column,)
        self._descriptor = descriptor

    def blocks(self, window: int) -> Iterator[Block]:
        first = 1
        for lines in _read_lines(self._descriptor):
            texts = [line.removesuffix(b"\r").decode("utf-8", "surrogateescape") for line in lines]
            for start in range(0, len(texts), window):
                rows = [[text] for text in texts[start : start + window]]
                yield delimited_block(self.origin, first, self.columns, [0], rows, 0.0)
                first += len(rows)


def _read_lines(descriptor: int) -> Iterator[list[bytes]]:
    """Lists of lines without line ends, one list for each read."""
    rest = b""
    while data := os.read(descriptor, _BYTES_OF_A_READ):
        *lines, last = data.split(b"\n")
        if lines:
            lines[0], rest = rest + lines[0], b""
            yield lines
        rest += last
        if len(rest) > LONGEST_LINE:
            raise UserError(f"standard input: a line of more than {LONGEST_LINE:,} bytes")
    if rest:
        yield [rest]


class AnswerTable(Output):
    """A line per text: the class, its probability, the start of the text."""

    def __init__(self, stream: TextIO, class_names: tuple[str, ...], max_length: int) -> None:
        self._stream = stream
        self._width = max(width(sanitize(name)) for name in class_names)
        self._max_length = max_length

    def write(self, block: Block, predictions: Predictions) -> None:
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
