"""Whether neighbouring reviews are of one film or author, told by the rare words they share.

The names of a film's people and parts stand in its reviews and in few others. Where reviews of one
film stand next to each other, a hold-out of single reviews has it on both sides, and rewards a
model for the names that it remembers.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from sentiment.text.tokenizer import TokenizedTexts

logger = logging.getLogger(__name__)

_MOST_TEXTS = 50_000  # of a larger corpus its first ones: enough to tell, in seconds
_MOST_OCCURRENCES = 20  # texts that hold a rare word, at most; at least two
_ROUNDS = 5  # of random pairs, as many in each as there are neighbours
_LEAST_FACTOR = 3.0
_LEAST_SHARED = 30  # rare words shared by all neighbours together; fewer may be chance


@dataclass(frozen=True)
class Likeness:
    """Rare words that two reviews of one class share, in the mean over pairs.

    Attributes:
        of_neighbours: pairs of neighbouring rows.
        of_others: random pairs.
        num_pairs: of neighbours.
    """

    of_neighbours: float
    of_others: float
    num_pairs: int

    @property
    def factor(self) -> float:
        """How many times as many neighbours share."""
        return self.of_neighbours / max(self.of_others, 1 / max(1, _ROUNDS * self.num_pairs))

    @property
    def is_striking(self) -> bool:
        """Whether that is far more than chance."""
        are_enough = self.of_neighbours * self.num_pairs >= _LEAST_SHARED
        return are_enough and self.factor >= _LEAST_FACTOR


def measure_likeness(tokenized: TokenizedTexts, labels: np.ndarray, seed: int = 0) -> Likeness:
    """Compare neighbouring texts with random pairs of the same class.

    Args:
        tokenized: the texts, in the order of their rows.
        labels: (num_texts,) int64.
        seed: of the random pairs.
    """
    count = min(len(tokenized), _MOST_TEXTS)
    labels, offsets = labels[:count], np.asarray(tokenized.offsets[: count + 1])
    tokens = np.asarray(tokenized.tokens[: offsets[-1]])
    holds = sparse.csr_array(
        (np.ones(len(tokens), dtype=np.int32), tokens, offsets),
        shape=(count, len(tokenized.lexicon)),
    )
    holds.sum_duplicates()
    holds.data[:] = 1
    occurrences = np.bincount(holds.indices, minlength=holds.shape[1])
    holds = holds[:, (occurrences >= 2) & (occurrences <= _MOST_OCCURRENCES)]
    rows = np.arange(count - 1)
    rows = rows[labels[:-1] == labels[1:]]
    if len(rows) == 0:
        return Likeness(0.0, 0.0, 0)
    generator = np.random.default_rng(seed)
    others = [_shared(holds, *_random_pairs(labels, len(rows), generator)) for _ in range(_ROUNDS)]
    return Likeness(_shared(holds, rows, rows + 1), float(np.mean(others)), len(rows))


def warn_of_likeness(tokenized: TokenizedTexts, labels: np.ndarray) -> None:
    """Say so where a random hold-out would have one film on both sides, and what keeps it apart."""
    found = measure_likeness(tokenized, labels)
    if found.is_striking:
        logger.warning(
            "neighbouring reviews share %.0f times as many rare words as others of their class, "
            "as reviews of one film or author do: held out at random, validation flatters; "
            "--data.validation stretches keeps neighbours together, and --data.validation groups "
            "with --data.group_column whatever a column names",
            found.factor,
        )


def _random_pairs(
    labels: np.ndarray, count: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """About ``count`` pairs of different rows of one class, (num_pairs,) each."""
    first, second = generator.integers(len(labels), size=(2, count))
    members = {label: np.flatnonzero(labels == label) for label in np.unique(labels)}
    for label, rows in members.items():
        is_own = labels[first] == label
        second[is_own] = rows[second[is_own] % len(rows)]
    differ = np.abs(first - second) > 1
    return first[differ], second[differ]


def _shared(holds: sparse.csr_array, first: np.ndarray, second: np.ndarray) -> float:
    """Mean number of columns in which both rows of a pair hold something."""
    if len(first) == 0:
        return 0.0
    return float(holds[first].multiply(holds[second]).sum()) / len(first)
