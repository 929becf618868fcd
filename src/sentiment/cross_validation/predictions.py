"""Every training review by the model that had not seen it."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from sentiment.cross_validation.folds import Fold
from sentiment.description import read_description
from sentiment.evaluation.evaluate import Predictions, predict_corpus
from sentiment.runs import load_run
from sentiment.text.fingerprints import reviews_fingerprint
from sentiment.text.holdout import copy_key
from sentiment.text.pipeline import prepare_split

_FILE = "predictions.csv"


@dataclass(frozen=True, eq=False)  # == of arrays is an array
class OutOfFold:
    """Out-of-fold predictions, in the order of repeats and of rows.

    Attributes:
        class_names: of the labels.
        repeats, folds: (num,) int64, of each prediction, from 1.
        rows: (num,) int64, the review's row in the training split, from 0.
        keys: (num,) a digest of each review, by which it is known again.
        predictions: probabilities as the models give them, at temperature 1.
    """

    class_names: tuple[str, ...]
    repeats: np.ndarray
    folds: np.ndarray
    rows: np.ndarray
    keys: np.ndarray
    predictions: Predictions

    @property
    def is_right(self) -> np.ndarray:
        """(num,) bool."""
        return self.predictions.predicted == self.predictions.labels

    @property
    def num_repeats(self) -> int:
        return int(self.repeats.max())

    def by_fold(self) -> Iterator[tuple[int, int, Predictions]]:
        """The predictions of each fold, with the numbers of repeat and fold."""
        for repeat in range(1, self.num_repeats + 1):
            of_repeat = self.repeats == repeat
            for fold in np.unique(self.folds[of_repeat]).tolist():
                own = of_repeat & (self.folds == fold)
                log_probabilities = self.predictions.log_probabilities[own]
                yield repeat, fold, Predictions(log_probabilities, self.predictions.labels[own])

    def share_right(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows (num_reviews,), and the share of repeats that have each right (num_reviews,)."""
        rows, place = np.unique(self.rows, return_inverse=True)
        return rows, np.bincount(place, self.is_right) / np.bincount(place)


def collect(folds: Sequence[Fold], device: torch.device) -> OutOfFold:
    """Have each fold's model predict the reviews that it was not trained on.

    Raises:
        FileNotFoundError, ValueError: a run, or the reviews, cannot be read, or they are not those
            that a fold's training held out.
    """
    parts: list[tuple[np.ndarray, ...]] = []
    class_names: tuple[str, ...] = ()
    for fold in folds:
        run = load_run(fold.run)
        class_names = run.class_names
        reviews, corpus = prepare_split(
            run.config.data, "validation", run.vocabulary, run.class_names
        )
        held_out = read_description(fold.run)["data"]["validation"]
        if reviews_fingerprint(reviews) != held_out:
            raise ValueError(
                f"the reviews that {fold.run} held out are others now: train its folds again in "
                "another --output_dir"
            )
        found = predict_corpus(run.model.to(device), corpus, device=device, description=fold.name)
        assert reviews.rows is not None
        numbers = (np.full(len(reviews), each) for each in (fold.repeat, fold.number))
        keys = np.array([copy_key(text).hex()[:16] for text in reviews.texts])
        parts.append((*numbers, reviews.rows, keys, found.log_probabilities, found.labels))
    repeats, numbers_, rows, keys, log_probabilities, labels = map(
        np.concatenate, zip(*parts, strict=True)
    )
    order = np.lexsort((rows, repeats))
    return OutOfFold(
        class_names, repeats[order], numbers_[order], rows[order], keys[order],
        Predictions(log_probabilities[order], labels[order]),
    )  # fmt: skip


def write_predictions(folder: Path, found: OutOfFold) -> None:
    """Write a row for each prediction as CSV, in one step."""
    path = folder / _FILE
    new = path.with_name(path.name + ".new")
    names = found.class_names
    with new.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        columns = [f"probability_{name}" for name in names]
        writer.writerow(["repeat", "fold", "row", "review", "label", "predicted", *columns])
        labels, predicted = found.predictions.labels, found.predictions.predicted
        for place, probabilities in enumerate(found.predictions.probabilities.tolist()):
            numbers = (found.repeats[place], found.folds[place], found.rows[place])
            classes = names[labels[place]], names[predicted[place]]
            # All digits: what is read again is compared, and a tie must stay one.
            writer.writerow(
                [
                    *numbers,
                    found.keys[place],
                    *classes,
                    *(f"{value:.17g}" for value in probabilities),
                ]
            )
    os.replace(new, path)


def read_predictions(folder: Path) -> OutOfFold:
    """Read what :func:`write_predictions` wrote.

    Raises:
        FileNotFoundError: the cross-validation is not finished.
        ValueError: the file is damaged.
    """
    path = folder / _FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} has no {_FILE}: its folds are not all trained; sentiment cross-validate "
            "goes on with them"
        )
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file, strict=True)
        names = tuple(each.removeprefix("probability_") for each in header[6:])
        number = {name: place for place, name in enumerate(names)}
        counts = np.array([[int(each) for each in row[:3]] for row in rows], dtype=np.int64)
        labels = np.array([number[row[4]] for row in rows], dtype=np.int64)
        probabilities = np.array([[float(each) for each in row[6:]] for row in rows])
        with np.errstate(divide="ignore"):
            log_probabilities = np.log(probabilities.reshape(len(rows), len(names)))
        if not rows or len(names) < 2 or not np.isfinite(probabilities).all():
            raise ValueError("no predictions")
    except (ValueError, LookupError, OverflowError, csv.Error) as error:
        raise ValueError(f"{path} is damaged: sentiment cross-validate writes it again") from error
    repeats, folds, places = counts.T
    keys = np.array([row[3] for row in rows])
    return OutOfFold(names, repeats, folds, places, keys, Predictions(log_probabilities, labels))
