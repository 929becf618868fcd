"""Values of a file of behaviour tests, each checked as it is read.

Every function takes the place (file, test, key) that its message begins with, and raises
ValueError.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sentiment.checking.templates import suggest


def check_keys(
    place: str, values: Mapping[Any, Any], known: Sequence[str], *, needed: Sequence[str]
) -> None:
    """Refuse unknown keys, and needed ones that are missing."""
    for key in values:
        if key not in known:
            raise ValueError(f"{place}: unknown key {key!r}{suggest(str(key), known)}")
    for key in needed:
        if key not in values:
            raise ValueError(f"{place}: no {key}, which is needed")


def one_of(place: str, values: Mapping[str, Any], keys: Sequence[str]) -> str:
    """The one of the keys that is given."""
    given = [key for key in keys if key in values]
    if len(given) != 1:
        found = f"{listed(given)} are" if given else "none is"
        raise ValueError(f"{place}: {' or '.join(keys)} is needed, but {found} given")
    return given[0]


def read_choice(place: str, value: Any, choices: Sequence[str]) -> Any:
    """One of a few words."""
    if value not in choices:
        raise ValueError(f"{place} is {value!r}, which is unknown{suggest(str(value), choices)}")
    return value


def read_texts(place: str, value: Any) -> tuple[str, ...]:
    """A list of texts, none of them twice."""
    if not isinstance(value, list):
        raise ValueError(f"{place} must be a list of texts")
    if not value:
        raise ValueError(f"{place} is empty: give at least one text")
    texts: dict[str, None] = {}
    for each in value:
        if (text := read_text(place, each)) in texts:
            raise ValueError(f"{place} has {text!r} twice: delete one")
        texts[text] = None
    return tuple(texts)


def read_text(place: str, value: Any) -> str:
    """A text that is not empty; YAML takes an unquoted no or 7 for something else than text."""
    if not isinstance(value, str):
        raise ValueError(f"{place}: {value!r} is no text: put it in quotes")
    if not value.strip():
        raise ValueError(f"{place}: an empty text")
    try:
        value.encode()
    except UnicodeEncodeError:  # YAML can write one as "\\ud83d", and UTF-8 cannot
        raise ValueError(f"{place}: {value!r} holds half a surrogate pair") from None
    return value


def read_tolerance(place: str, value: Any) -> float:
    """A change of a probability."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(f"{place} is {value!r}, but must be a change of probability, 0 to 1")
    return float(value)


def read_number(place: str, value: Any) -> int:
    """A number of things."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{place} is {value!r}, but must be an integer of at least 1")
    return value


def listed(names: Iterable[str]) -> str:
    """Names for a message."""
    return ", ".join(names)
