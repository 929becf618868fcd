"""What a language model learns from: all reviews but those to be measured on."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import torch
from torchtext.vocab import Vocab

from sentiment.config import Config
from sentiment.text.batches import EncodedCorpus
from sentiment.text.fingerprints import reviews_fingerprint
from sentiment.text.pipeline import (
    cache_dir,
    choose_vocabulary,
    encode_reviews,
    encode_tokens,
    load_own_vectors,
    tokenize_reviews,
    vectors_path,
)
from sentiment.text.reviews import load_training_splits
from sentiment.text.unlabelled import load_unlabelled
from sentiment.text.vocabulary import count_tokens

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
    """

    corpora: tuple[EncodedCorpus, ...]
    validation: EncodedCorpus
    vocabulary: Vocab
    vectors: torch.Tensor | None
    class_names: tuple[str, ...]
    fingerprints: dict[str, Any]


def prepare_pretraining(config: Config, *, vocabulary: Vocab | None = None) -> PretrainingTexts:
    """Read, split, tokenize and number.

    Args:
        config: the settings.
        vocabulary: that of a pre-training which is resumed, for which no vectors are read; None
            counts one.
    """
    train, validation = load_training_splits(config.data)
    splits = {"train": train}
    try:
        splits["unsupervised"] = load_unlabelled(config.data, validation)
    except FileNotFoundError as error:
        logger.info("pre-training on the training reviews alone: %s", error)
    tokens = {name: tokenize_reviews(reviews, config.data) for name, reviews in splits.items()}
    vectors = None
    if vocabulary is None:
        counts = sum((count_tokens(each) for each in tokens.values()), start=Counter())
        vocabulary = choose_vocabulary(config, counts, train.origin)
        if (path := vectors_path(config.vectors, cache_dir(config.data))) is not None:
            vectors, _ = load_own_vectors(config, vocabulary, path)
    data = replace(config.data, max_length=config.pretraining.max_length, keep="head")
    corpora = [
        encode_tokens(reviews, tokens[name], vocabulary, data) for name, reviews in splits.items()
    ]
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
        fingerprints={
            "validation": reviews_fingerprint(validation),
            **{name: reviews_fingerprint(reviews) for name, reviews in splits.items()},
        },
    )
