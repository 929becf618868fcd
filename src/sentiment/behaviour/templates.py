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

import numpy as np

from sentiment.display.console import did_you_mean
from sentiment.runtime.errors import UserError

Lists = Mapping[str, tuple[str, ...]]

_SLOT = re.compile(r"\{(\w+)(?::\w+)?\}")


def check_template(template: str, lists: Lists) -> None:
    """Refuse a slot that names no list and a brace that belongs to no slot."""
    for match in _SLOT.finditer(template):
        if match[1] not in lists:
            hint = did_you_mean(match[1], lists, list_all=True)
            raise UserError(f"{template!r}: slot {match[0]} has no list{hint}")
    if re.search(r"[{}]", _SLOT.sub("", template)):
        raise UserError(
            f"{template!r}: a brace that belongs to no slot: slots are {{LIST}} or {{LIST:NAME}}, "
            "in letters, digits and _"
        )


class Fillings:
    """All combinations of words in one or two templates, made on demand, the last slot fastest.

    A slot holds the same word in both templates.
    """

    def __init__(self, templates: Sequence[str], lists: Lists) -> None:
        self.templates = tuple(templates)
        self._lists = lists
        self._slots: dict[str, str] = {}  # slot as written, and its list
        for template in templates:
            self._slots.update({match[0]: match[1] for match in _SLOT.finditer(template)})
        # A second slot of a list takes one of the remaining words.
        earlier: Counter[str] = Counter()
        self._num_choices = []
        for name in self._slots.values():
            self._num_choices.append(max(len(lists[name]) - earlier[name], 0))
            earlier[name] += 1
        if math.prod(self._num_choices) > sys.maxsize:
            raise UserError(f"{templates[0]!r} has too many combinations: use fewer slots")

    def __len__(self) -> int:
        return math.prod(self._num_choices)

    def __getitem__(self, index: int) -> tuple[str, ...]:
        choices = np.unravel_index(index, self._num_choices)
        unused = {name: list(self._lists[name]) for name in self._slots.values()}
        words = {
            slot: unused[name].pop(choice)
            for (slot, name), choice in zip(self._slots.items(), choices, strict=True)
        }
        return tuple(_SLOT.sub(lambda match: words[match[0]], text) for text in self.templates)


# What a file may write as `change: {NAME: ARGUMENT}`, with ARGUMENT:
CHANGES = (
    "swap",  # a list, whose words in the text are replaced by others of the list
    "typos",  # in how many words two neighbouring letters are swapped
    "case",  # upper or lower
    "remove",  # punctuation
    "append",  # a list of sentences, one of which is added at the end
)

_LONG_WORD = re.compile(r"[^\W\d_]{4,}")  # with two letters between its first and its last
# Marks that are part of a word or a number (isn't, well-made, 9.5, 7/10), or any other sign.
_SIGN = re.compile(r"(?<=\w)['’-](?=\w)|(?<=\d)[.,:/](?=\d)|([^\w\s])")


@dataclass(frozen=True)
class Change:
    """A change of a text: one of ``CHANGES``, its argument, and the list that it names."""

    name: str
    argument: str | int
    words: tuple[str, ...] = ()

    def apply(self, text: str, generator: random.Random) -> str:
        """The changed text; equal to the text if there is nothing to change."""
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
    """Replace every word of a list by another one of the list.

    Equal words get equal replacements, different words different ones; words that the text already
    has are not used, as long as the list has others.
    """
    longest_first = sorted(words, key=len, reverse=True)  # New York before York
    pattern = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\w)")
    found = list(dict.fromkeys(pattern.findall(text)))
    fresh = [word for word in words if word not in found]
    generator.shuffle(fresh)
    if len(fresh) >= len(found):
        replacement = dict(zip(found, fresh, strict=False))
    else:  # rotating the list replaces every word
        replacement = {word: words[(words.index(word) + 1) % len(words)] for word in found}
    return pattern.sub(lambda match: replacement[match[0]], text)


def make_typos(text: str, number: int, generator: random.Random) -> str:
    """Swap two different neighbouring inner letters in this many words, or in all possible ones."""
    candidates = []  # per word, the indices of inner letters that differ from the next
    for match in _LONG_WORD.finditer(text):
        inner = range(match.start() + 1, match.end() - 2)
        if indices := [index for index in inner if text[index] != text[index + 1]]:
            candidates.append(indices)
    letters = list(text)
    for indices in generator.sample(candidates, min(number, len(candidates))):
        index = generator.choice(indices)
        letters[index], letters[index + 1] = letters[index + 1], letters[index]
    return "".join(letters)


def remove_punctuation(text: str) -> str:
    """Remove punctuation except inside words and numbers, and collapse white space."""

    def replace(match: re.Match[str]) -> str:
        is_punctuation = match[1] and unicodedata.category(match[1]).startswith("P")
        return " " if is_punctuation else match[0]

    return " ".join(_SIGN.sub(replace, text).split())
