"""The type of bounds and their check; sections.py declares each setting's own.

For example ``num_epochs: Annotated[int, Bounds(ge=1)]``.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from math import isfinite
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from sentiment.runtime.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """A range of numbers, without infinity unless ``finite`` is False."""

    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None
    finite: bool = True

    def allows(self, value: float) -> bool:
        return (
            (self.ge is None or value >= self.ge)
            and (self.gt is None or value > self.gt)
            and (self.le is None or value <= self.le)
            and (self.lt is None or value < self.lt)
            and (isinstance(value, int) or isfinite(value) or not self.finite)
        )

    def describe(self, value: float) -> str:
        """The range in words, for a message about ``value``."""
        if self.gt is not None and self.lt is not None:
            return f"between {self.gt:,} and {self.lt:,}, both excluded"
        lower = "" if self.gt is None else f"above {self.gt:,}"
        if self.ge is not None:
            is_open = self.le is None and self.lt is None
            lower = f"at least {self.ge:,}" if is_open else f"from {self.ge:,}"
        if self.le is not None:
            return f"{lower} {'to' if self.gt is None else 'and at most'} {self.le:,}"
        if self.lt is not None:
            return f"{lower} to below {self.lt:,}"
        if isinstance(value, int) or not self.finite:
            return lower
        return f"{lower} and finite" if lower else "finite"


@dataclass(frozen=True)
class NonBlank:
    """A text that is not blank; ``what`` describes valid values, such as "a folder"."""

    what: str

    def allows(self, value: str) -> bool:
        return value.strip() != ""

    def describe(self, value: str) -> str:
        return self.what


def require(holds: bool, key: str, value: Any, expected: str) -> None:
    """Raise ``UserError`` with the key, its value and what is valid, unless it holds."""
    if not holds:
        raise UserError(f"{key} is {value!r}, but must be {expected}")


def check_bounds(section: Any, prefix: str = "") -> None:
    """Raise ``UserError`` if a setting of a section is outside the bounds in its type."""
    for name, (bounds, allows_none) in _bounds(section.__class__).items():
        value = getattr(section, name)
        if value is None and allows_none:
            continue
        expected = bounds.describe(value) + (", or null" if allows_none else "")
        require(bounds.allows(value), prefix + name, value, expected)


@functools.cache
def _bounds(section: type) -> dict[str, tuple[Bounds | NonBlank, bool]]:
    """The bounds of each setting that has some, and whether it may be null."""
    hints = get_type_hints(section, include_extras=True)
    return {
        name: (hint.__metadata__[0], type(None) in get_args(hint.__origin__))
        for name, hint in hints.items()
        if get_origin(hint) is Annotated
    }
