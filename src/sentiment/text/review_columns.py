"""The columns of a file of reviews, whatever its format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sentiment.bounds import shortened

# A label as files hold it: an integer, or a name (which in CSV may be an integer's digits).
Label = int | str

_EXPECTED = {"text": "strings", "label": "integers or names"}

_MOST_LISTED = 20


@dataclass
class Columns:
    """What is read of a file, value by value.

    Attributes:
        texts: one for each row.
        labels: one for each row, or none where they are not asked for.
        groups: likewise, of the column that names a row's group.
    """

    texts: list[str] = field(default_factory=list)
    labels: list[Label] = field(default_factory=list)
    groups: list[Label] = field(default_factory=list)

    def of(self, name: str) -> list[Any]:
        """The list that a column's values belong in."""
        lists: dict[str, list[Any]] = {"text": self.texts, "label": self.labels}
        return lists.get(name, self.groups)

    def __iadd__(self, other: Columns) -> Columns:
        self.texts += other.texts
        self.labels += other.labels
        self.groups += other.groups
        return self


def expected(name: str) -> str:
    """What a column must hold, in words."""
    return _EXPECTED.get(name, "integers or names")


def needed_columns(
    place: Path | str, names: Sequence[str], with_labels: bool, group_column: str | None = None
) -> list[str]:
    """Names of the columns to read, each of which must be there once."""
    columns = ["text", "label"] if with_labels else ["text"]
    if group_column is not None:
        columns.append(group_column)
    for name in columns:
        if list(names).count(name) != 1:
            found = ", ".join(repr(shortened(each)) for each in names[:_MOST_LISTED]) or "none"
            found += ", …" if len(names) > _MOST_LISTED else ""
            raise ValueError(f"{place}: columns {' and '.join(columns)} needed, but found: {found}")
    return columns
