"""Predicting interactively: arguments and standard input, and a table."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
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
    """Lists of texts, as rows of one column; a block holds texts of one list."""

    def __init__(self, origin: str, lists: Iterable[list[str]], text_column: str) -> None:
        self.origin = origin
        self.columns, self.text_columns = [text_column], (text_column,)
        self._lists = lists

    def blocks(self, window: int) -> Iterator[Block]:
        first = 1
        for texts in self._lists:
            for start in range(0, len(texts), window):
                rows = [[text] for text in texts[start : start + window]]
                yield delimited_block(self.origin, first, self.columns, [0], rows, 0.0)
                first += len(rows)


def read_lines(descriptor: int) -> Iterator[list[str]]:
    """The lines that have arrived on a file descriptor, a list for each read.

    So each line that is typed is answered at once.
    """
    rest = b""
    while data := os.read(descriptor, _BYTES_OF_A_READ):
        *lines, last = data.split(b"\n")
        if lines:
            lines[0], rest = rest + lines[0], b""
            yield list(map(_decode, lines))
        rest += last
        if len(rest) > LONGEST_LINE:
            raise UserError(f"standard input: a line of more than {LONGEST_LINE:,} bytes")
    if rest:
        yield [_decode(rest)]


def _decode(line: bytes) -> str:
    return line.removesuffix(b"\r").decode("utf-8", "surrogateescape")


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
