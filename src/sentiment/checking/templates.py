"""Templates: sentences with slots, filled from lists in every combination.

``The {part} was {praise}.`` takes a word of the list ``part`` and one of ``praise``. A slot that
stands twice holds the same word twice; ``{part:other}`` holds a word of the same list that differs
from that of ``{part}``.
"""

from __future__ import annotations

import difflib
import math
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence

Lists = Mapping[str, tuple[str, ...]]

_SLOT = re.compile(r"\{(\w+)(?::\w+)?\}")


def check_template(template: str, lists: Lists) -> None:
    """Check a template's slots against the lists.

    Raises:
        ValueError: a slot names no list, or a brace belongs to no slot.
    """
    for match in _SLOT.finditer(template):
        if match[1] not in lists:
            raise ValueError(f"{template!r}: slot {match[0]} has no list{suggest(match[1], lists)}")
    if re.search(r"[{}]", _SLOT.sub("", template)):
        raise ValueError(
            f"{template!r}: a brace that belongs to no slot: slots are {{LIST}} or {{LIST:NAME}}, "
            "in letters, digits and _"
        )


class Fillings(Sequence[tuple[str, ...]]):
    """Templates filled together, a slot with the same word in all of them: every combination of
    words, the last slot changing fastest. Each is made when it is asked for.

    Args:
        templates: their texts, whose slots are in ``lists``.
        lists: the words.

    Raises:
        ValueError: there are more combinations than a sequence can have.
    """

    def __init__(self, templates: Sequence[str], lists: Lists) -> None:
        self.templates = tuple(templates)
        self._lists = lists
        self._slots: dict[str, str] = {}  # what stands in the template, and its list
        for template in templates:
            self._slots.update({match[0]: match[1] for match in _SLOT.finditer(template)})
        # A second slot of a list takes one of the words that the first has left.
        earlier: Counter[str] = Counter()
        self._num_choices = []
        for name in self._slots.values():
            self._num_choices.append(max(len(lists[name]) - earlier[name], 0))
            earlier[name] += 1
        if math.prod(self._num_choices) > sys.maxsize:
            raise ValueError(f"{templates[0]!r} has too many combinations: use fewer slots")

    def __len__(self) -> int:
        return math.prod(self._num_choices)

    def __getitem__(self, index: int) -> tuple[str, ...]:  # type: ignore[override]
        if not 0 <= index < len(self):
            raise IndexError(index)
        places = []
        for number in reversed(self._num_choices):
            index, place = divmod(index, number)
            places.append(place)
        left = {name: list(self._lists[name]) for name in self._slots.values()}
        words = {
            slot: left[name].pop(place)
            for (slot, name), place in zip(self._slots.items(), reversed(places), strict=True)
        }
        return tuple(_SLOT.sub(lambda match: words[match[0]], each) for each in self.templates)


def suggest(name: str, known: Mapping[str, object] | Sequence[str]) -> str:
    """A hint at the nearest known name, to end a message with; or at all of them, if few."""
    nearest = difflib.get_close_matches(str(name), list(known), n=1)
    if nearest:
        return f": did you mean {nearest[0]!r}?"
    return f": there are {', '.join(known)}" if 0 < len(known) <= 20 else ""
