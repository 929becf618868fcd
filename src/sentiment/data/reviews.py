"""Splits of reviews with numbered labels: training, validation, test and unlabelled."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sentiment.config.config import DataConfig
from sentiment.data.splits import (
    Overlaps,
    dedup_key,
    excluded_rows,
    find_overlaps,
    hold_out,
    is_in,
    log_overlaps,
    number_keys,
    read_exclusions,
    read_test_keys,
)
from sentiment.data.stretches import describe_stretches, number_stretches
from sentiment.display.console import did_you_mean
from sentiment.readers.blocks import join_texts
from sentiment.readers.labels import (
    LEFT_OUT,
    UNLABELLED,
    LabelRules,
    NumberedLabels,
    describe_classes,
    label_name,
    labels_option,
    number_labels,
)
from sentiment.readers.sources import (
    IMDB_CLASS_NAMES,
    Rows,
    Split,
    has_split,
    is_imdb,
    read_split,
    source_name,
)
from sentiment.runtime.errors import UserError
from sentiment.runtime.files import file_sha256

logger = logging.getLogger(__name__)

_MAX_LISTED = 20


@dataclass(frozen=True, eq=False)  # == of arrays is an array
class Reviews:
    """Reviews of one split."""

    texts: list[str]
    labels: np.ndarray  # (num_reviews,) int64, index into class_names; -1 in a split without labels
    class_names: tuple[str, ...]
    origin: str  # the file or data set that the reviews come from, for messages
    # (num_reviews,) int64, equal for reviews that stay together in a hold-out; None if every review
    # is a group.
    groups: np.ndarray | None = None
    # (num_reviews,) int64, index of each review in its split's files; None without files.
    rows: np.ndarray | None = None
    files: tuple[tuple[str, int], ...] = ()  # name and number of rows of the split's files
    unlabelled: tuple[str, ...] = ()  # further texts of the split, which have no label

    def __post_init__(self) -> None:
        assert self.labels.shape == (len(self.texts),)
        assert self.groups is None or self.groups.shape == self.labels.shape

    def __len__(self) -> int:
        return len(self.texts)

    def file_names(self) -> list[str]:
        """(num_reviews,) the name of each review's file."""
        names = [name for name, num_rows in self.files for _ in range(num_rows)]
        return [] if self.rows is None else [names[row] for row in self.rows.tolist()]

    def row_numbers(self) -> np.ndarray:
        """(num_reviews,) int64, the row of each review in its split's files, from 1."""
        return 1 + (np.arange(len(self)) if self.rows is None else self.rows)

    def select(self, indices: Sequence[int] | np.ndarray) -> Reviews:
        """The reviews at ``indices`` (num_selected,), in that order."""
        indices = np.asarray(indices, dtype=np.int64)
        return replace(
            self,
            texts=[self.texts[index] for index in indices.tolist()],
            labels=self.labels[indices],
            groups=None if self.groups is None else self.groups[indices],
            rows=None if self.rows is None else self.rows[indices],
        )


def load_split(
    data: DataConfig, split: Split, class_names: tuple[str, ...] | None = None
) -> Reviews:
    """Read one split; ``train`` excludes the reviews that are held out for validation.

    With ``data.shared_reviews`` drop, ``train`` and ``validation`` also exclude copies of reviews
    in later splits. ``class_names`` are the classes of a trained model; None takes those of
    ``data`` or, if it has none, those that the training labels name.

    Raises:
        FileNotFoundError: the source or the split is missing, or the hub cannot be reached.
        UserError: a file or a label is invalid.
    """
    class_names = class_names or _configured_class_names(data)
    if split in ("test", "unsupervised", "all"):
        return _read(data, split, class_names)
    drops_shared = data.shared_reviews == "drop"
    is_whole = not drops_shared and data.exclude is None
    if class_names is not None and is_whole and has_split(data, "validation"):
        return _read(data, split, class_names)
    train, validation = _split_training(data, class_names)
    if drops_shared:
        overlaps = find_overlaps(data, train.texts, validation.texts)
        train, validation = _drop_shared(overlaps, train, validation)
    return train if split == "train" else validation


def load_training_splits(
    data: DataConfig, class_names: tuple[str, ...] | None = None
) -> tuple[Reviews, Reviews]:
    """Read the training and validation reviews, and compare them with the test split.

    Without a validation split, some training reviews are held out. Reviews that occur in two splits
    are reported, dropped or ignored, as ``data.shared_reviews`` says. ``class_names`` are those of
    a run that is resumed. Raises as :func:`load_split`, and if one split contains another.
    """
    train, validation = _split_training(data, class_names or _configured_class_names(data))
    if data.shared_reviews == "ignore":
        return train, validation
    overlaps = find_overlaps(data, train.texts, validation.texts)
    log_overlaps(overlaps, dropped=data.shared_reviews == "drop")
    if data.shared_reviews == "drop":
        return _drop_shared(overlaps, train, validation)
    return train, validation


def _drop_shared(
    overlaps: Overlaps, train: Reviews, validation: Reviews
) -> tuple[Reviews, Reviews]:
    """Both splits without the reviews of which a later split holds a copy."""
    masks = {"train": np.ones(len(train), bool), "validation": np.ones(len(validation), bool)}
    for (split, _), is_shared in overlaps.items():
        masks[split] &= ~is_shared
    kept = train.select(np.flatnonzero(masks["train"]))
    _check_remaining("data.shared_reviews drop", "train", train, kept)
    return kept, validation.select(np.flatnonzero(masks["validation"]))


def load_labelled(data: DataConfig) -> dict[str, Reviews]:
    """Read the source's own splits with labels: train, whole, and validation if there is one.

    Rows that ``data.exclude`` lists are left out. Raises as :func:`load_split`.
    """
    splits = _read_labelled(data, _configured_class_names(data))
    excluded = _find_excluded(data, splits)
    return {split: _without(reviews, excluded[split]) for split, reviews in splits.items()}


def _read_labelled(data: DataConfig, class_names: tuple[str, ...] | None) -> dict[str, Reviews]:
    train = _read(data, "train", class_names)
    if not has_split(data, "validation"):
        return {"train": train}
    return {"train": train, "validation": _read(data, "validation", train.class_names)}


def _split_training(
    data: DataConfig, class_names: tuple[str, ...] | None
) -> tuple[Reviews, Reviews]:
    splits = _read_labelled(data, class_names)
    excluded = _find_excluded(data, splits)
    if "validation" not in splits:  # excluded rows take part in the hold-out, so that it stays
        train = splits["train"]
        masks = hold_out(
            train.texts, train.labels, data,
            class_names=train.class_names, origin=train.origin, groups=train.groups,
        )  # fmt: skip
        splits["train"], splits["validation"] = (train.select(np.flatnonzero(m)) for m in masks)
        excluded["validation"] = excluded["train"]
    kept = {split: _without(reviews, excluded[split]) for split, reviews in splits.items()}
    if data.exclude is not None:
        for split, reviews in kept.items():
            _check_remaining(data.exclude, split, splits[split], reviews)
        counts = [len(splits[split]) - len(reviews) for split, reviews in kept.items()]
        logger.info(
            "%s leaves out %d reviews for training, %d for validation", data.exclude, *counts
        )
    return kept["train"], kept["validation"]


def _find_excluded(data: DataConfig, splits: dict[str, Reviews]) -> dict[str, np.ndarray]:
    """(num_excluded,) rows of each split that ``data.exclude`` lists."""
    if data.exclude is None:
        return {split: np.empty(0, dtype=np.int64) for split in splits}
    path = Path(data.exclude).expanduser()
    listed = read_exclusions(path)
    if listed.get("validation") and "validation" not in splits:
        raise UserError(
            f"{path} lists rows of validation, but the reviews have no such split: delete these "
            "lines, or set data.exclude to null"
        )
    return {
        split: excluded_rows(path, split, listed[split], reviews.rows, reviews.texts)
        for split, reviews in splits.items()
    }


def _check_remaining(cause: str, split: str, before: Reviews, kept: Reviews) -> None:
    """Refuse to leave out all reviews but those of one class."""
    if len(set(kept.labels.tolist())) < 2:
        raise UserError(
            f"{cause} leaves {len(kept):,} of {len(before):,} reviews of {split}, not of the two "
            f"classes that training needs: leave fewer out, or add reviews to {before.origin}"
        )


def _without(reviews: Reviews, excluded: np.ndarray) -> Reviews:
    assert reviews.rows is not None
    return reviews.select(np.flatnonzero(~np.isin(reviews.rows, excluded)))


def _configured_class_names(data: DataConfig) -> tuple[str, ...] | None:
    return data.class_names or (IMDB_CLASS_NAMES if is_imdb(data) else None)


def _read(data: DataConfig, split: Split, class_names: tuple[str, ...] | None) -> Reviews:
    rows = read_split(data, split, data.group_column if split == "train" else None)
    numbers = _rows_with_text(data, rows)
    unlabelled: tuple[str, ...] = ()
    if split == "unsupervised":
        labels, class_names = np.full(len(numbers), UNLABELLED, dtype=np.int64), class_names or ()
    else:
        numbered = _number(data, rows, numbers, class_names)
        if split == "train":
            _check_listed(data, numbered)
        labels, class_names = numbered.labels, numbered.class_names
        _log_left_out(data, rows, numbered)
        unlabelled = tuple(str(rows.texts[row]) for row in numbers[labels == UNLABELLED])
        numbers, labels = numbers[labels >= 0], labels[labels >= 0]
        if len(labels) == 0:
            raise UserError(f"{rows.origin}: no review has a label of one of the classes")
    if split == "train" and labels.min() == labels.max():
        raise UserError(
            f"{rows.origin}: all {len(labels)} reviews are of class {class_names[labels[0]]!r}: "
            "training needs two classes"
        )
    texts = [str(rows.texts[row]) for row in numbers]
    if data.hold_out != "stretches":
        groups = _group(data, rows, numbers)
    elif split == "train":  # the one that is held out from
        groups = number_stretches(texts, labels, numbers, data.stretch_length)
    else:
        groups = numbers // data.stretch_length
    if rows.numbers is not None:
        numbers = np.array(rows.numbers, dtype=np.int64)[numbers]
    files = tuple(rows.files)
    return Reviews(texts, labels, class_names, rows.origin, groups, numbers, files, unlabelled)


def _rows_with_text(data: DataConfig, rows: Rows) -> np.ndarray:
    """(num_reviews,) the rows with a text; others are refused or left out by data.missing."""
    has_text = np.array([join_texts([text]) is not None for text in rows.texts], dtype=bool)
    numbers, num_missing = np.flatnonzero(has_text), int(np.count_nonzero(~has_text))
    if num_missing and (data.missing == "error" or len(numbers) == 0):
        found = f"no text in {num_missing:,} of {len(has_text):,} rows"
        place = rows.place(int(np.argmin(has_text)))
        mend = "fill them in, or leave them out with --data.missing skip"
        raise UserError(f"{place}: {found}: {mend if len(numbers) else 'give other reviews'}")
    if num_missing:
        found = f"{num_missing:,} row{'s' * (num_missing != 1)}"
        logger.info("%s: %s without a text left out", rows.origin, found)
    return numbers


def _number(
    data: DataConfig, rows: Rows, numbers: np.ndarray, class_names: tuple[str, ...] | None
) -> NumberedLabels:
    are_imdbs = data.source == "imdb" and class_names == IMDB_CLASS_NAMES
    rules = LabelRules(
        declared=rows.label_names or (),
        renames=data.labels or {},
        class_names=class_names,
        names_integers=data.class_names is not None or are_imdbs,
    )
    return number_labels(
        [rows.labels[row] for row in numbers],
        rules,
        place=lambda index: rows.place(int(numbers[index])),
        origin=rows.origin,
    )


def _check_listed(data: DataConfig, train: NumberedLabels) -> None:
    """Refuse labels that data.labels lists, but no review has: they are probably misspelled."""
    unused, found = train.unused, train.found
    if unused and has_split(data, "validation"):
        labels = {label_name(value) for value in read_split(data, "validation").labels}
        unused = [label for label in unused if label not in labels]
        found = [*found, *sorted(filter(None, labels.difference(found)))]
    if not unused:
        return
    listed = ", ".join(found[:_MAX_LISTED]) + (", …" if len(found) > _MAX_LISTED else "")
    hint = did_you_mean(unused[0], found)
    if unused[0] in ("True", "False"):
        hint = " (YAML reads yes, no, on and off as true and false: quote them)"
    raise UserError(
        f"data.labels lists {', '.join(unused)}, but the labels are {listed}{hint}: leave it out "
        "or correct it"
    )


def _log_left_out(data: DataConfig, rows: Rows, numbered: NumberedLabels) -> None:
    labels, renames = numbered.labels, data.labels or {}
    if count := int(np.count_nonzero(labels == UNLABELLED)):
        of_all = f"{rows.origin}: {count:,} of {len(labels):,} reviews without a label"
        taken = [name for name in numbered.unlabelled if name != "-1" or not rows.label_names]
        if taken:
            option = labels_option({**renames, taken[0]: "NAME"})
            logger.warning(
                "%s (%s counts as missing): left out; %s makes it a class",
                of_all, " or ".join(taken), option,
            )  # fmt: skip
        else:
            logger.info("%s: left out", of_all)
    if count := int(np.count_nonzero(labels == LEFT_OUT)):
        logger.info("%s: data.labels leaves out %s reviews", rows.origin, f"{count:,}")


def _group(data: DataConfig, rows: Rows, numbers: np.ndarray) -> np.ndarray | None:
    """(num_reviews,) the group of each review by its column; None if every review is a group."""
    if not rows.groups:
        return None
    groups = [rows.groups[row] for row in numbers]
    names = ["" if group is None else str(group).strip() for group in groups]
    if "" in names:
        place = rows.place(int(numbers[names.index("")]))
        raise UserError(
            f"{place}: no {data.group_column}, as in {names.count(''):,} of {len(names):,} rows: "
            "fill it in or delete the rows"
        )
    return number_keys(names)


def reviews_fingerprint(reviews: Reviews) -> dict[str, Any]:
    """Number of reviews, size of their texts in UTF-8, and a digest of texts and labels."""
    digest = hashlib.sha256(reviews.labels.astype("<i8").tobytes())
    num_bytes = 0
    for text in reviews.texts:
        data = text.encode("utf-8", "surrogatepass")
        num_bytes += len(data)
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return {"rows": len(reviews), "bytes": num_bytes, "sha256": digest.hexdigest()}


def file_fingerprint(path: Path) -> dict[str, Any]:
    """Name, size and SHA-256 of a file."""
    return {"name": path.name, "bytes": path.stat().st_size, "sha256": file_sha256(path)}


def load_unlabelled(data: DataConfig, train: Reviews, validation: Reviews) -> Reviews:
    """Read the ``unsupervised`` split, add unlabelled rows of train, drop copies of validation.

    Each unlabelled row of train is a group of its own. Copies of test reviews are dropped or
    reported too, as ``data.shared_reviews`` says. Raises as :func:`load_split`, and if no review
    remains.
    """
    texts: list[str] = []
    groups = np.empty(0, dtype=np.int64)
    try:
        split = load_split(data, "unsupervised")
    except FileNotFoundError:
        if not train.unlabelled:
            raise
    else:
        texts = split.texts
        groups = np.arange(len(texts)) if split.groups is None else split.groups
    own = groups.max(initial=-1) + 1 + np.arange(len(train.unlabelled))  # a group for each
    reviews = Reviews(
        texts=[*texts, *train.unlabelled],
        labels=np.full(len(texts) + len(own), UNLABELLED, dtype=np.int64),
        class_names=train.class_names,
        origin=f"{source_name(data)}, without labels",
        groups=np.concatenate([groups, own]),
    )
    keys = [dedup_key(text) for text in reviews.texts]
    kept = ~is_in(keys, [dedup_key(text) for text in validation.texts])
    _log_copies(int(np.count_nonzero(~kept)), "validation", dropped=True)
    if data.shared_reviews != "ignore":
        is_in_test = is_in(keys, read_test_keys(data))
        dropped = data.shared_reviews == "drop"
        _log_copies(int(np.count_nonzero(kept & is_in_test)), "test", dropped=dropped)
        if dropped:
            kept &= ~is_in_test
    if not kept.any():
        raise UserError(f"{reviews.origin}: every review has a copy in another split")
    return reviews.select(np.flatnonzero(kept))


def log_classes(train: Reviews) -> None:
    """Log the classes with their numbers of training reviews."""
    logger.info("classes: %s", describe_classes(train.labels, train.class_names))


def log_stretches(train: Reviews, validation: Reviews, length: int) -> None:
    """Log whether stretches of a file that is sorted by class have the reviews of all classes."""
    arrays = [(each.labels, each.rows, each.groups) for each in (train, validation)]
    labels, rows, groups = map(np.concatenate, zip(*arrays, strict=True))
    if (description := describe_stretches(labels, rows, groups, length)) is not None:
        logger.info("sorted by class: %s", description)


def _log_copies(count: int, other: str, *, dropped: bool) -> None:
    if count:
        outcome = "left out" if dropped else "data.shared_reviews drop leaves them out"
        reviews = f"{count:,} unlabelled review{'s' * (count != 1)}"
        logger.info("%s repeat%s a %s review (%s)", reviews, "s" * (count == 1), other, outcome)
