"""Which columns hold the texts and the labels: as the settings say, or by well-known names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from sentiment.config.config import DataConfig
from sentiment.display.console import truncate

# Compared without case, spaces and punctuation. The first name wins over all others.
TEXT_NAMES = (
    "text", "review", "reviews", "sentence", "content", "body", "comment", "comments", "tweet",
    "reviewtext", "textreview", "reviewbody", "reviewcontent", "reviewcomment", "commenttext",
    "tweettext", "sentencetext", "message", "phrase", "document", "headline", "post",
)  # fmt: skip
LABEL_NAMES = (
    "label", "labels", "sentiment", "stars", "rating", "class", "target", "category", "polarity",
    "score", "overall", "reviewrating", "starrating", "sentimentlabel", "airlinesentiment",
)  # fmt: skip
SPLIT_COLUMNS = ("split", "isvalid", "isvalidation", "isval", "istest", "istrain", "partition")

_MAX_LISTED = 20
_MAX_CLASSES = 20  # of a column that is proposed for labels


class FileOptions(DataConfig):
    """How a command reads a file, by options of its own: ``--text-column`` and so on."""

    def option_name(self, setting: str) -> str:
        return f"--{setting.replace('_', '-')}"


class ColumnProblem(Exception):
    """No column, or more than one, may hold the texts or the labels."""


def find_texts(columns: Sequence[str], data: DataConfig, *, alone: bool) -> tuple[str, ...]:
    """The columns of the texts; the only column if they stand ``alone``, without labels."""
    if data.text_columns:
        return tuple(_named(columns, name) for name in data.text_columns)
    if len(columns) == 1 and alone:
        return tuple(columns)
    return (_well_known(columns, TEXT_NAMES, "texts"),)


def find_label(columns: Sequence[str], data: DataConfig) -> str:
    """The column of the labels."""
    if data.label_column is not None:
        return _named(columns, data.label_column)
    return _well_known(columns, LABEL_NAMES, "labels")


def _named(columns: Sequence[str], name: str) -> str:
    """The column with a name, or else the only one whose name differs in case and spaces."""
    if name in columns:
        return name
    similar = [column for column in columns if column.strip().lower() == name.strip().lower()]
    if len(similar) != 1:
        raise ColumnProblem(f"no column {name!r}")
    return similar[0]


def normalize(name: str) -> str:
    """A column's name without case, spaces and punctuation."""
    return re.sub(r"[\W_]", "", name.lower())


def _well_known(columns: Sequence[str], names: Sequence[str], what: str) -> str:
    if names[0] in columns:
        return names[0]
    found = [column for column in columns if normalize(column) in names]
    first = [column for column in found if normalize(column) == names[0]]
    if len(set(found)) == 1 or len(first) == 1:
        return (first or found)[0]
    if found:
        raise ColumnProblem(f"{' and '.join(map(repr, found))} may hold the {what}")
    raise ColumnProblem(f"no column has a usual name for {what} ({', '.join(names[:4])}, …)")


def is_header(cells: Sequence[str]) -> bool:
    """Whether a row looks like a header: it has well-known names of texts and of labels."""
    names = set(map(normalize, cells))
    return not names.isdisjoint(TEXT_NAMES) and not names.isdisjoint(LABEL_NAMES)


def list_columns(columns: Sequence[str]) -> str:
    listed = ", ".join(repr(truncate(name, 60)) for name in columns[:_MAX_LISTED]) or "none"
    more = len(columns) - _MAX_LISTED
    return f"{listed} and {more} more" if more > 0 else listed


def guess_columns(
    samples: Mapping[str, Sequence[Any]],
) -> tuple[str | None, str | None]:
    """The columns that look like texts (the longest strings) and labels (few values, repeated).

    Strings without white space are not texts, unless their script is written without any.
    """
    lengths, variety = {}, {}
    for column, values in samples.items():
        cells = [value for value in values if value not in (None, "")]
        if not cells:
            continue
        words = [len(cell.split()) if isinstance(cell, str) else 0 for cell in cells]
        if max(words) > 1 or not all(str(cell).isascii() for cell in cells):
            lengths[column] = sum(words) / len(cells)
        distinct = len(set(map(str, cells)))
        if 2 <= distinct <= max(2, min(_MAX_CLASSES, len(cells) // 2)):
            variety[column] = distinct
    text = max(lengths, key=lambda name: lengths[name], default=None)
    candidates = [name for name in variety if name != text]
    known = [name for name in candidates if normalize(name) in LABEL_NAMES]
    return text, min(known or candidates, key=lambda name: variety[name], default=None)
