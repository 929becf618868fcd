"""Reviews without labels to learn from, none of which is a copy of one to be measured on."""

from __future__ import annotations

import logging

import numpy as np

from sentiment.config import DataConfig
from sentiment.text.holdout import copy_key
from sentiment.text.reviews import Reviews, load_split
from sentiment.text.split_guard import read_test_keys

logger = logging.getLogger(__name__)


def load_unlabelled(data: DataConfig, validation: Reviews) -> Reviews:
    """Read the ``unsupervised`` split without the copies of validation reviews.

    Copies of test reviews are left out too where ``data.shared_reviews`` is drop, and counted where
    it is report.

    Args:
        data: where reviews come from.
        validation: the reviews that choices are made on.

    Raises:
        FileNotFoundError: the source has no such split, or cannot be reached.
        ValueError: a file is not as it must be, or nothing remains.
    """
    reviews = load_split(data, "unsupervised", validation.class_names)
    keys = [copy_key(text) for text in reviews.texts]
    stays = _stands_not_in([copy_key(text) for text in validation.texts], keys)
    _tell(int(np.count_nonzero(~stays)), "validation", are_left_out=True)
    if data.shared_reviews != "ignore":
        differs = _stands_not_in(read_test_keys(data), keys)
        are_dropped = data.shared_reviews == "drop"
        _tell(int(np.count_nonzero(stays & ~differs)), "test", are_left_out=are_dropped)
        if are_dropped:
            stays &= differs
    if not stays.any():
        raise ValueError(f"{reviews.origin}: no review remains that stands in no other split")
    return reviews.select(np.flatnonzero(stays))


def _stands_not_in(known: list[bytes], keys: list[bytes]) -> np.ndarray:
    """(num_keys,) bool: which keys are not among those known."""
    those = set(known)
    return np.array([key not in those for key in keys], dtype=bool)


def _tell(count: int, other: str, *, are_left_out: bool) -> None:
    if count:
        outcome = "left out" if are_left_out else "data.shared_reviews drop leaves them out"
        reviews = f"{count:,} unlabelled review{'s' * (count != 1)}"
        logger.info("%s repeat%s a %s review (%s)", reviews, "s" * (count == 1), other, outcome)
