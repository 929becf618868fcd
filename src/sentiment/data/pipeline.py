"""From reviews to encoded corpora: the steps of preparing data, in order."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchtext.vocab import Vocab

from sentiment.config.config import Config, DataConfig, VectorsConfig
from sentiment.data.batches import EncodedCorpus, add_excerpts, encode
from sentiment.data.checks import (
    warn_of_coverage,
    warn_of_rare_classes,
    warn_of_unspaced,
    warn_of_vocabulary,
)
from sentiment.data.contrasts import add_contrasts
from sentiment.data.download import cached_vectors, fetch_vectors
from sentiment.data.reviews import (
    Reviews,
    Split,
    file_fingerprint,
    load_split,
    load_training_splits,
    load_unlabelled,
    log_classes,
    log_stretches,
    reviews_fingerprint,
)
from sentiment.data.splits import warn_of_similar_neighbours
from sentiment.data.tokenizer import TokenizedTexts, default_cache_dir, tokenize_cached
from sentiment.data.vectors import Coverage, load_vectors
from sentiment.data.vocabulary import (
    SPECIALS,
    build_vocabulary,
    count_groups,
    count_tokens,
    expect_groups,
    extend_vocabulary,
    number_lexicon,
    token_counts,
)
from sentiment.display.console import did_you_mean
from sentiment.readers.sources import has_split, is_imdb
from sentiment.runtime.errors import UserError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SoftLabels:
    """Probabilities of the classes by other models, in fp32 on the CPU; None where none are asked.

    Both are (num_reviews, num_classes).
    """

    unlabelled: torch.Tensor | None = None  # the teachers' mean
    labelled: torch.Tensor | None = None  # by linear models of the other folds

    def to(self, device: torch.device) -> SoftLabels:
        tensors = (self.unlabelled, self.labelled)
        return SoftLabels(*(None if each is None else each.to(device) for each in tensors))


@dataclass(frozen=True)
class TrainingData:
    """The data of a training run."""

    train: EncodedCorpus
    validation: EncodedCorpus
    validation_reviews: Reviews
    vocabulary: Vocab
    vectors: torch.Tensor | None  # (vocabulary, embedding_size) initial embedding
    coverage: Coverage | None  # of the vocabulary by the vectors
    fingerprints: dict[str, Any] = field(default_factory=dict)  # of the reviews, by split
    vectors_fingerprint: dict[str, Any] | None = None
    unlabelled: EncodedCorpus | None = None
    unlabelled_reviews: Reviews | None = None  # the same reviews as text, for teachers
    train_reviews: Reviews | None = None  # those of train as text, for the linear model's opinion
    soft_labels: SoftLabels = SoftLabels()

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.validation_reviews.class_names


def prepare_training(
    config: Config,
    *,
    vocabulary: Vocab | None = None,
    class_names: tuple[str, ...] | None = None,
    extends_vocabulary: bool = False,
    with_vectors: bool = True,
) -> TrainingData:
    """Read, split, tokenize and encode the reviews, and load the word vectors.

    A resumed training passes its ``vocabulary`` and ``class_names``, and needs no vectors as its
    weights hold them. ``extends_vocabulary`` adds the words of the training reviews to it.
    """
    train, validation, unlabelled = load_training(config, class_names)
    is_held_out = not has_split(config.data, "validation")
    how = f" (held out {config.data.describe_hold_out()})" if is_held_out else ""
    warn_of_rare_classes(config, train, validation, is_held_out=is_held_out)
    counts = (f"{len(train):,}", f"{len(validation):,}")
    logger.info("reviews: %s for training, %s for validation%s", *counts, how)
    if unlabelled is not None:
        logger.info("reviews: %s without labels to learn from", f"{len(unlabelled):,}")
    log_classes(train)
    if is_held_out and config.data.hold_out == "stretches":
        log_stretches(train, validation, config.data.stretch_length)
    train_tokens = tokenize_reviews(train, config.data)
    if is_held_out and config.data.hold_out == "random":
        warn_of_similar_neighbours(train_tokens, train.labels)
    validation_tokens = tokenize_reviews(validation, config.data)
    if vocabulary is None:
        vocabulary = choose_vocabulary(config, [(train, train_tokens)])
        if not warn_of_unspaced(train.texts, config.data.language):
            warn_of_vocabulary(vocabulary, config.vocabulary, train_tokens, validation_tokens)
    elif extends_vocabulary:
        more = choose_vocabulary(config, [(train, train_tokens)])
        vocabulary = extend_vocabulary(vocabulary, more)
    vectors, coverage, vectors_fingerprint = (
        _load_vectors(config, vocabulary) if with_vectors else (None, None, None)
    )
    splits = {"train": train, "validation": validation}
    unlabelled_corpus = None
    if unlabelled is not None:
        splits["unsupervised"] = unlabelled
        tokens = tokenize_reviews(unlabelled, config.data)
        unlabelled_corpus = _encode_to_learn(unlabelled, tokens, vocabulary, config)
    data = TrainingData(
        train=_encode_to_learn(train, train_tokens, vocabulary, config),
        validation=encode_tokens(validation, validation_tokens, vocabulary, config.data),
        validation_reviews=validation,
        vocabulary=vocabulary,
        vectors=vectors,
        coverage=coverage,
        fingerprints=fingerprints_of(splits),
        vectors_fingerprint=vectors_fingerprint,
        unlabelled=unlabelled_corpus,
        unlabelled_reviews=unlabelled if config.distillation.has_teachers else None,
        train_reviews=train if config.distillation.labelled > 0 else None,
    )
    logger.info(
        "vocabulary: %s words; unknown %.2f %% of training and %.2f %% of validation tokens",
        f"{len(vocabulary):,}",
        100 * data.train.unknown_share(),
        100 * data.validation.unknown_share(),
    )
    return replace(data, train=_add_contrasts(data.train, train_tokens, vocabulary, config))


def load_training(
    config: Config, class_names: tuple[str, ...] | None = None
) -> tuple[Reviews, Reviews, Reviews | None]:
    """Read the training and validation reviews, and the unlabelled ones if they are needed.

    ``class_names`` are those of a run that is resumed. A missing split raises
    ``FileNotFoundError``, invalid files or labels a ``UserError``.
    """
    train, validation = load_training_splits(config.data, class_names)
    if len(set(validation.labels.tolist())) < 2:
        raise UserError(
            f"{validation.origin}: all validation reviews are of one class: add some of another, "
            "or leave the split out to hold reviews out of train"
        )
    check_class_names(config, train)
    if config.training.contrasts > 0 and len(train.class_names) != 2:
        raise UserError(
            f"{train.origin}: training.contrasts is {config.training.contrasts}, which needs two "
            f"opposite classes, but there are {len(train.class_names)}: set training.contrasts to 0"
        )
    if config.distillation.labelled > 0:
        _check_second_opinion(train)
    unlabelled = _load_unlabelled(config, train, validation) if reads_unlabelled(config) else None
    return train, validation, unlabelled


def _check_second_opinion(train: Reviews) -> None:
    """Refuse training reviews that cannot be divided into folds to judge each other's labels."""
    problem = None
    if np.bincount(train.labels).max(initial=0) < 2:
        problem = "no class has two training reviews: give more"
    elif train.groups is not None:
        groups_of = [train.groups[train.labels == label] for label in range(len(train.class_names))]
        alone = [len(groups) > 0 and (groups == groups[0]).all() for groups in groups_of]
        if any(alone):  # models of the other groups would not know the class
            problem = (
                f"all training reviews of class {train.class_names[alone.index(True)]!r} are of "
                "one group: hold out shorter stretches (data.stretch_length), name another "
                "data.group_column"
            )
    if problem is not None:
        raise UserError(
            f"{train.origin}: no linear model can give a second opinion, because {problem}, or set "
            "distillation.labelled to 0"
        )


def check_class_names(config: Config, train: Reviews) -> None:
    """Refuse class names in the settings that the reviews do not have."""
    config.training.positive_index(train.class_names)
    weights = config.training.class_weights
    for name in weights if isinstance(weights, dict) else ():
        if name not in train.class_names:
            listed = ", ".join(train.class_names[:20])
            raise UserError(
                f"training.class_weights names {name!r}, but the classes of {train.origin} are "
                f"{listed}{did_you_mean(name, train.class_names)}"
            )


def preload_reviews(config: Config) -> dict[str, Reviews]:
    """Read the training and validation reviews once to find errors before hours of pre-training."""
    data = config.data
    if data.shared_reviews == "report":  # the training will report it
        data = replace(data, shared_reviews="ignore")
    train, validation, _ = load_training(replace(config, data=data))
    return {"train": train, "validation": validation}


def reads_unlabelled(config: Config) -> bool:
    """Whether a training with these settings learns from unlabelled reviews."""
    objectives = config.objectives
    weight = max(objectives.virtual_adversarial, objectives.entropy)
    return objectives.unlabelled and (weight > 0 or config.distillation.has_teachers)


def _load_unlabelled(config: Config, train: Reviews, validation: Reviews) -> Reviews:
    try:
        return load_unlabelled(config.data, train, validation)
    except FileNotFoundError as error:
        needed = (
            "objectives.virtual_adversarial and objectives.entropy also learn from it: add it, or "
            "set objectives.unlabelled to false to learn from the other reviews alone"
        )
        if config.distillation.has_teachers:
            needed = f"distillation learns from it: add it, or set {config.distillation.off}"
        raise FileNotFoundError(f"{error}; {needed}") from error


def choose_vocabulary(config: Config, corpora: Sequence[tuple[Reviews, TokenizedTexts]]) -> Vocab:
    """Build the vocabulary of reviews with their tokens; the training reviews come first."""
    min_groups, min_spread = config.vocabulary.min_groups, config.vocabulary.min_spread
    counts = sum((count_tokens(tokens) for _, tokens in corpora), start=Counter())
    if min_groups > 1 or min_spread > 0:
        found: Counter[str] = Counter()
        least = dict.fromkeys(counts, 0.0)
        for reviews, tokens in corpora:
            found.update(count_groups(tokens, reviews.groups))
            if min_spread > 0:
                for word, expected in expect_groups(tokens, reviews.groups).items():
                    least[word] += min_spread * expected
        counts = Counter(
            {word: counts[word] for word in counts
             if found[word] >= max(min_groups, least[word])}
        )  # fmt: skip
    vocabulary = build_vocabulary(
        counts, max_size=config.vocabulary.max_size, min_frequency=config.vocabulary.min_frequency
    )
    if len(vocabulary) == len(SPECIALS):
        raise UserError(
            f"no word of {corpora[0][0].origin} occurs vocabulary.min_frequency = "
            f"{config.vocabulary.min_frequency} times and in vocabulary.min_groups = {min_groups} "
            f"groups of reviews, with vocabulary.min_spread = {min_spread:g}: set them to "
            "1, 1 and 0, or give more reviews"
        )
    return vocabulary


def prepare_split(
    data: DataConfig, split: Split, vocabulary: Vocab, class_names: tuple[str, ...]
) -> tuple[Reviews, EncodedCorpus]:
    """Read and encode one split with a trained run's vocabulary, classes and settings."""
    reviews = load_split(data, split, class_names)
    return reviews, encode_reviews(reviews, vocabulary, data)


def encode_reviews(reviews: Reviews, vocabulary: Vocab, data: DataConfig) -> EncodedCorpus:
    """Tokenize reviews, or take their tokens from the cache, and encode them."""
    return encode_tokens(reviews, tokenize_reviews(reviews, data), vocabulary, data)


def cache_dir(data: DataConfig) -> Path:
    """The folder for cached tokens and downloads."""
    return Path(data.cache_dir).expanduser() if data.cache_dir else default_cache_dir()


def tokenize_reviews(reviews: Reviews, data: DataConfig) -> TokenizedTexts:
    """Tokenize reviews, or take their tokens from the cache."""
    return tokenize_cached(
        reviews.texts,
        cache_dir(data),
        lower_case=data.lower_case,
        language=data.language,
        num_processes=data.num_processes,
        progress=True,
    )


def encode_tokens(
    reviews: Reviews, tokenized: TokenizedTexts, vocabulary: Vocab, data: DataConfig
) -> EncodedCorpus:
    """Encode the tokens of reviews, truncated as the settings say."""
    ids = number_lexicon(vocabulary, tokenized.lexicon)
    return encode(tokenized, ids, reviews.labels, max_length=data.max_length, keep=data.keep)


def _encode_to_learn(
    reviews: Reviews, tokenized: TokenizedTexts, vocabulary: Vocab, config: Config
) -> EncodedCorpus:
    """Encode reviews to train on, and excerpts of them if the settings ask for any."""
    corpus = encode_tokens(reviews, tokenized, vocabulary, config.data)
    per_review, longest = config.training.pieces, config.data.max_length
    if per_review == 0:
        return corpus
    corpus = add_excerpts(
        corpus, tokenized, per_review=per_review, max_length=longest, seed=config.seed
    )
    counts = (f"{len(corpus) - len(reviews):,}", f"{len(reviews):,}")
    logger.info("excerpts: %s from %s reviews", *counts)
    return corpus


def _add_contrasts(
    corpus: EncodedCorpus, tokenized: TokenizedTexts, vocabulary: Vocab, config: Config
) -> EncodedCorpus:
    """Add contrast texts to the labelled reviews if the settings ask for any."""
    per_review, num_rows = config.training.contrasts, len(corpus)
    if per_review == 0:
        return corpus
    corpus = add_contrasts(
        corpus, tokenized, vocabulary, per_review=per_review, max_length=config.data.max_length,
        seed=config.seed,
    )  # fmt: skip
    num_texts, num_wanted = len(corpus) - num_rows, len(tokenized) * per_review
    logger.info("contrast texts: %s", f"{num_texts:,}")
    if num_texts < num_wanted / 2:
        logger.warning(
            "training.contrasts %s asks for %s contrast texts, but too few clauses of the reviews "
            "have a word that is far more frequent in one class",
            per_review, f"{num_wanted:,}",
        )  # fmt: skip
    return corpus


def _load_vectors(
    config: Config, vocabulary: Vocab
) -> tuple[torch.Tensor | None, Coverage | None, dict[str, Any] | None]:
    """The initial embedding, its coverage and the fingerprint of its file; None without vectors."""
    path = vectors_path(config.vectors, cache_dir(config.data))
    if path is None:
        return None, None, None
    vectors, coverage = load_vectors(
        path,
        vocabulary.itos,
        token_counts(vocabulary),
        dimension=config.model.embedding_size,
        generator=torch.Generator().manual_seed(config.seed),
    )
    logger.info("%s", coverage.summary())
    warn_of_coverage(config, coverage)
    return vectors, coverage, file_fingerprint(path)


def vectors_path(vectors: VectorsConfig, cache: Path, *, downloads: bool = True) -> Path | None:
    """The vectors file that the settings name; None without vectors.

    A file that is not in the cache yet is downloaded; without ``downloads``, the result is None.
    """
    if vectors.path is not None:
        return Path(vectors.path).expanduser()
    if vectors.name is None:
        return None
    return fetch_vectors(vectors.name, cache) if downloads else cached_vectors(vectors.name, cache)


@dataclass(frozen=True)
class PretrainingTexts:
    """The data of a pre-training."""

    corpora: tuple[EncodedCorpus, ...]  # the training reviews, and unlabelled ones if there are any
    validation: EncodedCorpus  # of the later training, to measure perplexity on
    vocabulary: Vocab  # counted over all corpora
    vectors: torch.Tensor | None  # (vocabulary, embedding_size) initial embedding
    class_names: tuple[str, ...]
    fingerprints: dict[str, Any]  # of the reviews, by split
    vectors_fingerprint: dict[str, Any] | None = None


def load_pretraining(config: Config) -> dict[str, Reviews]:
    """Read ``validation``, ``train`` and, if it exists and is not switched off, ``unsupervised``.

    Errors are those of :func:`sentiment.data.reviews.load_split`.
    """
    data = config.data
    train, validation = load_training_splits(data)
    splits = {"validation": validation, "train": train}
    if not config.pretraining.unlabelled:
        return splits
    try:
        splits["unsupervised"] = load_unlabelled(data, train, validation)
    except FileNotFoundError as error:
        if is_imdb(data):  # it has such a split, which could not be fetched
            raise
        logger.info("pre-training on the training reviews alone: %s", error)
    return splits


def fingerprints_of(splits: dict[str, Reviews]) -> dict[str, Any]:
    """The fingerprint of each split's reviews."""
    return {name: reviews_fingerprint(reviews) for name, reviews in splits.items()}


def prepare_pretraining(
    config: Config, *, vocabulary: Vocab | None = None, reviews: dict[str, Reviews] | None = None
) -> PretrainingTexts:
    """Tokenize and encode ``reviews``; None reads and splits them with :func:`load_pretraining`.

    A resumed pre-training passes its ``vocabulary``, and needs no vectors.
    """
    splits = dict(load_pretraining(config) if reviews is None else reviews)
    fingerprints = fingerprints_of(splits)
    validation, train = splits.pop("validation"), splits["train"]
    tokens = {name: tokenize_reviews(split, config.data) for name, split in splits.items()}
    vectors = vectors_fingerprint = None
    if vocabulary is None:
        vocabulary = choose_vocabulary(config, [(splits[name], tokens[name]) for name in splits])
        warn_of_unspaced(train.texts, config.data.language)
        vectors, _, vectors_fingerprint = _load_vectors(config, vocabulary)
    data = replace(config.data, max_length=config.pretraining.max_length, keep="head")
    corpora = [encode_tokens(splits[name], tokens[name], vocabulary, data) for name in splits]
    logger.info(
        "reviews to pre-train on: %s, %s tokens; vocabulary: %s words",
        f"{sum(map(len, corpora)):,}",
        f"{sum(int(corpus.lengths.sum()) for corpus in corpora):,}",
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
