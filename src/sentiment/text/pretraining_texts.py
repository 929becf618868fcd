"""What a language model learns from: training and unlabelled reviews without the held-out ones.

Copies of test reviews are left out too where ``data.shared_reviews`` is drop.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Any

import torch
from torchtext.vocab import Vocab

from sentiment.config import Config
from sentiment.text.batches import EncodedCorpus
from sentiment.text.fingerprints import file_fingerprint, reviews_fingerprint
from sentiment.text.pipeline import (
    cache_dir,
    choose_vocabulary,
    encode_reviews,
    encode_tokens,
    load_own_vectors,
    tokenize_reviews,
    vectors_path,
)
from sentiment.text.review_sources import is_on_hub
from sentiment.text.reviews import Reviews, load_training_splits
from sentiment.text.unlabelled import load_unlabelled

logger = logging.getLogger(__name__)


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
        ValueError: a file is not as it must be.
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
