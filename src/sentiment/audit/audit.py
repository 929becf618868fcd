"""Everything that an audit finds out about reviews, without training an LSTM."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import torch

from sentiment.audit.label_errors import (
    Doubt,
    OutOfFold,
    find_label_errors,
    summarize,
)
from sentiment.audit.texts import Copies, Fault, count_scripts, find_copies, find_faults
from sentiment.baseline.cross_fit import cross_fit
from sentiment.config.config import Config
from sentiment.data.pipeline import cache_dir, choose_vocabulary, tokenize_reviews, vectors_path
from sentiment.data.reviews import Reviews, load_labelled, load_split
from sentiment.data.splits import (
    NeighbourSimilarity,
    dedup_key,
    measure_similarity,
    number_keys,
    read_test_keys,
)
from sentiment.data.tokenizer import TokenizedTexts
from sentiment.data.vectors import Coverage, load_vectors
from sentiment.data.vocabulary import SPECIALS, UNK_ID, number_lexicon, token_counts
from sentiment.display.console import progress_bar
from sentiment.readers.sources import is_imdb


@dataclass(frozen=True)
class VocabularySize:
    """The vocabulary that the settings choose, counted over all labelled reviews."""

    num_words: int
    num_distinct: int  # words of the reviews
    unknown_share: float  # of all tokens
    coverage: Coverage | None  # by the vectors; None if none are set or they are not downloaded


@dataclass(frozen=True)
class Audit:
    """What an audit found. Arrays are over all labelled reviews, train before validation."""

    config: Config
    reviews: Reviews
    splits: np.ndarray  # (num_reviews,) the name of each review's split
    files: list[str]  # (num_reviews,) and of its file
    num_unlabelled: dict[str, int]  # reviews that were read without labels, by split
    num_tokens: np.ndarray
    copies: Copies
    neighbours: NeighbourSimilarity
    faults: list[Fault]
    scripts: Counter[str]
    vocabulary: VocabularySize
    out_of_fold: OutOfFold | None
    doubts: list[Doubt]  # the labels most likely to be wrong first

    def place(self, index: int) -> str:
        """A labelled review's split and row, from 1."""
        assert self.reviews.rows is not None
        return f"{self.splits[index]} row {self.reviews.rows[index] + 1:,}"


def audit(config: Config) -> Audit:
    """Look at the reviews that a training with these settings would read.

    Progress is shown on terminals. Raises as :func:`sentiment.data.reviews.load_split`.
    """
    data = config.data
    with progress_bar(total=7, desc="auditing", unit="step", leave=False) as bar:

        def step(name: str) -> None:
            bar.set_postfix_str(name)
            bar.update()

        labelled = load_labelled(data)
        reviews, splits = _join(labelled)
        step("tokens")
        tokenized = tokenize_reviews(reviews, data)
        num_tokens = np.diff(tokenized.offsets)
        step("copies")
        keys = {split: list(map(dedup_key, part.texts)) for split, part in labelled.items()}
        own_keys = [key for part in keys.values() for key in part]
        unlabelled = _unlabelled_keys(config)
        copies = find_copies(keys | unlabelled, own_keys, reviews.labels)
        step("neighbours")
        neighbours = measure_similarity(tokenized, reviews.labels)
        step("texts")
        faults, scripts = find_faults(reviews.texts, num_tokens), count_scripts(reviews.texts)
        step("vocabulary")
        vocabulary = _measure_vocabulary(config, reviews, tokenized)
        step("labels")
        fit = cross_fit(
            tokenized, reviews.labels, num_classes=len(reviews.class_names),
            copies=number_keys(own_keys), groups=reviews.groups, seed=data.validation_seed,
        )  # fmt: skip
    out_of_fold, doubts = None, []
    if fit is not None:
        out_of_fold = summarize(fit, reviews.labels)
        doubts = find_label_errors(out_of_fold.predictions.probabilities, reviews.labels)
    return Audit(
        config=config,
        reviews=reviews,
        splits=splits,
        files=[name for part in labelled.values() for name in part.file_names()],
        num_unlabelled={split: len(part) for split, part in unlabelled.items()},
        num_tokens=num_tokens,
        copies=copies,
        neighbours=neighbours,
        faults=faults,
        scripts=scripts,
        vocabulary=vocabulary,
        out_of_fold=out_of_fold,
        doubts=doubts,
    )


def _join(labelled: dict[str, Reviews]) -> tuple[Reviews, np.ndarray]:
    """All labelled reviews, and the split of each; groups of different splits stay apart."""
    parts = list(labelled.values())
    splits = np.repeat(list(labelled), list(map(len, parts)))
    groups = None
    if parts[0].groups is not None:
        names = [(split, group) for split, part in labelled.items() for group in _groups(part)]
        groups = number_keys(names)
    joined = replace(
        parts[0],
        texts=[text for part in parts for text in part.texts],
        labels=np.concatenate([part.labels for part in parts]),
        groups=groups,
        rows=np.concatenate([part.rows for part in parts if part.rows is not None]),
    )
    return joined, splits


def _groups(reviews: Reviews) -> list[int]:
    groups = np.arange(len(reviews)) if reviews.groups is None else reviews.groups
    return groups.tolist()


def _unlabelled_keys(config: Config) -> dict[str, list[bytes]]:
    """The keys of the reviews without labels, and of the test reviews, whose labels stay unread."""
    keys = {}
    if not is_imdb(config.data):  # which would download them
        try:
            texts = load_split(config.data, "unsupervised").texts
            keys["unsupervised"] = [dedup_key(text) for text in texts]
        except FileNotFoundError:
            pass
    if config.data.shared_reviews != "ignore" and (test := read_test_keys(config.data)):
        keys["test"] = test
    return keys


def _measure_vocabulary(
    config: Config, reviews: Reviews, tokenized: TokenizedTexts
) -> VocabularySize:
    vocabulary = choose_vocabulary(config, [(reviews, tokenized)])
    ids = number_lexicon(vocabulary, tokenized.lexicon)
    counts = np.bincount(tokenized.tokens, minlength=len(ids))
    coverage = None
    path = vectors_path(config.vectors, cache_dir(config.data), downloads=False)
    if path is not None:
        _, coverage = load_vectors(
            path, vocabulary.itos, token_counts(vocabulary),
            dimension=config.model.embedding_size, generator=torch.Generator(),
        )  # fmt: skip
    return VocabularySize(
        num_words=len(vocabulary) - len(SPECIALS),
        num_distinct=len(ids),
        unknown_share=float(counts[ids == UNK_ID].sum() / max(1, counts.sum())),
        coverage=coverage,
    )
