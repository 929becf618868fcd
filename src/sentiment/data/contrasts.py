"""Contrast texts: clauses of the training reviews, negated and set against one another.

In few reviews does a "not" or a "but" decide the label, so a model trained on reviews hardly learns
them. Contrast texts differ in such words alone (counterfactual augmentation, as in Kaushik et al.
2020 and Wang & Culotta 2021), here by rules for English and two opposite classes.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from itertools import chain

import numpy as np
from torchtext.vocab import Vocab

from sentiment.data.batches import EncodedCorpus
from sentiment.data.tokenizer import TokenizedTexts
from sentiment.data.vocabulary import UNK_ID, count_texts, number_lexicon

_COPULAS = {
    "is", "was", "are", "were", "am", "seems", "seemed", "'s", "'re", "'m", "’s", "’re", "’m",
}  # fmt: skip
_CONTRACTIBLE = {"is", "was", "are", "were"}  # with "n't"
_SHORT_IS = {"'s", "’s"}  # after these words; after others it is a genitive
_BEFORE_SHORT_IS = {"it", "he", "she", "this", "there", "here", "what", "everything"}
_NEGATIONS = {
    "not", "n't", "n’t", "nt", "never", "no", "none", "nothing", "nobody", "neither", "nor",
    "hardly", "barely", "without",
}  # fmt: skip
_CLAUSE_BOUNDARIES = {
    ".", "!", "?", "...", "…", ",", ";", ":", "(", ")", "--", '"', "and", "but", "or", "if", "than",
    "although", "though", "because", "while", "that", "which", "who", "when",
}  # fmt: skip
_UNFINISHED = {  # clauses that end in one of these were cut in two
    "a", "an", "the", "of", "in", "to", "for", "with", "at", "by", "as", "from", "on",
} | _COPULAS  # fmt: skip
# Their frequencies mislead: faint praise is frequent in blame, and "is not supposed to" is no
# opposite.
_MISLEADING = {"decent", "ok", "okay", "alright", "mildly", "supposed", "gon"}
_REACH = 3  # words after a copula among which an opinion word is looked for
_SHORTEST, _LONGEST = 3, 20  # words of a clause
_RATIO = 1.9  # of an opinion word's frequencies in the reviews of the two classes, at least
_STANDARD_ERRORS = 4  # by which these frequencies differ, at least

_TEXTS_PER_CLAUSE = 3
# How a clause "B" is set against one of the other class, "A".
_CONTRASTS = ("A , but B .", "A . but B .", "although A , B .", "B , although A .")
_ADDED = (".", ",", "but", "although", "not", "n't", "never")  # words that the texts add to clauses


@dataclass(frozen=True)
class _Clauses:
    """Clauses with an opinion; each array is (num_clauses,)."""

    begins: np.ndarray  # int64 positions of their first tokens
    copulas: np.ndarray  # int64 positions of their copulas
    ends: np.ndarray  # int64 positions after their last tokens
    labels: np.ndarray  # int64, of their reviews: 0 or 1
    are_contractible: np.ndarray  # bool: "n't" can follow the copula

    def tokens(self, tokens: np.ndarray, index: int) -> np.ndarray:
        """The tokens of a clause, int32."""
        return tokens[self.begins[index] : self.ends[index]]


def add_contrasts(
    corpus: EncodedCorpus,
    tokenized: TokenizedTexts,
    vocabulary: Vocab,
    *,
    per_review: int,
    max_length: int,
    seed: int,
) -> EncodedCorpus:
    """A corpus with contrast texts as further rows, which belong to no review (−1).

    A clause of a review ("the plot is dull") gives three texts:

    - the clause, with the label of its review;
    - the clause negated ("the plot is not dull"), with the other label;
    - the clause set against one of the other class ("although the acting is superb, the plot is
      dull"), with the label of its review.

    The clause has a form of "to be", and an opinion word of its review's class among the three
    words after it, but no opinion word of the other class and no negation. Opinion words of a class
    are words of the vocabulary that are 1.9 times as frequent in its reviews as in the others, and
    not by chance. Both classes have equally many clauses.

    Args:
        corpus: on the CPU; its first rows are the reviews, in the order of ``tokenized``.
        tokenized: its reviews' tokens.
        vocabulary: of its ids.
        per_review: mean number of texts for each review, if there are enough clauses.
        max_length: of a text in tokens; longer ones are left out.
        seed: decides which clauses are used, and how.
    """
    generator = np.random.default_rng(seed)
    labels = corpus.labels[: len(tokenized)].numpy()
    clauses = _find_clauses(tokenized, labels, number_lexicon(vocabulary, tokenized.lexicon))
    of_class = [np.flatnonzero(clauses.labels == label) for label in (0, 1)]
    num_used = len(tokenized) * per_review // (2 * _TEXTS_PER_CLAUSE)  # of each class
    num_used = min(num_used, *map(len, of_class))
    used = [generator.permutation(each)[:num_used] for each in of_class]
    texts, text_labels = _write(clauses, used, tokenized.tokens, len(corpus.ids), generator)
    is_short = [len(text) <= max_length for text in texts]
    if not any(is_short):
        return corpus
    return corpus.append(
        [text for text, fits in zip(texts, is_short, strict=True) if fits],
        number_lexicon(vocabulary, _ADDED),
        [label for label, fits in zip(text_labels, is_short, strict=True) if fits],
    )


def _find_clauses(tokenized: TokenizedTexts, labels: np.ndarray, ids: np.ndarray) -> _Clauses:
    """All clauses whose opinion words are of the class of their review.

    ``ids`` (len(lexicon),) are those of the lexicon in the vocabulary.
    """
    tokens, offsets = tokenized.tokens, tokenized.offsets.astype(np.int64)
    lexicon = [word.lower() for word in tokenized.lexicon]

    def is_any(words: Collection[str]) -> np.ndarray:
        return np.fromiter((word in words for word in lexicon), bool, len(lexicon))

    is_boundary = is_any(_CLAUSE_BOUNDARIES)[tokens]
    starts = np.union1d(np.flatnonzero(is_boundary) + 1, offsets)
    stops = np.union1d(np.flatnonzero(is_boundary), offsets)
    is_copula = is_any(_COPULAS)[tokens]
    is_copula[1:] &= ~is_any(_SHORT_IS)[tokens[1:]] | is_any(_BEFORE_SHORT_IS)[tokens[:-1]]
    copulas = np.flatnonzero(is_copula)
    begins = starts[np.searchsorted(starts, copulas, side="right") - 1]
    ends = stops[np.searchsorted(stops, copulas, side="right")]
    of_class = labels[np.searchsorted(offsets, copulas, side="right") - 1]

    # Before a question's subject, the copula comes first; "if" says that something is not so.
    is_good = (begins < copulas) & ~is_any({"if"})[tokens[begins - 1]]
    is_good &= ~is_any({"?"})[tokens[np.minimum(ends, len(tokens) - 1)]]
    is_good &= ~is_any(_UNFINISHED)[tokens[ends - 1]]
    is_good &= (ends - begins >= _SHORTEST) & (ends - begins <= _LONGEST)
    negations = _cumulated(is_any(_NEGATIONS)[tokens])
    is_good &= negations[ends] == negations[begins]
    within = np.minimum(copulas + 1 + _REACH, ends)
    is_plain = (ids != UNK_ID) & ~is_any(_MISLEADING | _COPULAS | _NEGATIONS | _CLAUSE_BOUNDARIES)
    for label, is_opinion in enumerate(_find_opinion_words(tokenized, labels)):
        opinions = _cumulated((is_plain & is_opinion)[tokens])
        has_any = opinions[ends] > opinions[begins]
        is_near = opinions[within] > opinions[copulas + 1]
        is_good &= np.where(of_class == label, is_near, ~has_any)
    is_good[1:] &= begins[1:] != begins[:-1]  # of several copulas in a clause, the first
    return _Clauses(
        begins[is_good], copulas[is_good], ends[is_good], of_class[is_good],
        is_any(_CONTRACTIBLE)[tokens[copulas[is_good]]],
    )  # fmt: skip


def _find_opinion_words(tokenized: TokenizedTexts, labels: np.ndarray) -> np.ndarray:
    """(2, len(lexicon)) bool: whether each token is an opinion word of each class.

    That is, by the ratio of its shares of both classes' reviews, and their difference in standard
    errors (the test of two proportions).
    """
    sizes = np.maximum(np.bincount(labels, minlength=2), 1)
    counts = count_texts(tokenized, labels, num_classes=2)
    shares = counts / sizes[:, None]
    pooled = counts.sum(axis=0) / sizes.sum()
    errors = np.sqrt(pooled * (1 - pooled) * (1 / sizes).sum())
    others = shares[::-1]
    return (shares >= _RATIO * others) & (shares - others >= _STANDARD_ERRORS * errors)


def _cumulated(flags: np.ndarray) -> np.ndarray:
    """(num + 1,) int64: how many of the flags (num,) before each position are set."""
    return np.concatenate(([0], np.cumsum(flags)))


def _write(
    clauses: _Clauses,
    used: list[np.ndarray],
    tokens: np.ndarray,
    num_ids: int,
    generator: np.random.Generator,
) -> tuple[list[np.ndarray], list[int]]:
    """The contrast texts of the ``used`` clauses of both classes, as int32 tokens, and labels.

    The words of ``_ADDED`` are numbered from ``num_ids`` on.
    """
    added = {word: np.array([num_ids + n], np.int32) for n, word in enumerate(_ADDED)}
    texts, labels = [], []
    for clause in chain.from_iterable(used):
        label = int(clauses.labels[clause])
        other = generator.choice(used[1 - label])
        parts = {**added, "A": clauses.tokens(tokens, other), "B": clauses.tokens(tokens, clause)}
        end = int(clauses.copulas[clause] + 1 - clauses.begins[clause])
        parts |= {"is": parts["B"][:end], "dull": parts["B"][end:]}
        negation = generator.choice(["not", "n't", "never"], p=[0.5, 0.3, 0.2])
        if negation == "n't" and not clauses.are_contractible[clause]:
            negation = "not"
        forms = ["B .", f"is {negation} dull .", generator.choice(_CONTRASTS)]
        texts += [np.concatenate([parts[part] for part in form.split()]) for form in forms]
        labels += [label, 1 - label, label]
    return texts, labels
