"""Names that come from data, made fit to be shown: class names may hold anything."""

from __future__ import annotations

import unicodedata


def printable(text: str) -> str:
    """Text without control characters, which could move a terminal's cursor: by their escapes."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def width(text: str) -> int:
    """Columns of a terminal that text takes; wide are East Asian characters and emoji."""
    return sum(
        0 if unicodedata.combining(each) else 1 + (unicodedata.east_asian_width(each) in "WF")
        for each in text
    )


def shorten(text: str, columns: int) -> str:
    """Text of at most so many columns, printable; what is cut off becomes an ellipsis."""
    text = printable(text)
    if width(text) <= columns:
        return text
    while width(text) > columns - 1:
        text = text[:-1]
    return text + "…"


def pad(text: str, columns: int, *, right: bool = False) -> str:
    """Text filled with spaces to so many columns, on its right or, with ``right``, on its left."""
    spaces = " " * (columns - width(text))
    return spaces + text if right else text + spaces
