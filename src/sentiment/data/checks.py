"""Warnings at the start of a training: rare classes, and text that vocabulary or vectors lack."""

from __future__ import annotations

import logging
import math
import re
import shlex
from collections import Counter
from collections.abc import Collection, Sequence

import numpy as np
from torchtext.vocab import Vocab

from sentiment.config.config import Config, VocabularyConfig
from sentiment.data.reviews import Reviews
from sentiment.data.tokenizer import TokenizedTexts
from sentiment.data.vectors import Coverage
from sentiment.data.vocabulary import SPECIALS, count_tokens
from sentiment.display.console import sanitize, truncate

logger = logging.getLogger(__name__)

FEWEST_OF_CLASS = 10  # with fewer reviews, a class's recall moves by a tenth with each of them
_FREQUENT_SHARE = 0.8


def warn_of_rare_classes(
    config: Config, train: Reviews, validation: Reviews, *, is_held_out: bool
) -> None:
    """Warn of classes with few validation reviews, and if F1 is about the frequent one of two."""
    names = train.class_names
    train_counts, counts = (
        np.bincount(reviews.labels, minlength=len(names)) for reviews in (train, validation)
    )
    if few := few_reviews(names, counts.tolist()):
        rarest = int((train_counts + counts)[counts < FEWEST_OF_CLASS].min())
        share = math.ceil(100 * FEWEST_OF_CLASS / max(rarest, 1)) / 100
        advice = "give more such reviews"
        if is_held_out and config.data.num_folds is None and share <= 0.5:
            advice = (
                f"hold out more with --data.validation_share {share:g}, or measure on all training "
                "reviews with sentiment cross-validate"
            )
        logger.warning("validation has %s, so its figures are imprecise: %s", few, advice)
    positive = config.training.positive_index(names)
    share = float(train_counts[1] / train_counts.sum()) if positive == 1 and len(names) == 2 else 0
    if share >= _FREQUENT_SHARE and config.training.positive_class is None:
        logger.warning(
            "F1, average precision and thresholds are about %s, %.0f %% of the training reviews: "
            "name the rare class with --training.positive_class %s",
            truncate(names[1], 30), 100 * share, shlex.quote(sanitize(names[0])),
        )  # fmt: skip


def few_reviews(class_names: tuple[str, ...], counts: list[int]) -> str:
    """The classes with fewer than ten of ``counts`` in words, or an empty text."""
    few = [
        (count, truncate(name, 30))
        for name, count in zip(class_names, counts, strict=True)
        if count < FEWEST_OF_CLASS
    ]
    listed = ", ".join(f"{name} ({count})" for count, name in sorted(few)[:5])
    more = f" and {len(few) - 5} more classes" if len(few) > 5 else ""
    return f"fewer than ten reviews of {listed}{more}" if few else ""


_MAX_UNKNOWN = 0.2  # share of the tokens
_MIN_WORDS = 100
_MIN_COVERED = 0.5  # share of the tokens
_NUM_SAMPLED = 1_000  # texts that suffice to judge
# Letters of Thai, Lao, Burmese, Khmer, Japanese and Chinese.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff]"
)
_LONGEST_WORD = 5  # mean over pieces between white space; texts cut into words have about 2


def warn_of_unspaced(texts: Sequence[str], language: str) -> bool:
    """Warn of text without white space between words in a language that is split there."""
    if language in ("ja", "th", "zh"):
        return False
    pieces = " ".join(texts[:_NUM_SAMPLED]).split()
    unspaced = [count for piece in pieces if (count := len(_UNSPACED.findall(piece)))]
    num_letters = sum(sum(map(str.isalpha, piece)) for piece in pieces)
    if 2 * sum(unspaced) <= num_letters or sum(unspaced) <= _LONGEST_WORD * len(unspaced):
        return False
    logger.warning(
        "the reviews have no white space between words, like Chinese, Japanese or Thai, but "
        "data.language %s splits at it: set --data.language zh to read each character",
        language,
    )
    return True


def warn_of_vocabulary(
    vocabulary: Vocab,
    settings: VocabularyConfig,
    train_tokens: TokenizedTexts,
    validation_tokens: TokenizedTexts,
) -> None:
    """Warn of a tiny vocabulary and of many unknown tokens."""
    train, validation = count_tokens(train_tokens), count_tokens(validation_tokens)
    known, num_words = set(vocabulary.itos), len(vocabulary) - len(SPECIALS)
    unlimited = {"min_frequency": 1, "min_groups": 1, "min_spread": 0, "max_size": None}
    options = (
        f"--vocabulary.{name} {'null' if value is None else value}"
        for name, value in unlimited.items()
        if getattr(settings, name) != value
    )
    remove_limits = f"set {' '.join(options)}"
    if num_words < _MIN_WORDS:
        mend = remove_limits
        if len(train) < _MIN_WORDS:
            mend = f"the training reviews hold {len(train)} different ones, so give more reviews"
        logger.warning("the vocabulary has only %d words: %s", num_words, mend)
    shares = [_share_outside(counts, known) for counts in (train, validation)]
    if max(shares) > _MAX_UNKNOWN:
        mend, new = remove_limits, _share_outside(validation, train)
        if new > _MAX_UNKNOWN:
            mend = f"{new:.0%} of the latter are in no training review, so give more of these"
        logger.warning(
            "unknown: %.0f %% of the training and %.0f %% of the validation tokens: %s",
            *(100 * share for share in shares),
            mend,
        )


def _share_outside(counts: Counter[str], words: Collection[str]) -> float:
    """The share of tokens that are not among the words."""
    outside = sum(count for word, count in counts.items() if word not in words)
    return outside / max(1, counts.total())


def warn_of_coverage(config: Config, coverage: Coverage) -> None:
    """Warn of vectors that fewer than half of the tokens have."""
    if coverage.token_share >= _MIN_COVERED:
        return
    logger.warning(
        "only %.0f %% of the training tokens have a vector: give vectors of the language and the "
        "kind of the reviews with --vectors.path; or, if its words are in another case, set "
        "--data.lower_case %s",
        100 * coverage.token_share,
        str(not config.data.lower_case).lower(),
    )
