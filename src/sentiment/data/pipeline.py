"""From reviews to encoded corpora: the only module that knows every step."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torchtext.vocab import Vocab

from sentiment.config.config import Config, DataConfig, VectorsConfig
from sentiment.data.batches import EncodedCorpus, encode
from sentiment.data.download import fetch_vectors
from sentiment.data.reviews import (
    Reviews,
    Split,
    file_fingerprint,
    load_split,
    load_training_splits,
    load_unlabelled,
    reviews_fingerprint,
)
from sentiment.data.sources import has_validation, is_on_hub
from sentiment.data.splits import warn_of_similar_neighbours
from sentiment.data.token_cache import default_cache_dir, tokenize_cached
from sentiment.data.tokenizer import TokenizedTexts
from sentiment.data.vectors import Coverage, load_vectors
from sentiment.data.vocabulary import (
    SPECIALS,
    build_vocabulary,
    count_groups,
    count_tokens,
    number_lexicon,
    token_counts,
)
from sentiment.runtime.errors import UserError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingData:
    """What a training run learns from and is checked on.

    Attributes:
        vectors: (vocabulary, embedding_size) to start the embedding from, or None.
        coverage: what of the vocabulary the vectors cover, or None.
        fingerprints: of the reviews, by split.
        vectors_fingerprint: of the file of vectors, or None.
        unlabelled: reviews without labels to learn from, or None.
        unlabelled_reviews: the same for teachers to read, None where there are none to read them.
        soft_labels: (num_unlabelled, num_classes) what teachers say of them, on the CPU, or None.
    """

    train: EncodedCorpus
    validation: EncodedCorpus
    validation_reviews: Reviews
    vocabulary: Vocab
    vectors: torch.Tensor | None
    coverage: Coverage | None
    fingerprints: dict[str, Any] = field(default_factory=dict)
    vectors_fingerprint: dict[str, Any] | None = None
    unlabelled: EncodedCorpus | None = None
    unlabelled_reviews: Reviews | None = None
    soft_labels: torch.Tensor | None = None

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.validation_reviews.class_names


def prepare_training(
    config: Config, *, vocabulary: Vocab | None = None, with_vectors: bool = True
) -> TrainingData:
    """Read, split, tokenize, number and embed.

    Args:
        config: the settings.
        vocabulary: that of a training which is resumed; None counts one.
        with_vectors: whether vectors are wanted: resumed weights need none.
    """
    train, validation, others = load_training(config)
    is_held_out = not has_validation(config.data)
    how = f" (held out {config.data.describe_hold_out()})" if is_held_out else ""
    counts = (f"{len(train):,}", f"{len(validation):,}")
    logger.info("reviews: %s for training, %s for validation%s", *counts, how)
    if others is not None:
        logger.info("reviews: %s without labels to learn from", f"{len(others):,}")
    train_tokens = tokenize_reviews(train, config.data)
    if is_held_out and config.data.hold_out == "random":
        warn_of_similar_neighbours(train_tokens, train.labels)
    if vocabulary is None:
        vocabulary = choose_vocabulary(config, [(train, train_tokens)])
    path = vectors_path(config.vectors, cache_dir(config.data)) if with_vectors else None
    vectors, coverage = (None, None) if path is None else load_own_vectors(config, vocabulary, path)
    data = TrainingData(
        train=encode_tokens(train, train_tokens, vocabulary, config.data),
        validation=encode_reviews(validation, vocabulary, config.data),
        validation_reviews=validation,
        vocabulary=vocabulary,
        vectors=vectors,
        coverage=coverage,
        fingerprints={
            "train": reviews_fingerprint(train),
            "validation": reviews_fingerprint(validation),
            **({} if others is None else {"unsupervised": reviews_fingerprint(others)}),
        },
        vectors_fingerprint=None if path is None else file_fingerprint(path),
        unlabelled=None if others is None else encode_reviews(others, vocabulary, config.data),
        unlabelled_reviews=others if config.distillation.is_wanted else None,
    )
    logger.info(
        "vocabulary: %s words; unknown %.2f %% of training and %.2f %% of validation tokens",
        f"{len(vocabulary):,}",
        100 * data.train.unknown_share(),
        100 * data.validation.unknown_share(),
    )
    return data


def load_training(config: Config) -> tuple[Reviews, Reviews, Reviews | None]:
    """Read the reviews to learn from, those to choose by, and those without labels if need be.

    Raises:
        FileNotFoundError: some are not there.
        UserError: a file is not as it must be, or validation has one class only.
    """
    train, validation = load_training_splits(config.data)
    if len(set(validation.labels.tolist())) < 2:
        raise UserError(
            f"{validation.origin}: the validation reviews are of one class only: give some of "
            "another, or none at all to hold reviews out of train"
        )
    return train, validation, _load_unlabelled(config, validation)


def look_ahead(config: Config) -> dict[str, Reviews]:
    """Meet now what reading the reviews for a training would meet after hours.

    Returns:
        the training and validation reviews, by split.

    Raises:
        FileNotFoundError, UserError: as :func:`load_training`.
    """
    data = config.data
    if data.shared_reviews == "report":  # the training itself will, and it changes no review
        data = replace(data, shared_reviews="ignore")
    train, validation, _ = load_training(replace(config, data=data))
    return {"train": train, "validation": validation}


def reads_unlabelled(config: Config) -> bool:
    """Whether a training by these settings learns from reviews without labels."""
    objectives = config.objectives
    terms = max(objectives.virtual_adversarial, objectives.entropy)
    return objectives.unlabelled and (terms > 0 or config.distillation.is_wanted)


def _load_unlabelled(config: Config, validation: Reviews) -> Reviews | None:
    if not reads_unlabelled(config):
        return None
    try:
        return load_unlabelled(config.data, validation)
    except FileNotFoundError as error:
        needed = (
            "objectives.virtual_adversarial and objectives.entropy learn from it too: give it, or "
            "set objectives.unlabelled to false to learn from the other reviews alone"
        )
        if config.distillation.is_wanted:
            needed = f"distillation has it labelled: give it, or set {config.distillation.off}"
        raise FileNotFoundError(f"{error}; {needed}") from error


def choose_vocabulary(config: Config, corpora: Sequence[tuple[Reviews, TokenizedTexts]]) -> Vocab:
    """The words that the settings give an embedding of their own.

    Args:
        config: the settings.
        corpora: reviews with their tokens, the training reviews first.

    Raises:
        UserError: there are none.
    """
    counts = sum((count_tokens(tokens) for _, tokens in corpora), start=Counter())
    least = config.vocabulary.min_groups
    if least > 1:
        spread = sum((count_groups(each, own.groups) for own, each in corpora), start=Counter())
        counts = Counter({word: count for word, count in counts.items() if spread[word] >= least})
    vocabulary = build_vocabulary(
        counts,
        max_size=config.vocabulary.max_size,
        min_frequency=config.vocabulary.min_frequency,
    )
    if len(vocabulary) == len(SPECIALS):
        wanted = f"vocabulary.min_frequency = {config.vocabulary.min_frequency} times"
        if least > 1:
            wanted += f" and in vocabulary.min_groups = {least} groups of reviews"
        raise UserError(
            f"no word of {corpora[0][0].origin} occurs {wanted}: lower it, or give more reviews"
        )
    return vocabulary


def prepare_split(
    data: DataConfig, split: Split, vocabulary: Vocab, class_names: tuple[str, ...]
) -> tuple[Reviews, EncodedCorpus]:
    """One split as a trained run sees it: its words, its class names, its settings."""
    reviews = load_split(data, split, class_names)
    return reviews, encode_reviews(reviews, vocabulary, data)


def encode_reviews(reviews: Reviews, vocabulary: Vocab, data: DataConfig) -> EncodedCorpus:
    """Tokenize reviews (or take their tokens from the cache) and number them."""
    return encode_tokens(reviews, tokenize_reviews(reviews, data), vocabulary, data)


def cache_dir(data: DataConfig) -> Path:
    """The folder for tokens and downloads that the settings choose."""
    return Path(data.cache_dir).expanduser() if data.cache_dir else default_cache_dir()


def tokenize_reviews(reviews: Reviews, data: DataConfig) -> TokenizedTexts:
    """Cut reviews into tokens, or take these from the cache."""
    return tokenize_cached(
        reviews.texts,
        cache_dir(data),
        lower_case=data.lower_case,
        num_processes=data.num_processes,
        progress=True,
    )


def encode_tokens(
    reviews: Reviews, tokenized: TokenizedTexts, vocabulary: Vocab, data: DataConfig
) -> EncodedCorpus:
    """Number the tokens of reviews, and keep as many of each as the settings say."""
    ids = number_lexicon(vocabulary, tokenized.lexicon)
    return encode(tokenized, ids, reviews.labels, max_length=data.max_length, keep=data.keep)


def load_own_vectors(
    config: Config, vocabulary: Vocab, path: Path
) -> tuple[torch.Tensor, Coverage]:
    """Vectors of the vocabulary's words from a file, and what of the words they cover."""
    vectors, coverage = load_vectors(
        path,
        vocabulary.itos,
        token_counts(vocabulary),
        dimension=config.model.embedding_size,
        generator=torch.Generator().manual_seed(config.seed),
    )
    logger.info("%s", coverage.summary())
    return vectors, coverage


def vectors_path(vectors: VectorsConfig, cache: Path) -> Path | None:
    """The file with the vectors that the settings ask for, downloaded where need be."""
    if vectors.path is not None:
        return Path(vectors.path).expanduser()
    return fetch_vectors(vectors.name, cache) if vectors.name is not None else None


@dataclass(frozen=True)
class PretrainingTexts:
    """Reviews to pre-train on.

    Attributes:
        corpora: the training reviews and, where the source has them, the unlabelled ones.
        validation: those that training will choose by, to tell the model's perplexity on.
        vocabulary: counted over all corpora.
        vectors: (vocabulary, embedding_size) to start the embedding from, or None.
        class_names: of the training reviews.
        fingerprints: of the reviews, by split.
        vectors_fingerprint: of the file of vectors, None where none is read.
    """

    corpora: tuple[EncodedCorpus, ...]
    validation: EncodedCorpus
    vocabulary: Vocab
    vectors: torch.Tensor | None
    class_names: tuple[str, ...]
    fingerprints: dict[str, Any]
    vectors_fingerprint: dict[str, Any] | None = None


def load_pretraining(config: Config) -> dict[str, Reviews]:
    """Read the reviews by split: ``validation``, ``train`` and, where there are any that the
    settings do not leave out, ``unsupervised``.

    Raises:
        FileNotFoundError: there are none, or the hub has them and cannot be reached.
        UserError: a file is not as it must be.
    """
    data = config.data
    train, validation = load_training_splits(data)
    splits = {"validation": validation, "train": train}
    if not config.pretraining.unlabelled:
        return splits
    try:
        splits["unsupervised"] = load_unlabelled(data, validation)
    except FileNotFoundError as error:
        if is_on_hub(data):  # which has such a split: it could not be fetched
            raise
        logger.info("pre-training on the training reviews alone: %s", error)
    return splits


def fingerprints_of(splits: dict[str, Reviews]) -> dict[str, Any]:
    """What tells the reviews from others, by split."""
    return {name: reviews_fingerprint(reviews) for name, reviews in splits.items()}


def prepare_pretraining(
    config: Config, *, vocabulary: Vocab | None = None, reviews: dict[str, Reviews] | None = None
) -> PretrainingTexts:
    """Read, split, tokenize and number.

    Args:
        config: the settings.
        vocabulary: that of a pre-training which is resumed, for which no vectors are read; None
            counts one.
        reviews: what :func:`load_pretraining` has read; None reads it.
    """
    splits = dict(load_pretraining(config) if reviews is None else reviews)
    fingerprints = fingerprints_of(splits)
    validation, train = splits.pop("validation"), splits["train"]
    tokens = {name: tokenize_reviews(each, config.data) for name, each in splits.items()}
    vectors = vectors_fingerprint = None
    if vocabulary is None:
        vocabulary = choose_vocabulary(config, [(splits[name], tokens[name]) for name in splits])
        if (path := vectors_path(config.vectors, cache_dir(config.data))) is not None:
            vectors, _ = load_own_vectors(config, vocabulary, path)
            vectors_fingerprint = file_fingerprint(path)
    data = replace(config.data, max_length=config.pretraining.max_length, keep="head")
    corpora = [encode_tokens(each, tokens[name], vocabulary, data) for name, each in splits.items()]
    logger.info(
        "reviews to pre-train on: %s, %s tokens; vocabulary: %s words",
        f"{sum(map(len, corpora)):,}",
        f"{sum(int(each.lengths.sum()) for each in corpora):,}",
        f"{len(vocabulary):,}",
    )
    return PretrainingTexts(
        corpora=tuple(corpora),
        validation=encode_reviews(validation, vocabulary, data),
        vocabulary=vocabulary,
        vectors=vectors,
        class_names=train.class_names,
        fingerprints=fingerprints,
        vectors_fingerprint=vectors_fingerprint,
    )
