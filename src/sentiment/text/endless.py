"""Texts without end to encoded corpora, one after another, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from torchtext.vocab import Vocab

from sentiment.text.batches import EncodedCorpus, Keep, encode
from sentiment.text.tokenizer import Tokenizer
from sentiment.text.vocabulary import number_lexicon

# What the tokenizer may remember: as many different pieces as 25,000 reviews of IMDB have. Cutting
# them anew takes a sixth of the time that the model takes for so many reviews.
_MOST_PIECES = 250_000
_MOST_CHARACTERS = 20_000_000

# Where a window ends before it has its number of texts: these may be books.
MOST_CHARACTERS_OF_A_WINDOW = 50_000_000


class TextEncoder:
    """Encodes texts as a run reads them, and forgets pieces of text when there are too many.

    Tokens get their ids once: a few texts cost little however many came before them.

    Args:
        vocabulary: the run's.
        max_length: tokens kept of a text.
        keep: which they are of a longer one.
        lower_case: whether tokens are lower-cased.
        max_pieces, max_characters: of text between white space, remembered at most between two
            calls.
    """

    def __init__(
        self,
        vocabulary: Vocab,
        *,
        max_length: int,
        keep: Keep,
        lower_case: bool,
        max_pieces: int = _MOST_PIECES,
        max_characters: int = _MOST_CHARACTERS,
    ) -> None:
        self._vocabulary = vocabulary
        self._max_length = max_length
        self._keep: Keep = keep
        self._max_pieces = max_pieces
        self._max_characters = max_characters
        self._tokenizer = Tokenizer(lower_case=lower_case)
        self._ids = np.empty(0, dtype=np.int32)  # of the tokenizer's lexicon

    def __call__(self, texts: Sequence[str]) -> EncodedCorpus:
        """Encode texts, all with label 0."""
        tokenizer = self._tokenizer
        if (
            tokenizer.num_pieces > self._max_pieces
            or tokenizer.num_characters > self._max_characters
        ):
            tokenizer.forget()
            self._ids = self._ids[:0]
        tokenized = tokenizer(texts)
        new = number_lexicon(self._vocabulary, tokenized.lexicon[len(self._ids) :])
        self._ids = np.concatenate((self._ids, new))
        return encode(
            tokenized,
            self._ids,
            np.zeros(len(texts), dtype=np.int64),
            max_length=self._max_length,
            keep=self._keep,
        )


def windows(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    """Cut texts without end into lists of ``size``, of fewer where texts are very long."""
    window: list[str] = []
    num_characters = 0
    for text in texts:
        window.append(text)
        num_characters += len(text)
        if len(window) == size or num_characters >= MOST_CHARACTERS_OF_A_WINDOW:
            yield window
            window, num_characters = [], 0
    if window:
        yield window
