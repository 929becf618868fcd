"""JSON Lines of texts to predict."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Iterator, Sequence
from typing import Any

from sentiment.predicting.blocks import Block, JsonBlock, is_utf8
from sentiment.predicting.sources import TextSource


class JsonLinesSource(TextSource):
    """JSON Lines: an object a line, whose keys may differ; lines of white space are none."""

    def _read_columns(self) -> Sequence[str]:
        """The keys of the first object."""
        with self.open_text(newline="\n") as (file, _):
            for line in self.lines(file):
                record, _ = _parse(line)
                if record is not None:
                    self.check_columns(list(record))
                    return list(record)
        return [self.text_column]

    def blocks(self, window: int) -> Iterator[Block]:
        with self.open_text(newline="\n") as (file, raw):
            rows = ((len(line), line.strip(" \t\r\n")) for line in self.lines(file))
            there = ((size, line) for size, line in rows if line)
            for first, taken, share in self.cut(there, window, raw):
                yield self._block(first, taken, share)

    def _block(self, first: int, lines: list[str], share: float) -> Block:
        texts: list[str | None] = []
        problems: dict[int, str] = {}
        records = []
        for place, line in enumerate(lines):
            record, problem = _parse(line)
            text = None if record is None else record.get(self.text_column)
            problem = problem or _text_problem(text, self.text_column)
            if problem:
                problems[place], text = problem, None
            texts.append(text)
            records.append(record)
        args = (self.place, first, self.columns, texts, problems, share)
        return JsonBlock(*args, lines, records)


def _parse(line: str) -> tuple[dict[str, Any] | None, str]:
    """A line's object, or what is wrong with it."""
    if not is_utf8(line):
        return None, "not UTF-8"
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        return None, f"{error.msg} at character {error.colno}: write one JSON object a line"
    except (ValueError, RecursionError) as error:
        return None, f"not JSON that can be read ({error})"
    if not isinstance(record, dict):
        return None, f"a JSON {type(record).__name__}, but must be an object"
    return record, ""


def _text_problem(text: Any, column: str) -> str:
    """What keeps a value from being predicted; nothing for a string."""
    if text is None:
        return f"no {column}"
    if not isinstance(text, str):
        return f"the {column} is {reprlib.repr(text)}, but must be a string"
    return "" if is_utf8(text) else f"the {column} holds half a surrogate pair"
