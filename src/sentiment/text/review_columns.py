"""The columns of a file of reviews, whatever its format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sentiment.bounds import shortened

# A label as files hold it: an integer, or a name (which in CSV may be an integer's digits).
Label = int | str

EXPECTED = {"text": "strings", "label": "integers or names"}

_MOST_LISTED = 20


def needed_columns(place: Path | str, names: Sequence[str], with_labels: bool) -> list[str]:
    """Names of the columns to read, each of which must be there once."""
    columns = ["text", "label"] if with_labels else ["text"]
    for name in columns:
        if list(names).count(name) != 1:
            found = ", ".join(repr(shortened(each)) for each in names[:_MOST_LISTED]) or "none"
            found += ", …" if len(names) > _MOST_LISTED else ""
            raise ValueError(f"{place}: columns {' and '.join(columns)} needed, but found: {found}")
    return columns
