"""The vocabulary, a torchtext ``Vocab``: ids of tokens by decreasing frequency in training."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy import sparse
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
        groups = np.arange(len(tokenized))
    names, numbers = np.unique(groups, return_inverse=True)
    counts = np.bincount(_sum_texts(tokenized, numbers, len(names)).indices)
    counts = np.pad(counts, (0, len(tokenized.lexicon) - len(counts)))
    return Counter(dict(zip(tokenized.lexicon, counts.tolist(), strict=True)))


def count_texts(tokenized: TokenizedTexts, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """(num_classes, len(lexicon)) int32: in how many texts of each class each token occurs."""
    return _sum_texts(tokenized, labels, num_classes).toarray()


def _sum_texts(tokenized: TokenizedTexts, numbers: np.ndarray, num_groups: int) -> sparse.csr_array:
    """(num_groups, len(lexicon)) int32: in how many texts of each group each token occurs.

    ``numbers`` (num_texts,) int64 are those of the texts' groups, below ``num_groups``.
    """
    offsets = np.asarray(tokenized.offsets)
    found = sparse.csr_array((num_groups, len(tokenized.lexicon)), dtype=np.int32)
    first = 0
    while first < len(tokenized):  # at least one text, and no more tokens than fit in memory
        last = int(np.searchsorted(offsets, offsets[first] + TOKENS_AT_ONCE, side="right")) - 1
        last = max(last, first + 1)
        tokens = np.array(tokenized.tokens[offsets[first] : offsets[last]])
        shape = (last - first, len(tokenized.lexicon))
        starts = offsets[first : last + 1] - offsets[first]
        texts = sparse.csr_array((np.ones(len(tokens), np.int32), tokens, starts), shape)
        texts.sum_duplicates()
        texts.data[:] = 1  # however often a text has it
        ones, columns = np.ones(last - first, np.int32), np.arange(last - first)
        members = sparse.csr_array((ones, (numbers[first:last], columns)), (num_groups, shape[0]))
        found = found + members @ texts
        first = last
    return found


def expect_groups(tokenized: TokenizedTexts, groups: np.ndarray | None) -> dict[str, float]:
    """In how many groups each token would occur if the texts that hold it were random ones.

    The mean over draws with replacement; a group's share of the texts is its probability.
    """
    num_texts = count_groups(tokenized, None)
    if groups is None:
        groups = np.arange(len(tokenized))
    _, sizes_of_groups = np.unique(groups, return_counts=True)
    sizes, multiplicities = np.unique(sizes_of_groups, return_counts=True)
    missed = 1 - sizes / len(tokenized)  # the chance that a text is of another group
    expected = {
        number: float((multiplicities * (1 - missed**number)).sum())
        for number in set(num_texts.values())
    }
    return {word: expected[number] for word, number in num_texts.items()}


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
