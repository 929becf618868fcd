"""Stands in for spaCy on a machine that lacks it: what is between white space is one token.

The kit's reviews are tokens with spaces between them, so that nothing is left to split.
"""

from __future__ import annotations

import re
from types import SimpleNamespace


class Token(str):
    """One token, with the attribute that spaCy's tokens have."""

    @property
    def text(self) -> str:
        return str(self)


class Tokenizer:
    """Returns each piece of text as it is; has no rules, prefixes or suffixes."""

    rules: dict[str, object] = {}  # noqa: RUF012  # never changed

    def __init__(self) -> None:
        self.prefix_search = self.suffix_search = re.compile("(?!)").search  # matches nothing

    def __call__(self, piece: str) -> list[Token]:
        return [Token(piece)]


def blank(language: str) -> SimpleNamespace:
    """Any language, all of which are split alike."""
    return SimpleNamespace(tokenizer=Tokenizer())
