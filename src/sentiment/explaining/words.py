"""The words of one text that a model reads, and how they stand in the text."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

import numpy as np
import torch

from sentiment.shown import printable
from sentiment.text.batches import EncodedCorpus
from sentiment.text.tokenizer import clean, cut_pieces
from sentiment.text.vocabulary import UNK_ID

_JOINER = "\N{ZERO WIDTH JOINER}"
NO_WORDS = "∅"  # stands for the one unknown word that a text of no words counts as


@dataclass(frozen=True)
class Words:
    """What a model reads of a text.

    Attributes:
        written: (num_words,) as the text has them, before lower-casing.
        is_spaced: (num_words,) bool, whether white space stands before it in the text.
        positions: (num_words,) int64, its place among all words of the text, from 0.
        ids: (num_words,) int64, its id in the vocabulary.
        num_total: words of the text, before cutting; 0 where ``written`` is :data:`NO_WORDS`.
    """

    written: tuple[str, ...]
    is_spaced: np.ndarray
    positions: np.ndarray
    ids: np.ndarray
    num_total: int

    def __len__(self) -> int:
        return len(self.written)

    @property
    def is_unknown(self) -> np.ndarray:
        """(num_words,) bool, whether the vocabulary lacks it."""
        return self.ids == UNK_ID

    @property
    def num_cut(self) -> int:
        """Words of the text that the model does not read."""
        return max(0, self.num_total - len(self))

    @property
    def num_skipped(self) -> np.ndarray:
        """(num_words,) int64, how many words were cut right before each."""
        return np.diff(self.positions, prepend=-1) - 1

    @property
    def num_cut_off(self) -> int:
        """How many words were cut after the last one."""
        return max(0, self.num_total - 1 - int(self.positions[-1]))


def read_words(corpus: EncodedCorpus, index: int, text: str) -> Words:
    """The words that a corpus keeps of a review.

    Args:
        corpus: the encoded reviews.
        index: the review's place in it.
        text: the review.
    """
    pieces = clean(text).split()
    # spaCy's tokens of a piece are the piece again when put together, so nothing is guessed here.
    written, lengths = cut_pieces(pieces, lower_case=False)
    is_spaced = np.zeros(len(written) + 1, dtype=bool)
    is_spaced[np.cumsum([0, *lengths])] = True
    ids = corpus.batch(torch.tensor([index])).tokens[0].cpu().numpy().astype(np.int64)
    if not written:
        return Words((NO_WORDS,), is_spaced[:1], np.zeros(1, dtype=np.int64), ids, 0)
    num_kept, num_total = int(corpus.lengths[index]), int(corpus.full_lengths[index])
    assert num_total == len(written), "the text is not the corpus's"
    num_first = num_kept if corpus.heads is None else int(corpus.heads[index])
    num_first = min(num_first, num_kept)
    positions = np.arange(num_kept)
    positions[num_first:] += num_total - num_kept
    return Words(
        written=tuple(written[place] for place in positions.tolist()),
        is_spaced=is_spaced[positions],
        positions=positions,
        ids=ids,
        num_total=num_total,
    )


def shown(word: str) -> str:
    """The word, printable, without the invisible characters that parts of words often hold.

    Soft hyphens, marks of direction and other format characters go, but for the joiner inside
    emoji; a word of nothing else is still seen.
    """
    if word.isprintable():
        return word
    kept = (each for each in word if each == _JOINER or unicodedata.category(each) != "Cf")
    text = printable("".join(kept))
    return text if text.strip(_JOINER) else "\N{REPLACEMENT CHARACTER}"
