"""spaCy's English rules, but not in the square of the time for rows of marks."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spacy.tokenizer import Tokenizer as Rules

# Characters of a piece's end that hold its suffix, and those before it that decide on it.
_LONGEST_SUFFIX, _LONGEST_CONTEXT = 32, 8


@functools.cache
def load_rules() -> Rules:
    """spaCy's English tokenizer, cutting as it always does."""
    import spacy  # Takes two seconds: a start with cached tokens must not pay for it.

    rules = spacy.blank("en").tokenizer
    rules.prefix_search = re.compile(rules.prefix_search.__self__.pattern).match  # begins with ^
    rules.suffix_search = _SuffixSearch(rules.suffix_search)
    return rules


class _SuffixSearch:
    """spaCy's search for what comes off a piece's end, looking at its end alone.

    spaCy looks from the piece's beginning, again for each mark that came off: a second for a
    thousand marks. Only a row of full stops can be longer than what is looked at here, and it is
    seen by its beginning there.
    """

    def __init__(self, search: Callable[[str], re.Match[str] | None]) -> None:
        self._search = search

    def __call__(self, piece: str) -> re.Match[str] | None:
        if len(piece) <= _LONGEST_SUFFIX:
            return self._search(piece)
        found = self._search(piece[-_LONGEST_SUFFIX:])
        return self._search(piece) if found and found.start() < _LONGEST_CONTEXT else found
