"""Warnings at the start of a training: text that the vocabulary or the vectors hardly cover."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torchtext.vocab import Vocab

from sentiment.config.config import Config, VocabularyConfig
from sentiment.data.tokenizer import tokenize
from sentiment.data.vectors import Coverage, load_vectors
from sentiment.data.vocabulary import SPECIALS, build_vocabulary, count_tokens, token_counts
from sentiment.runtime.errors import UserError

logger = logging.getLogger(__name__)

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
        "the reviews have no white space between words, as Chinese, Japanese or Thai, but "
        "data.language %s splits there: set --data.language zh to read each character",
        language,
    )
    return True


def warn_of_vocabulary(
    vocabulary: Vocab,
    settings: VocabularyConfig,
    build: Callable[[VocabularyConfig], Vocab],
    train: Counter[str],
    validation: Counter[str],
) -> None:
    """Warn of a tiny vocabulary and of many unknown tokens.

    ``build`` makes the vocabulary of other settings, to see which help; the counters are of the
    tokens of each split.
    """

    def unknown_shares(vocabulary: Vocab) -> list[float]:
        known = set(vocabulary.itos)
        return [
            sum(count for word, count in counts.items() if word not in known)
            / max(1, counts.total())
            for counts in (train, validation)
        ]

    def is_large(vocabulary: Vocab) -> bool:
        return len(vocabulary) - len(SPECIALS) >= _MIN_WORDS

    def is_known(vocabulary: Vocab) -> bool:
        return max(unknown_shares(vocabulary)) <= _MAX_UNKNOWN

    if not is_large(vocabulary):
        mend = _find_mend(settings, lambda other: is_large(build(other)))
        logger.warning(
            "the vocabulary has only %d words: %s",
            len(vocabulary) - len(SPECIALS),
            mend or f"the training reviews hold {len(train)} different ones, so give more reviews",
        )
    if not is_known(vocabulary):
        mend = _find_mend(settings, lambda other: is_known(build(other)))
        new = sum(count for word, count in validation.items() if word not in train)
        share = new / max(1, validation.total())
        logger.warning(
            "unknown: %.0f %% of the training and %.0f %% of the validation tokens: %s",
            *(100 * share for share in unknown_shares(vocabulary)),
            mend or f"{share:.0%} of the latter are in no training review, so give more of these",
        )


def _find_mend(settings: VocabularyConfig, helps: Callable[[VocabularyConfig], bool]) -> str | None:
    """What to set, the limit or all limits of the vocabulary whose removal helps."""
    unlimited: dict[str, Any] = {"min_frequency": 1, "min_groups": 1, "max_size": None}
    limits = {name: value for name, value in unlimited.items() if getattr(settings, name) != value}
    for changes in [*({name: value} for name, value in limits.items()), limits]:
        if changes and helps(replace(settings, **changes)):
            options = (f"--vocabulary.{name} {value or 'null'}" for name, value in changes.items())
            return f"set {' '.join(options)}"
    return None


def warn_of_coverage(config: Config, path: Path, coverage: Coverage, texts: Sequence[str]) -> None:
    """Warn of vectors that fewer than half of the tokens have; their case may be the reason."""
    if coverage.token_share >= _MIN_COVERED:
        return
    mend = "give vectors of the language and the kind of the reviews with --vectors.path"
    if coverage.tokens_in_other_case > coverage.tokens_found:
        flipped = f"--data.lower_case {str(not config.data.lower_case).lower()}"
        share = _flipped_coverage(config, path, texts)
        mend = f"the file has words in another case, set {flipped}"
        if share < _MIN_COVERED:
            mend = (
                f"the file has words in another case ({flipped} would cover {share:.0%}), set "
                "--data.lower_case true and lower-case the file (tr A-Z a-z < FILE > NEW)"
            )
    covered = 100 * coverage.token_share
    logger.warning("only %.0f %% of the training tokens have a vector: %s", covered, mend)


def _flipped_coverage(config: Config, path: Path, texts: Sequence[str]) -> float:
    """The share of tokens with a vector if data.lower_case were the opposite, of some texts."""
    data = config.data
    counts = count_tokens(
        tokenize(texts[:_NUM_SAMPLED], lower_case=not data.lower_case, language=data.language)
    )
    vocabulary = build_vocabulary(counts)
    try:
        _, coverage = load_vectors(
            path,
            vocabulary.itos,
            token_counts(vocabulary),
            dimension=config.model.embedding_size,
            generator=torch.Generator(),
        )
    except UserError:  # it holds none of them
        return 0.0
    return coverage.token_share
