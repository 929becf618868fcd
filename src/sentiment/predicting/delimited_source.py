"""CSV, TSV and plain lines of texts to predict."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterator, Sequence
from typing import TextIO

from sentiment.bounds import LONGEST_LINE
from sentiment.predicting.blocks import Block, DelimitedBlock, is_utf8
from sentiment.predicting.sources import TextSource, unpacked_suffix

DELIMITERS = {".csv": ",", ".tsv": "\t"}


class LineSource(TextSource):
    """Plain text: each line is one, empty ones too."""

    def _read_columns(self) -> Sequence[str]:
        return [self.text_column]

    def blocks(self, window: int) -> Iterator[Block]:
        with self.open_text(newline="\n") as (file, raw):
            rows = ((len(line), [line.rstrip("\r\n")]) for line in self.lines(file))
            for first, taken, share in self.cut(rows, window, raw):
                yield delimited_block(self.place, first, self.columns, 0, taken, share)


class DelimitedSource(TextSource):
    """CSV or TSV, with a header."""

    def _read_columns(self) -> Sequence[str]:
        with self.open_text(newline="") as (file, _):
            header = next(self._rows(file), None)
        if header is None:
            raise ValueError(f"{self.path} is empty: it needs a header that names its columns")
        if not all(map(is_utf8, header)) or any("\0" in name for name in header):
            raise ValueError(f"{self.path}: the header is not UTF-8 text: save the file as UTF-8")
        self.check_columns(header)
        return header

    def blocks(self, window: int) -> Iterator[Block]:
        text = self.columns.index(self.text_column)
        with self.open_text(newline="") as (file, raw):
            rows = (
                (sum(map(len, row)), row) for row in itertools.islice(self._rows(file), 1, None)
            )
            for first, taken, share in self.cut(rows, window, raw):
                yield delimited_block(self.place, first, self.columns, text, taken, share)

    def _rows(self, file: TextIO) -> Iterator[list[str]]:
        delimiter = DELIMITERS[unpacked_suffix(self.path)]
        reader = csv.reader(self.lines(file), delimiter=delimiter, strict=True)
        while True:
            line = reader.line_num + 1
            limit = csv.field_size_limit(LONGEST_LINE)  # of all readers of the process
            try:
                row = next(reader, None)
            except csv.Error as error:
                raise ValueError(
                    f"{self.path}, in the row that begins in line {line}: {error}: quote a value "
                    "that holds quotes, delimiters or line breaks, and double the quotes inside "
                    '("")'
                ) from error
            finally:
                csv.field_size_limit(limit)
            if row is None:
                return
            if row:
                yield row


def delimited_block(
    place: str, first: int, columns: Sequence[str], text: int, rows: list[list[str]], share: float
) -> DelimitedBlock:
    """A block of rows of cells, the texts in column number ``text``."""
    texts: list[str | None] = []
    problems: dict[int, str] = {}
    for number, row in enumerate(rows):
        if len(row) != len(columns):
            problems[number] = (
                f"{len(row)} values, but the header names {len(columns)} columns: quote a value "
                "that holds the delimiter"
            )
        elif not all(map(is_utf8, row)):
            problems[number] = "not UTF-8"
        texts.append(None if number in problems else row[text])
    return DelimitedBlock(place, first, columns, texts, problems, share, rows)
