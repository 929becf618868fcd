"""Generate the mini corpus: three splits of synthetic film reviews, and word vectors for them.

    python data/mini/generate.py [--output FOLDER]

The seed is fixed, so every run writes the same files, on any machine.
"""

from __future__ import annotations

import argparse
import csv
import html
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from random import Random

import numpy as np
from grammar import NEW_ASPECT, RULES, WHOLE_FILM
from lexicon import ASPECTS, FILM, GENERAL_QUALITIES, LABELS, POLAR, Aspect

SEED = 2011
# Package data: an installed program reads it too.
REVIEWS = Path(__file__).resolve().parents[2] / "src" / "sentiment" / "data" / "mini"
NUM_REVIEWS = {"train": 4_000, "validation": 500, "test": 1_000}
REVIEW_LENGTHS = range(20, 121)  # whitespace-separated words

VECTORS_FILE = "vectors.50d.txt"
VECTOR_SIZE = 50
VECTOR_WINDOW = 15  # as GloVe's
VECTOR_SPREAD = 0.4  # standard deviation of the values, close to that of the public GloVe vectors
SHARE_WITHOUT_VECTOR = 0.025  # so that some words have no vector, as with any real file

OTHER_SIDE = {"neg": "pos", "pos": "neg", None: None}
SLOT = re.compile(r"\{([+-]?)(\w+)\}")
SENTENCE_START = re.compile(r'(^"?|[.!?] "?|/>"?)([a-z])')
TOKEN = re.compile(r"\w+(?=n't)|n't|'s|\w+|[^\w\s]")


class ReviewWriter:
    """Expands the grammar for one review, without repetition while there are unused choices."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._said: set[str] = set()
        self._aspects_left: list[Aspect] = []

    def expand(self, symbol: str, label: str | None, aspect: Aspect | None = None) -> str:
        """Return a text for ``symbol`` with the sentiment of ``label``."""
        if symbol in NEW_ASPECT:
            aspect = self._next_aspect()
        elif symbol in WHOLE_FILM:
            aspect = FILM
        template = self._choose(choices_for(symbol, label, aspect))
        return SLOT.sub(lambda slot: self._fill(slot, label, aspect), template)

    def _fill(self, slot: re.Match[str], label: str | None, aspect: Aspect | None) -> str:
        """Expand a slot; without a sign it is neutral, so praise or blame in it is a KeyError."""
        sign, symbol = slot.groups()
        side = {"+": label, "-": OTHER_SIDE[label], "": None}[sign]
        return self.expand(symbol, side, aspect)

    def _next_aspect(self) -> Aspect:
        """Return the next aspect in random order, so that no two claims are about the same one."""
        if not self._aspects_left:
            self._aspects_left = shuffled(ASPECTS, self._random)
        return self._aspects_left.pop()

    def _choose(self, choices: tuple[str, ...]) -> str:
        """Draw an unused choice; choices that are only a slot may recur."""
        new = [choice for choice in choices if choice not in self._said] or choices
        choice = new[int(self._random.random() * len(new))]
        if choice.strip() and not SLOT.fullmatch(choice.rstrip(".")):
            self._said.add(choice)
        return choice


def shuffled(items: Iterable, random: Random) -> list:
    """Shuffle with ``random()``, the only method whose sequence Python guarantees not to change."""
    return sorted(items, key=lambda _: random.random())


def choices_for(symbol: str, label: str | None, aspect: Aspect | None) -> tuple[str, ...]:
    if symbol == "noun":
        return aspect.nouns
    if symbol == "quality":
        return aspect.qualities[label] + GENERAL_QUALITIES[label]
    if symbol == "deed":
        return aspect.deeds[label]
    if symbol in POLAR:
        return POLAR[symbol][label]
    return RULES[symbol]


def write_review(random: Random, label: str) -> str:
    """Expand a review, then fix what a template cannot know: empty slots, articles, capitals."""
    text = ReviewWriter(random).expand("review", label)
    text = re.sub(" +", " ", text)
    text = re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", text)
    return SENTENCE_START.sub(lambda start: start[1] + start[2].upper(), text)


def write_corpus(seed: int) -> dict[str, list[tuple[str, str]]]:
    """Return (text, label) rows by split: balanced labels, and no text twice in any split."""
    random = Random(seed)
    written: set[str] = set()
    splits = {}
    for split, num_reviews in NUM_REVIEWS.items():
        splits[split] = []
        for label in shuffled(LABELS * (num_reviews // len(LABELS)), random):
            text = write_review(random, label)
            while text in written or len(text.split()) not in REVIEW_LENGTHS:
                text = write_review(random, label)
            written.add(text)
            splits[split].append((text, label))
    return splits


def tokenize(text: str) -> list[str]:
    """Tokenize nearly as spaCy does, without needing spaCy."""
    return TOKEN.findall(html.unescape(text.replace("<br />", " ")).lower())


def count_neighbors(reviews: list[list[int]], num_words: int) -> np.ndarray:
    """Return co-occurrences (num_words, num_words), weighted by 1/distance as in GloVe."""
    gap = [num_words] * VECTOR_WINDOW  # a dummy word, so that reviews are not neighbors
    words = np.array([word for review in reviews for word in review + gap])
    size = num_words + 1
    counts = np.zeros(size * size)
    for distance in range(1, VECTOR_WINDOW + 1):
        pairs = words[:-distance] * size + words[distance:]
        counts += np.bincount(pairs, minlength=size * size) / distance
    counts = counts.reshape(size, size)[:num_words, :num_words]
    return counts + counts.T


def positive_pmi(counts: np.ndarray) -> np.ndarray:
    """Positive pointwise mutual information with smoothed contexts (Levy et al., TACL 2015)."""
    contexts = counts.sum(axis=0) ** 0.75
    expected = np.outer(counts.sum(axis=1), contexts / contexts.sum())
    return np.log(np.maximum(counts / expected, 1))


def unit_rows(matrix: np.ndarray) -> np.ndarray:
    return matrix / np.linalg.norm(matrix, axis=1, keepdims=True)


def make_vectors(texts: list[str], seed: int) -> dict[str, np.ndarray]:
    """Return a vector (VECTOR_SIZE,) for every word of ``texts`` but a few rare ones.

    A word's co-occurrences are projected to few dimensions with random signs (Achlioptas 2003). On
    this corpus an LSTM learns from them as fast as from a truncated SVD, whose last digits would
    depend on the linear algebra library.
    """
    reviews = [tokenize(text) for text in texts]
    frequency = Counter(word for review in reviews for word in review)
    vocabulary = sorted(frequency, key=lambda word: (-frequency[word], word))
    index = {word: number for number, word in enumerate(vocabulary)}
    counts = count_neighbors([[index[word] for word in review] for review in reviews], len(index))
    neighborhoods = unit_rows(positive_pmi(counts))
    neighborhoods -= neighborhoods.mean(axis=0)  # removes what all words share
    random = Random(seed)
    signs = [[1.0 if random.random() < 0.5 else -1.0 for _ in range(VECTOR_SIZE)] for _ in index]
    vectors = unit_rows(neighborhoods @ np.array(signs)) * VECTOR_SPREAD * VECTOR_SIZE**0.5
    # Words that occur once are in few vocabularies anyway, so they keep their vectors.
    num_left_out = round(len(vocabulary) * SHARE_WITHOUT_VECTOR)
    left_out = [word for word in vocabulary if frequency[word] > 1][-num_left_out:]
    return {word: vectors[index[word]] for word in vocabulary if word not in left_out}


def save_reviews(path: Path, rows: list[tuple[str, str]]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("text", "label"))
        writer.writerows(rows)


def save_vectors(path: Path, vectors: dict[str, np.ndarray]) -> None:
    """Write GloVe's text format: a word and its values, separated by single spaces, no header."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for word, vector in vectors.items():
            values = np.round(vector, 3) + 0.0  # + 0.0 turns -0.0 into 0.0
            file.write(f"{word} {' '.join(f'{value:.3f}' for value in values)}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--output", type=Path, metavar="FOLDER", help="of all files (default: where they are)"
    )
    output = parser.parse_args().output
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
    splits = write_corpus(SEED)
    for split, rows in splits.items():
        save_reviews((output or REVIEWS) / f"{split}.csv", rows)
    vectors = make_vectors([text for text, _ in splits["train"]], SEED)
    save_vectors((output or Path(__file__).parent) / VECTORS_FILE, vectors)


if __name__ == "__main__":
    main()
