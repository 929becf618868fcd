"""Logistic regression on n-grams weighted by naive Bayes.

Wang & Manning, *Baselines and Bigrams: Simple, Good Sentiment and Topic Classification*, ACL 2012.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from scipy.sparse import csr_array
from scipy.special import log_expit, logsumexp

from sentiment.data.tokenizer import TokenizedTexts
from sentiment.runtime.errors import UserError

LONGEST = 3  # words of an n-gram


@dataclass(frozen=True)
class Ngrams:
    """N-grams of one word, of two, and so on, numbered in this order."""

    words: list[str]  # the unigrams
    # For each further length, (num_ngrams,) int64 ascending: prefix * len(words) + last, where
    # prefix is the number of the n-gram without its last word among those of its length, and last
    # the number of the last word.
    keys: tuple[np.ndarray, ...]

    def __len__(self) -> int:
        return len(self.words) + sum(map(len, self.keys))

    def texts(self) -> list[str]:
        """All n-grams, with spaces between their words; no token contains one."""
        levels = [self.words]
        for keys in self.keys:
            prefixes, lasts = np.divmod(keys, len(self.words))
            pairs = zip(prefixes.tolist(), lasts.tolist(), strict=True)
            levels.append([f"{levels[-1][prefix]} {self.words[last]}" for prefix, last in pairs])
        return list(chain.from_iterable(levels))

    def matrix(self, tokenized: TokenizedTexts) -> csr_array:
        """(num_texts, num_ngrams) float32: 1 if a text contains an n-gram, however often."""
        number_by_word = {word: number for number, word in enumerate(self.words)}
        numbers = (number_by_word.get(word, -1) for word in tokenized.lexicon)
        lexicon = np.fromiter(numbers, np.int64, len(tokenized.lexicon))
        words, texts = lexicon[tokenized.tokens], _text_of_token(tokenized)
        rows, columns = [texts[words >= 0]], [words[words >= 0]]
        ngrams, offset = words, len(self.words)
        for length, known in enumerate(self.keys, start=2):
            starts, keys = _extend(ngrams, words, texts, length, len(self.words))
            ngrams = np.full(len(words), -1)
            ngrams[starts] = _lookup(keys, known)
            rows.append(texts[ngrams >= 0])
            columns.append(ngrams[ngrams >= 0] + offset)
            offset += len(known)
        indices = np.concatenate(rows), np.concatenate(columns)
        counts = np.ones(len(indices[0]), dtype=np.float32)
        matrix = csr_array((counts, indices), shape=(len(tokenized), len(self)))
        matrix.sum_duplicates()
        matrix.data[:] = 1
        return matrix


def find_ngrams(tokenized: TokenizedTexts, *, min_texts: int) -> Ngrams:
    """The n-grams of up to three words that occur in at least ``min_texts`` texts."""
    texts = _text_of_token(tokenized)
    tokens = tokenized.tokens.astype(np.int64)
    frequent = _frequent_keys(tokens, texts, min_texts)
    words = _lookup(tokens, frequent)  # (num_tokens,), -1 for rare words
    unigrams = [tokenized.lexicon[token] for token in frequent.tolist()]
    ngrams, levels = words, []
    for length in range(2, LONGEST + 1):
        starts, keys = _extend(ngrams, words, texts, length, len(unigrams))
        frequent = _frequent_keys(keys, texts[starts], min_texts)
        ngrams = np.full(len(words), -1)
        ngrams[starts] = _lookup(keys, frequent)
        levels.append(frequent)
    return Ngrams(unigrams, tuple(levels))


def parse_ngrams(lines: Sequence[str]) -> Ngrams:
    """The inverse of :meth:`Ngrams.texts`.

    Raises:
        UserError: the lines are not in order, or the prefix or last word of an n-gram is missing.
    """
    by_length = [[line for line in lines if line.count(" ") == n] for n in range(LONGEST)]
    words = by_length[0]
    prefixes = number_by_word = {word: number for number, word in enumerate(words)}
    levels = []
    for level in by_length[1:]:
        parts = (line.rpartition(" ") for line in level)
        try:
            keys = [
                prefixes[prefix] * len(words) + number_by_word[last] for prefix, _, last in parts
            ]
        except KeyError as error:
            raise UserError(f"an n-gram contains {error}, which is missing") from error
        prefixes = {line: number for number, line in enumerate(level)}
        levels.append(np.array(keys, dtype=np.int64))
    ngrams = Ngrams(words, tuple(levels))
    is_sorted = all((np.diff(keys) > 0).all() for keys in levels)
    if not is_sorted or len(number_by_word) < len(words) or ngrams.texts() != list(lines):
        raise UserError("its n-grams are not those that it was made with, in their order")
    return ngrams


def _text_of_token(tokenized: TokenizedTexts) -> np.ndarray:
    """(num_tokens,) int32: the number of each token's text."""
    return np.repeat(np.arange(len(tokenized), dtype=np.int32), np.diff(tokenized.offsets))


def _extend(
    ngrams: np.ndarray, words: np.ndarray, texts: np.ndarray, length: int, num_words: int
) -> tuple[np.ndarray, np.ndarray]:
    """The positions at which n-grams of ``length`` words start, and their keys.

    ``ngrams`` holds the number of the n-gram, one word shorter, that starts at each token, or -1;
    ``words`` the number of each word, or -1; ``texts`` that of each token's text.
    """
    last = length - 1
    is_known = (ngrams[:-last] >= 0) & (words[last:] >= 0)
    starts = np.flatnonzero(is_known & (texts[:-last] == texts[last:]))
    return starts, ngrams[starts] * num_words + words[starts + last]


def _frequent_keys(keys: np.ndarray, texts: np.ndarray, min_texts: int) -> np.ndarray:
    """The distinct keys, ascending, that occur in enough texts; ``texts`` must ascend."""
    order = np.argsort(keys, kind="stable")
    keys, texts = keys[order], texts[order]
    is_new_key = np.append(True, keys[1:] != keys[:-1])[: len(keys)]
    is_new_text = np.append(True, texts[1:] != texts[:-1])[: len(keys)]
    starts = np.flatnonzero(is_new_key)
    counts = np.add.reduceat(is_new_key | is_new_text, starts, dtype=np.int64)
    return keys[starts][counts >= min_texts]


def _lookup(keys: np.ndarray, known: np.ndarray) -> np.ndarray:
    """(num_keys,) index of each key among the known ones, which ascend, or -1."""
    if not len(known):
        return np.full(len(keys), -1)
    indices = np.searchsorted(known, keys).clip(max=len(known) - 1)
    return np.where(known[indices] == keys, indices, -1)


# Chosen on IMDB's training reviews, by three hold-outs of 50 stretches of 50 neighbouring reviews:
# at 100, the mean accuracy of 91.1 % and the NLL of 0.228 are the best (90.8 % at 30, 91.0 % at
# 300). Without unit length, they are 90.9 % and 0.239 at best.
REGULARIZATION = 100.0
_LEAST_PART = 1e-4  # of a text whose label is uncertain; smaller ones are left out


@dataclass(frozen=True)
class LinearModel:
    """A linear classifier of texts by their n-grams.

    Two classes have one output, for the second; more have one for each against the others.
    """

    weights: np.ndarray  # (num_outputs, num_ngrams) float32, log-count ratios included
    biases: np.ndarray  # (num_outputs,) float32

    def log_probabilities(self, matrix: csr_array) -> np.ndarray:
        """(num_texts, num_classes) float64 from a (num_texts, num_ngrams) matrix."""
        sums = matrix @ self.weights.T.astype(np.float64)  # (num_texts, num_outputs)
        scores = sums / _lengths(matrix)[:, np.newaxis] + self.biases
        if len(self.biases) == 1:
            return log_expit(np.concatenate((-scores, scores), axis=1))
        logs = log_expit(scores)  # each class against the others: not normalized
        return logs - logsumexp(logs, axis=1, keepdims=True)

    def class_weights(self) -> np.ndarray:
        """(num_classes, num_ngrams) evidence of each n-gram for each class."""
        is_binary = len(self.biases) == 1
        return np.concatenate((-self.weights, self.weights)) if is_binary else self.weights


def fit_linear(
    matrix: csr_array,
    labels: np.ndarray,
    num_classes: int,
    probabilities: np.ndarray | None = None,
) -> LinearModel:
    """Train on a binary (num_texts, num_ngrams) matrix and the labels of its texts.

    ``labels`` (num_labelled,) are those of the first texts; the others, if there are any, have
    ``probabilities`` (num_texts - num_labelled, num_classes), which other models gave them.
    """
    shares = np.eye(num_classes)[labels]
    if probabilities is not None:
        shares = np.concatenate((shares, probabilities))
    strength = regularization(len(labels), len(shares))
    classes = [1] if num_classes == 2 else range(num_classes)
    outputs = [_fit_output(matrix, shares[:, label], strength) for label in classes]
    weights, biases = zip(*outputs, strict=True)
    return LinearModel(np.stack(weights), np.array(biases, dtype=np.float32))


def regularization(num_labelled: int, num_texts: int) -> float:
    """scikit-learn's C, the inverse weight of the penalty, for texts of which some have labels.

    The more texts, the weaker the penalty beside their loss. As chosen on labelled texts, it is
    weaker than texts with uncertain labels need: on IMDB with its unlabelled reviews, 92.68 % so,
    and 92.48 % with the full constant.
    """
    return REGULARIZATION * num_labelled / max(1, num_texts)


def log_count_ratios(matrix: csr_array, shares: np.ndarray) -> np.ndarray:
    """(num_ngrams,) float32 log ratio of each n-gram's share among positive and other texts.

    Of each text, a share in ``shares`` (num_texts,) is positive, 0 or 1 for a labelled one. An
    n-gram's count is the number of texts that contain it, plus 1; its share is of all counts.
    """
    counts = (matrix.T @ sides.astype(np.float64) + 1 for sides in (shares, 1 - shares))
    positive, negative = (count / count.sum() for count in counts)
    return np.log(positive / negative).astype(np.float32)


def _fit_output(matrix: csr_array, shares: np.ndarray, strength: float) -> tuple[np.ndarray, float]:
    """Weights and bias that separate positive texts from the others; shares as above."""
    from sklearn.linear_model import LogisticRegression  # takes a second to import

    # A text that is partly positive counts twice, with both parts as weights.
    parts = np.stack((1 - shares, shares), axis=1)
    texts, sides = np.nonzero(parts > _LEAST_PART)
    if len(np.unique(sides)) < 2:  # a class without training texts: Laplace's rule
        num_positive, num_texts = float(shares.sum()), len(shares)
        odds = (num_positive + 1) / (num_texts - num_positive + 1)
        return np.zeros(matrix.shape[1], dtype=np.float32), float(np.log(odds))
    ratios = log_count_ratios(matrix, shares)
    weighted = matrix.copy()
    weighted.data = ratios[weighted.indices]
    weighted.data /= np.repeat(_lengths(matrix), np.diff(matrix.indptr))
    model = LogisticRegression(C=strength, max_iter=1_000)
    model.fit(weighted[texts], sides, parts[texts, sides])
    return model.coef_[0].astype(np.float32) * ratios, float(model.intercept_[0])


def _lengths(matrix: csr_array) -> np.ndarray:
    """(num_texts,) float32 Euclidean norms of the binary rows, at least 1."""
    return np.sqrt(np.diff(matrix.indptr).clip(min=1)).astype(np.float32)
