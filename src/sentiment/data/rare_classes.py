"""Warnings before a training whose classes are rare or unequal."""

from __future__ import annotations

import logging
import math
import shlex

import numpy as np

from sentiment.config.config import Config
from sentiment.data.reviews import Reviews
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
