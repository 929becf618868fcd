"""The vocabulary, a torchtext ``Vocab``: ids of tokens by decreasing frequency in training."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torchtext.vocab import Vocab

from sentiment.data.tokenizer import TOKENS_AT_ONCE, TokenizedTexts
from sentiment.runtime.errors import UserError
from sentiment.runtime.files import atomic_write, text_lines

PAD, UNK = "<pad>", "<unk>"
PAD_ID, UNK_ID = 0, 1
SPECIALS = [PAD, UNK]

_LINE = re.compile(r"([^\n]+)\t(0|[1-9][0-9]{,17})\n")


def count_tokens(tokenized: TokenizedTexts) -> Counter[str]:
    counts = np.zeros(len(tokenized.lexicon), dtype=np.int64)
    for start in range(0, len(tokenized.tokens), TOKENS_AT_ONCE):  # may be mapped from a file
        part = tokenized.tokens[start : start + TOKENS_AT_ONCE]
        counts += np.bincount(part, minlength=len(counts))
    return Counter(dict(zip(tokenized.lexicon, counts.tolist(), strict=True)))


def count_groups(tokenized: TokenizedTexts, groups: np.ndarray | None) -> Counter[str]:
    """In how many groups of texts each token occurs; without groups (num_texts,) int64, each text
    is a group.
    """
    if groups is None:
        groups = np.arange(len(tokenized), dtype=np.int64)
    size = len(tokenized.lexicon)
    pairs = np.empty(0, dtype=np.int64)  # distinct values of group * size + token
    for start in range(0, len(tokenized.tokens), TOKENS_AT_ONCE):
        part = tokenized.tokens[start : start + TOKENS_AT_ONCE]
        positions = np.arange(start, start + len(part))
        texts = np.searchsorted(tokenized.offsets, positions, side="right") - 1
        pairs = np.union1d(pairs, groups[texts] * size + part)
    counts = np.bincount(pairs % max(1, size), minlength=size)
    return Counter(dict(zip(tokenized.lexicon, counts.tolist(), strict=True)))


def build_vocabulary(
    counts: Counter[str], *, max_size: int | None = None, min_frequency: int = 1
) -> Vocab:
    """The ``max_size`` most frequent tokens besides ``<pad>`` and ``<unk>``, None for all; ties in
    alphabetical order.
    """
    return Vocab(counts, max_size=max_size, min_freq=min_frequency, specials=SPECIALS)


def extend_vocabulary(vocabulary: Vocab, more: Vocab) -> Vocab:
    """The words of both, by the sums of their counts."""
    words = {*vocabulary.itos, *more.itos} - set(SPECIALS)
    return build_vocabulary(
        Counter({word: vocabulary.freqs[word] + more.freqs[word] for word in words})
    )


def number_lexicon(vocabulary: Vocab, lexicon: Sequence[str]) -> np.ndarray:
    """(len(lexicon),) int32 ids of the tokens of a lexicon, ``<unk>`` for unknown ones."""
    # stoi.get, not stoi[...]: torchtext's defaultdict would grow with each unknown token.
    ids = (vocabulary.stoi.get(word, UNK_ID) for word in lexicon)
    return np.fromiter(ids, np.int32, len(lexicon))


def token_counts(vocabulary: Vocab) -> list[int]:
    """Occurrences of each word in the training split, in the order of ids."""
    return [0 if word in SPECIALS else vocabulary.freqs[word] for word in vocabulary.itos]


def save_vocabulary(vocabulary: Vocab, path: Path) -> None:
    """Write a line for each word in the order of ids: the word, a tab, its count in training."""
    lines = zip(vocabulary.itos, token_counts(vocabulary), strict=True)
    text = "".join(f"{word}\t{count}\n" for word, count in lines)
    atomic_write(path, text.encode("utf-8"))


def load_vocabulary(path: Path) -> Vocab:
    """Read what :func:`save_vocabulary` wrote; damaged files raise ``UserError``."""
    if not path.exists():
        raise FileNotFoundError(f"no vocabulary file {path}")
    words = []
    counts: Counter[str] = Counter()
    for number, line in enumerate(text_lines(path), start=1):
        match = _LINE.fullmatch(line)
        if match is None:
            raise UserError(f"{path}, line {number}: expected a word, a tab and a count")
        words.append(match[1])
        counts[match[1]] = int(match[2])
    vocabulary = build_vocabulary(counts)
    if vocabulary.itos != words:
        raise UserError(
            f"{path} is not a vocabulary of this program: it must hold {PAD}, {UNK}, then each "
            "word once by decreasing count"
        )
    return vocabulary
