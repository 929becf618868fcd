"""Delimited text: which delimiter it has, and its rows."""

from __future__ import annotations

import csv
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

from sentiment.runtime import files

DELIMITERS = {".csv": ",", ".tsv": "\t"}  # by the endings of names

_SNIFFED = ",;\t|"
_SNIFFED_ROWS = 50


def find_delimiter(lines: Sequence[str], usual: str, quoting: str) -> str:
    """The delimiter that splits the first lines of a file into equally many columns, two or more;
    the usual one where it does so as well as others.
    """
    chosen, best = usual, (0.0, False, 0)
    for delimiter in dict.fromkeys((usual, *_SNIFFED)):
        widths = [len(row) for row in sample_rows(lines, delimiter, quoting)]
        if widths and widths[0] > 1:
            share = Counter(widths)[widths[0]] / len(widths)
            score = (share, delimiter == usual, widths[0])
            if score > best:
                chosen, best = delimiter, score
    return chosen


def sample_rows(lines: Sequence[str], delimiter: str, quoting: str) -> list[list[str]]:
    """The first rows, up to a broken one, as the last may be if the lines end within a value."""
    rows: list[list[str]] = []
    with suppress(csv.Error):
        rows.extend(itertools.islice(read_rows(lines, delimiter, quoting), _SNIFFED_ROWS))
    return rows


def has_row_names(lines: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Whether rows begin with a name that the header lacks, as R's write.table writes them.

    Each is a number or quoted, and none occurs twice; values after them are not just filled up.
    """
    header, *others = rows
    names = [row[0] for row in others]
    return (
        len(names) > 0
        and all(len(row) == len(header) + 1 for row in others)
        and any(row[-1] for row in others)
        and len(set(names)) == len(names)
        and (all(map(str.isdecimal, names)) or lines[1].startswith('"'))
    )


def read_rows(lines: Iterable[str], delimiter: str, quoting: str) -> Iterator[list[str]]:
    """Rows that are not empty; a broken one raises ``csv.Error`` with the line it begins in."""
    if quoting == "backslash":  # else MySQL's null, \N, would become the letter N
        null = re.compile(rf"(?<![^{re.escape(delimiter)}])\\N(?=[{re.escape(delimiter)}\r\n]|$)")
        lines = (null.sub(r"\\\\N", line) for line in lines)
    reader = csv.reader(
        lines,
        delimiter=delimiter,
        strict=True,
        escapechar="\\" if quoting == "backslash" else None,
        quoting=csv.QUOTE_NONE if quoting == "none" else csv.QUOTE_MINIMAL,
    )
    while True:
        line = reader.line_num + 1
        limit = csv.field_size_limit(files.LONGEST_LINE)  # it holds for the whole process
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise csv.Error(f"in the row that begins in line {line}: {error}") from error
        finally:
            csv.field_size_limit(limit)
        if row is None:
            return
        if row:
            yield row
