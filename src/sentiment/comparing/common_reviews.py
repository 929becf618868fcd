"""Reviews that several runs can be compared on.

A run that was trained on a review knows its class. So reviews are compared on that none of the runs
was trained on: where that is not certain, a run is refused, or the reviews it knows are counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from sentiment.comparing.classifiers import Classifier
from sentiment.config import DataConfig
from sentiment.text.holdout import copy_key
from sentiment.text.review_sources import has_validation, is_same_source, source_name
from sentiment.text.reviews import Reviews, Split, load_split

# A share of copies beyond it is no coincidence.
_MOST_TRAINED_ON = 0.1


def load_common_reviews(
    runs: Sequence[Classifier], split: Split, path: str | None = None
) -> tuple[Reviews, list[str]]:
    """The reviews to compare on, and what is to be said of them.

    Args:
        runs: the runs, which have the same classes.
        split: which reviews, by the first run's settings.
        path: where they are instead of where those settings say, ``data.path``.

    Returns:
        The reviews, and remarks of a sentence or two each.

    Raises:
        FileNotFoundError: the reviews are not there.
        ValueError: a run was, or may have been, trained on reviews that others were not.
    """
    first = runs[0]
    data = first.config.data if path is None else replace(first.config.data, path=path)
    if path is None and split in ("train", "validation"):
        for run in runs[1:]:
            _check_same_holdout(run, first)
    reviews = load_split(data, split, first.class_names)
    remarks = []
    if split == "train":
        remarks.append("How well runs fit reviews they were trained on says little of others.")
    else:
        remarks += _remarks_on_training(runs, reviews, data, split)
    if split == "validation" and any(is_same_source(run.config.data, data) for run in runs):
        remarks.append(
            "Runs choose their best weights by these reviews, which flatters them a little."
        )
    return reviews, remarks


def _check_same_holdout(run: Classifier, first: Classifier) -> None:
    data, other = run.config.data, first.config.data
    values: list[tuple[str, object, object]] = []
    if not is_same_source(data, other):
        values.append(("data.path", source_name(data), source_name(other)))
    if not has_validation(other):
        own, others = data.hold_out_settings(), other.hold_out_settings()
        values += [(key, own.get(key), others.get(key)) for key in {**own, **others}]
    for key, found, expected in values:
        if found != expected:
            raise ValueError(
                f"{key} of {run.path} is {found}, but of {first.path} {expected}: not the same "
                "reviews were held out, so one may have been trained on what the other has not "
                "seen: compare on reviews that none was trained on, by --split test or "
                "--data.path FOLDER"
            )


def _remarks_on_training(
    runs: Sequence[Classifier], reviews: Reviews, data: DataConfig, split: Split
) -> list[str]:
    """Count the reviews that runs were trained on, where it is not certain that there are none."""
    keys = [copy_key(text) for text in reviews.texts]
    shares: dict[DataConfig, float | None] = {}  # None: unknown
    remarks = []
    for run in runs:
        own = run.config.data
        if _is_apart(own, data, split):
            continue
        if own not in shares:
            shares[own] = _share_trained_on(own, run.class_names, keys)
        share = shares[own]
        if share is None:
            remarks.append(
                f"{run.path} was trained on {source_name(own)}, which can't be read: "
                "whether it knows some of these reviews is not known."
            )
        elif share > _MOST_TRAINED_ON:
            raise ValueError(
                f"{run.path} was trained on {share:.0%} of these reviews, or on copies of them: "
                "compare on reviews that none was trained on, by --split or --data.path FOLDER"
            )
        elif share > 0:
            remarks.append(
                f"{run.path} was trained on {share:.1%} of these reviews, or on copies of them."
            )
    return remarks


def _is_apart(own: DataConfig, data: DataConfig, split: Split) -> bool:
    """Whether the data's own splits keep a run's training reviews and these apart."""
    if not is_same_source(own, data):
        return False
    is_same = own.hold_out_settings() == data.hold_out_settings()
    return split == "test" or has_validation(data) or is_same


def _share_trained_on(
    own: DataConfig, class_names: tuple[str, ...], keys: Sequence[bytes]
) -> float | None:
    try:
        train = load_split(own, "train", class_names)
    except (OSError, ValueError):
        return None
    known = set(map(copy_key, train.texts))
    return float(np.mean([key in known for key in keys]))
