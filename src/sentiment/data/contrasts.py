"""Contrast texts: clauses of the training reviews, denied and set against one another.

What "not" and "but" do to a verdict decides few whole reviews, so a model that learns from these
hardly learns it. Contrast texts differ in little else, which is counterfactual augmentation
(Kaushik et al. 2020; Wang & Culotta 2021), here by rules for English and two opposite classes.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from torchtext.vocab import Vocab

from sentiment.data.batches import EncodedCorpus
from sentiment.data.tokenizer import TokenizedTexts
from sentiment.data.vocabulary import count_texts, number_lexicon

_COPULAS = {"is", "was", "are", "were", "be", "been", "am", "seems", "seemed", "'s", "'re", "'m"}
_TAKE_NT = {"is", "was", "are", "were"}  # the copulas that "n't" can follow
_TAKE_S = {"it", "he", "she", "this", "that", "there", "here", "what", "everything"}  # "'s" is "is"
_DENIALS = {
    "not", "n't", "nt", "never", "no", "none", "nothing", "nobody", "neither", "nor", "hardly",
    "barely", "without",
}  # fmt: skip
_BOUNDS = {
    ".", "!", "?", "...", "…", ",", ";", ":", "(", ")", "--", '"', "and", "but", "or", "if", "than",
    "although", "though", "because", "while", "that", "which", "who", "when",
}  # fmt: skip
_REACH = 3  # words after a copula among which a verdict is looked for
_SHORTEST, _LONGEST = 3, 20  # words of a clause
_FEWEST_REVIEWS = 25  # with a word that is a verdict
_RATIO = 2.0  # of its frequencies in the reviews of the two classes

_TEXTS_OF_CLAUSE = (
    3  # the clause, its denial, and the clause after or before one of the other class
)
# How a clause "B" outweighs one of the other class, "A".
_JOINED = ("A , but B .", "A . but B .", "although A , B .", "B , although A .")
_ADDED = (".", ",", "but", "although", "not", "n't", "never")  # words that the texts add to clauses


@dataclass(frozen=True)
class _Clauses:
    """Clauses with a verdict; each array is (num_clauses,)."""

    begins: np.ndarray  # int64 positions of their first tokens
    copulas: np.ndarray  # int64 positions of their copulas
    ends: np.ndarray  # int64 positions after their last tokens
    labels: np.ndarray  # int64, of their reviews: 0 or 1
    take_nt: np.ndarray  # bool, whether "n't" can follow the copula

    def tokens(self, tokens: np.ndarray, index: int) -> np.ndarray:
        """The tokens of a clause, int32."""
        return tokens[self.begins[index] : self.ends[index]]


def add_contrasts(
    corpus: EncodedCorpus,
    tokenized: TokenizedTexts,
    vocabulary: Vocab,
    *,
    per_review: int,
    seed: int,
) -> EncodedCorpus:
    """A corpus with contrast texts as further rows, which are rows of no review (−1).

    They are made in threes:

    - a clause with a verdict of its review's class ("the plot is dull"), with that label;
    - its denial ("the plot is not dull"), with the other label;
    - the clause where it outweighs one of the other class ("although the acting is superb, the plot
      is dull"), with its own label.

    A verdict is a word of at least 25 reviews, twice as frequent in those of one class, among the
    three words after a form of "to be". The clause has no verdict of the other class and no denial.

    Args:
        corpus: on the CPU; its first rows are the reviews, in the order of ``tokenized``.
        tokenized: its reviews' tokens.
        vocabulary: of its ids.
        per_review: mean number of texts for each review, if there are enough clauses.
        seed: decides which clauses are used, and how.
    """
    generator = np.random.default_rng(seed)
    labels = corpus.labels[: len(tokenized)].numpy()
    clauses = _find_clauses(tokenized, labels)
    num_used = len(tokenized) * per_review // _TEXTS_OF_CLAUSE
    used = np.sort(generator.permutation(len(clauses.labels))[:num_used])
    if len(np.unique(clauses.labels[used])) < 2:
        return corpus  # no clause to set against one of the other class
    texts, text_labels = _write(clauses, used, tokenized.tokens, len(corpus.ids), generator)
    return corpus.append(texts, number_lexicon(vocabulary, _ADDED), text_labels)


def _find_clauses(tokenized: TokenizedTexts, labels: np.ndarray) -> _Clauses:
    """All clauses with verdicts of the class of their review alone."""
    tokens, offsets = tokenized.tokens, tokenized.offsets.astype(np.int64)
    lexicon = [word.lower() for word in tokenized.lexicon]

    def is_any(words: Collection[str]) -> np.ndarray:
        return np.fromiter((word in words for word in lexicon), bool, len(lexicon))

    is_bound = is_any(_BOUNDS)[tokens]
    starts = np.union1d(np.flatnonzero(is_bound) + 1, offsets)
    stops = np.union1d(np.flatnonzero(is_bound), offsets)
    is_copula = is_any(_COPULAS)[tokens]
    is_copula[1:] &= ~is_any({"'s"})[tokens[1:]] | is_any(_TAKE_S)[tokens[:-1]]
    copulas = np.flatnonzero(is_copula)
    begins = starts[np.searchsorted(starts, copulas, side="right") - 1]
    ends = stops[np.searchsorted(stops, copulas, side="right")]
    of_class = labels[np.searchsorted(offsets, copulas, side="right") - 1]

    is_plain = ~is_any(_COPULAS | _DENIALS | _BOUNDS)
    is_verdict = [is_plain & side for side in _find_verdicts(tokenized, labels)]
    counts = [_cumulated(is_verdict[number][tokens]) for number in (0, 1)]
    within = np.minimum(copulas + 1 + _REACH, ends)
    has_verdict, is_clear = np.zeros(len(copulas), bool), np.zeros(len(copulas), bool)
    for number in (0, 1):
        own, other = counts[number], counts[1 - number]
        is_own = of_class == number
        has_verdict |= is_own & (own[within] > own[copulas + 1])
        is_clear |= is_own & (other[ends] == other[begins])
    denials = _cumulated(is_any(_DENIALS)[tokens])
    sizes = ends - begins
    is_good = has_verdict & is_clear & (denials[ends] == denials[begins])
    is_good &= (sizes >= _SHORTEST) & (sizes <= _LONGEST)
    is_good[1:] &= begins[1:] != begins[:-1]  # of several copulas in a clause, the first
    return _Clauses(
        begins[is_good], copulas[is_good], ends[is_good], of_class[is_good],
        is_any(_TAKE_NT)[tokens[copulas[is_good]]],
    )  # fmt: skip


def _find_verdicts(tokenized: TokenizedTexts, labels: np.ndarray) -> np.ndarray:
    """(2, len(lexicon)) bool: whether each token is a verdict of each class."""
    counts = count_texts(tokenized, labels, num_classes=2)
    shares = counts / np.maximum(np.bincount(labels, minlength=2), 1)[:, None]
    return (counts.sum(axis=0) >= _FEWEST_REVIEWS) & (shares >= _RATIO * shares[::-1])


def _cumulated(flags: np.ndarray) -> np.ndarray:
    """(num + 1,) int64: how many of the flags (num,) before each position are set."""
    return np.concatenate(([0], np.cumsum(flags)))


def _write(
    clauses: _Clauses,
    used: np.ndarray,
    tokens: np.ndarray,
    num_ids: int,
    generator: np.random.Generator,
) -> tuple[list[np.ndarray], list[int]]:
    """The contrast texts of the ``used`` clauses, as int32 tokens, and their labels.

    The words of ``_ADDED`` are numbered from ``num_ids`` on.
    """
    added = {word: np.array([num_ids + n], np.int32) for n, word in enumerate(_ADDED)}
    of_class = [used[clauses.labels[used] == label] for label in (0, 1)]
    texts, labels = [], []
    for clause in used.tolist():
        label = int(clauses.labels[clause])
        other = generator.choice(of_class[1 - label])
        parts = {**added, "A": clauses.tokens(tokens, other), "B": clauses.tokens(tokens, clause)}
        end = int(clauses.copulas[clause] + 1 - clauses.begins[clause])
        parts |= {"is": parts["B"][:end], "dull": parts["B"][end:]}
        denial = generator.choice(["not", "n't", "never"], p=[0.5, 0.3, 0.2])
        if denial == "n't" and not clauses.take_nt[clause]:
            denial = "not"
        forms = ["B .", f"is {denial} dull .", generator.choice(_JOINED)]
        texts += [np.concatenate([parts[part] for part in form.split()]) for form in forms]
        labels += [label, 1 - label, label]
    return texts, labels
