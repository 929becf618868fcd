"""Warnings at the start of a training: text that the vocabulary or the vectors hardly cover."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Collection, Sequence

from torchtext.vocab import Vocab

from sentiment.config.config import Config, VocabularyConfig
from sentiment.data.tokenizer import TokenizedTexts
from sentiment.data.vectors import Coverage
from sentiment.data.vocabulary import SPECIALS, count_tokens

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
    unlimited = {"min_frequency": 1, "min_groups": 1, "max_size": None}
    options = (
        f"--vocabulary.{name} {value or 'null'}"
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
