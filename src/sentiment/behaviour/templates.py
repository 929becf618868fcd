"""Sentences with slots, and the changes made to them."""

from __future__ import annotations

import math
import random
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sentiment.display.console import did_you_mean
from sentiment.runtime.errors import UserError

Lists = Mapping[str, tuple[str, ...]]

_SLOT = re.compile(r"\{(\w+)(?::\w+)?\}")


def check_template(template: str, lists: Lists) -> None:
    """Check a template's slots against the lists.

    Raises:
        UserError: a slot names no list, or a brace belongs to no slot.
    """
    for match in _SLOT.finditer(template):
        if match[1] not in lists:
            hint = did_you_mean(match[1], lists, list_all=True)
            raise UserError(f"{template!r}: slot {match[0]} has no list{hint}")
    if re.search(r"[{}]", _SLOT.sub("", template)):
        raise UserError(
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
        UserError: there are more combinations than a sequence can have.
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
            raise UserError(f"{templates[0]!r} has too many combinations: use fewer slots")

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


# What a file may write as `change: {NAME: ARGUMENT}`, and what the argument is.
CHANGES = {
    "swap": "a list, whose words in the text are replaced by others of it",
    "typos": "how many words get two neighbouring letters swapped",
    "case": "upper or lower",
    "remove": "punctuation",
    "append": "a list of sentences, of which one is added at the end",
}

_LONG_WORD = re.compile(r"[^\W\d_]{4,}")  # with two letters between its first and its last
# Marks that are part of a word or a number (isn't, well-made, 9.5, 7/10), or any other sign.
_SIGN = re.compile(r"(?<=\w)['’-](?=\w)|(?<=\d)[.,:/](?=\d)|([^\w\s])")


@dataclass(frozen=True)
class Change:
    """A change as a file asks for it.

    Attributes:
        name: one of ``CHANGES``.
        argument: what the file gives for it.
        words: those of the list that the argument names, if it names one.
    """

    name: str
    argument: str | int
    words: tuple[str, ...] = ()

    def apply(self, text: str, generator: random.Random) -> str:
        """The changed text, which is the text itself where there is nothing to change."""
        if self.name == "swap":
            return swap_words(text, self.words, generator)
        if self.name == "typos":
            return make_typos(text, int(self.argument), generator)
        if self.name == "case":
            return text.upper() if self.argument == "upper" else text.lower()
        if self.name == "remove":
            return remove_punctuation(text)
        return f"{text} {generator.choice(self.words)}"


def swap_words(text: str, words: Sequence[str], generator: random.Random) -> str:
    """Replace every word of a list by another of it: one word always by the same one, two words by
    two, and none by one that the text already has, as far as the list reaches."""
    longest_first = sorted(words, key=len, reverse=True)  # New York before York
    pattern = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\w)")
    found = list(dict.fromkeys(pattern.findall(text)))
    fresh = [word for word in words if word not in found]
    generator.shuffle(fresh)
    if len(fresh) >= len(found):
        replacement = dict(zip(found, fresh, strict=False))
    else:  # a full turn of the list leaves no word in its place
        replacement = {word: words[(words.index(word) + 1) % len(words)] for word in found}
    return pattern.sub(lambda match: replacement[match[0]], text)


def make_typos(text: str, number: int, generator: random.Random) -> str:
    """Swap two neighbouring letters in so many words, or in as many as can take it.

    First and last letters of words stay, as do equal neighbours.
    """
    places = []  # per word, where its second letter or a later one differs from the next
    for match in _LONG_WORD.finditer(text):
        inner = range(match.start() + 1, match.end() - 2)
        if possible := [place for place in inner if text[place] != text[place + 1]]:
            places.append(possible)
    letters = list(text)
    for possible in generator.sample(places, min(number, len(places))):
        place = generator.choice(possible)
        letters[place], letters[place + 1] = letters[place + 1], letters[place]
    return "".join(letters)


def remove_punctuation(text: str) -> str:
    """Leave out punctuation but inside words and numbers; white space becomes single spaces."""
    without = _SIGN.sub(lambda match: " " if _is_punctuation(match[1]) else match[0], text)
    return " ".join(without.split())


def _is_punctuation(sign: str | None) -> bool:
    return sign is not None and unicodedata.category(sign).startswith("P")
