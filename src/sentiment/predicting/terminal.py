"""Predictions and progress as a person at a terminal reads them."""

from __future__ import annotations

import shutil
import sys
from typing import TextIO

from tqdm import tqdm

from sentiment.predicting.added import Predictions
from sentiment.predicting.blocks import Block, whole_characters
from sentiment.predictor import Prediction
from sentiment.shown import pad, printable, shorten, width


class AnswerTable:
    """One line a text: the class, how probable it is, the text's beginning.

    Args:
        stream: where to.
        class_names: names of the classes, for the width of their column.
        max_length: tokens that the run reads of a text.
    """

    def __init__(self, stream: TextIO, class_names: tuple[str, ...], max_length: int) -> None:
        self._stream = stream
        self._width = max(width(printable(name)) for name in class_names)
        self._max_length = max_length

    def write(self, block: Block, predictions: Predictions) -> None:
        for text, prediction in zip(block.texts, predictions, strict=True):
            if text is not None and prediction is not None:
                print(self._line(text, prediction), file=self._stream)
        self._stream.flush()

    def commit(self) -> int:
        return 0

    def finish(self) -> None:
        pass

    def _line(self, text: str, prediction: Prediction) -> str:
        label = pad(printable(prediction.label), self._width)
        head = f"{label}  {100 * prediction.probability:5.1f} %  "
        note = ""
        if prediction.was_cut:
            note = f"  (read {self._max_length:,} of its {prediction.num_tokens:,} tokens)"
        columns = shutil.get_terminal_size().columns - width(head) - width(note)
        return head + shorten(_one_line(text), max(10, columns)) + note


class Bar:
    """A progress bar on standard error, and the bad rows above it.

    Args:
        is_shown: False shows no bar; None shows one where there is a terminal.
    """

    def __init__(self, is_shown: bool | None = None) -> None:
        hidden = None if is_shown is None else not is_shown
        self._bar = tqdm(
            desc="predicting", unit="review", disable=hidden, leave=False, dynamic_ncols=True
        )

    def begin(self, num_rows: int) -> None:
        # tqdm's own way to say that these were not done by this process: they count for no speed.
        self._bar.initial = self._bar.n = num_rows

    def expect(self, num_rows: int) -> None:
        self._bar.total = num_rows

    def update(self, num_rows: int) -> object:
        return self._bar.update(num_rows)

    def bad_row(self, message: str) -> None:
        self.say(f"passed over: {printable(_one_line(message))}")

    def say(self, message: str) -> None:
        """Print a line above the bar."""
        self._bar.write(message, file=sys.stderr)

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()


def _one_line(text: str) -> str:
    return " ".join(whole_characters(text).split())
