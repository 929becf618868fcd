"""Cross-validation: folds, their trainings, out-of-fold predictions."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sentiment.config.config import Config, deciding_settings
from sentiment.config.parser import save_config
from sentiment.data.pipeline import prepare_split
from sentiment.data.reviews import reviews_fingerprint
from sentiment.data.splits import dedup_key
from sentiment.evaluation.evaluate import Predictions, predict_corpus
from sentiment.runs.manifest import read_manifest
from sentiment.runs.run import is_finished, load_run
from sentiment.runtime.errors import UserError
from sentiment.runtime.files import LOCK, atomic_write
from sentiment.tuning.trainings import (
    SignalForwarder,
    check_unchanged,
    read_epochs,
    run_training,
    try_claim,
    write_or_read_definition,
)

_DEFINITION = "cross_validation.json"
_TABLE = "predictions.csv"


@dataclass(frozen=True)
class Fold:
    """One training.

    Attributes:
        repeat: the division into folds, from 1.
        number: the fold that is held out, from 1.
        config: the settings of the training.
    """

    repeat: int
    number: int
    config: Config

    @property
    def name(self) -> str:
        return _fold_name(self.repeat, self.number)

    @property
    def run(self) -> Path:
        """The run's folder."""
        return Path(self.config.output_dir)

    @property
    def is_trained(self) -> bool:
        return (self.run / "run.json").is_file() and is_finished(self.run)


def plan_folds(config: Config, folder: Path, num_folds: int, num_repeats: int) -> list[Fold]:
    """All trainings, each holding out one fold; each repeat divides by the next seed."""
    folds = []
    for repeat in range(1, num_repeats + 1):
        for number in range(1, num_folds + 1):
            data = replace(
                config.data, num_folds=num_folds, fold=number,
                validation_seed=config.data.validation_seed + repeat - 1,
            )  # fmt: skip
            output_dir = str(folder / "folds" / _fold_name(repeat, number))
            folds.append(Fold(repeat, number, replace(config, data=data, output_dir=output_dir)))
    return folds


def _fold_name(repeat: int, number: int) -> str:
    return f"repeat{repeat}-fold{number}"


def is_cross_validation(folder: Path) -> bool:
    """Whether a folder holds a cross-validation."""
    return (folder / _DEFINITION).is_file()


def check_definition(
    folder: Path, config: Config, num_folds: int, reviews: Iterable[dict[str, Any]]
) -> None:
    """Write a new folder's settings, or compare with those it was started with.

    Args:
        folder: the cross-validation's folder, locked.
        config: the settings.
        num_folds: number of folds.
        reviews: fingerprints of the reviews that the first fold trains and validates on.

    Raises:
        FileExistsError: the folder holds something else.
        UserError: it was started with other settings, folds or reviews, or its file is damaged.
    """
    settings = deciding_settings(config)
    now = {"num_folds": num_folds, "settings": settings, "reviews": list(reviews)}
    before = write_or_read_definition(
        folder / _DEFINITION, now, kind="cross-validation", allowed=(LOCK,)
    )
    check_unchanged(
        folder,
        {"--folds": before.get("num_folds"), **before["settings"]},
        {"--folds": num_folds, **settings},
    )
    if before.get("reviews") != now["reviews"]:
        raise UserError(
            f"{folder} was started with other reviews, or with another division into folds: "
            "choose another --output_dir"
        )


def train_folds(folder: Path, folds: Sequence[Fold], announce: Callable[[str], None]) -> int:
    """Train the folds that are not finished and that no other process trains.

    Args:
        folder: the cross-validation's folder.
        folds: all folds.
        announce: called with a line to print.

    Returns:
        the number of the signal that stopped the training, 0 if none did.

    Raises:
        UserError: a training failed.
    """
    for name in ("folds", "work"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    with SignalForwarder() as forwarder:
        for fold in folds:
            if forwarder.signal:
                break
            if fold.is_trained:
                continue
            claim = try_claim(folder / "work" / f"{fold.name}.claim", fold.run)
            if claim is None:
                announce(f"{fold.name}: another process trains it")
                continue
            try:
                if not fold.is_trained:  # another process may have finished it meanwhile
                    announce(f"{fold.name}: training")
                    announce(f"{fold.name}: {_train(folder / 'work', fold, forwarder)}")
            finally:
                claim.release()
    return forwarder.signal


def _train(work: Path, fold: Fold, forwarder: SignalForwarder) -> str:
    """Train a fold; returns the result in words."""
    settings, log = work / f"{fold.name}.yaml", work / f"{fold.name}.log"
    save_config(fold.config, settings)
    outcome = run_training(settings, fold.run, log, forwarder=forwarder)
    if outcome.kind == "failed":
        raise UserError(f"the training of {fold.name} failed: {outcome.message} (see {log})")
    if outcome.kind == "stopped":
        return "stopped"
    best = max(read_epochs(fold.run), key=lambda entry: entry["validation"]["accuracy"])
    accuracy, epoch = best["validation"]["accuracy"], best["training"]["epoch"]
    return f"{100 * accuracy:.2f} % after epoch {epoch}"


@dataclass(frozen=True, eq=False)  # == of arrays is an array
class OutOfFoldPredictions:
    """Out-of-fold predictions, ordered by repeat and row.

    Attributes:
        class_names: names of the classes.
        repeats, folds: (num,) int64, from 1.
        rows: (num,) int64, the review's row in the training split, from 0.
        keys: (num,) a digest of each review's text, by which it is recognized.
        predictions: probabilities of the models, at temperature 1.
    """

    class_names: tuple[str, ...]
    repeats: np.ndarray
    folds: np.ndarray
    rows: np.ndarray
    keys: np.ndarray
    predictions: Predictions

    @property
    def is_correct(self) -> np.ndarray:
        """(num,) bool."""
        return self.predictions.predicted == self.predictions.labels

    @property
    def num_repeats(self) -> int:
        return int(self.repeats.max())

    def by_fold(self) -> Iterator[tuple[int, int, Predictions]]:
        """Yield repeat, fold and the fold's predictions."""
        for repeat in range(1, self.num_repeats + 1):
            in_repeat = self.repeats == repeat
            for fold in np.unique(self.folds[in_repeat]).tolist():
                in_fold = in_repeat & (self.folds == fold)
                log_probabilities = self.predictions.log_probabilities[in_fold]
                labels = self.predictions.labels[in_fold]
                yield repeat, fold, Predictions(log_probabilities, labels)

    def share_correct(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows and, for each, the share of repeats that predict it correctly: (num_reviews,)."""
        rows, review = np.unique(self.rows, return_inverse=True)
        return rows, np.bincount(review, self.is_correct) / np.bincount(review)


def predict_out_of_fold(folds: Sequence[Fold], device: torch.device) -> OutOfFoldPredictions:
    """Have each fold's model predict the reviews it was not trained on.

    Raises:
        FileNotFoundError, UserError: a run or the reviews cannot be read, or the reviews are not
            those that a fold held out.
    """
    parts: list[tuple[np.ndarray, ...]] = []
    class_names: tuple[str, ...] = ()
    for fold in folds:
        run = load_run(fold.run)
        class_names = run.class_names
        reviews, corpus = prepare_split(
            run.config.data, "validation", run.vocabulary, run.class_names
        )
        if reviews_fingerprint(reviews) != read_manifest(fold.run)["data"]["validation"]:
            raise UserError(
                f"the reviews that {fold.run} held out have changed: train the folds again in "
                "another --output_dir"
            )
        predictions = predict_corpus(
            run.model.to(device), corpus, device=device, description=fold.name
        )
        assert reviews.rows is not None
        numbers = (np.full(len(reviews), number) for number in (fold.repeat, fold.number))
        keys = np.array([dedup_key(text).hex()[:16] for text in reviews.texts])
        parts.append(
            (*numbers, reviews.rows, keys, predictions.log_probabilities, predictions.labels)
        )
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    order = np.lexsort((columns[2], columns[0]))
    repeats, fold_numbers, rows, keys, log_probabilities, labels = (
        column[order] for column in columns
    )
    predictions = Predictions(log_probabilities, labels)
    return OutOfFoldPredictions(class_names, repeats, fold_numbers, rows, keys, predictions)


def write_predictions(folder: Path, found: OutOfFoldPredictions) -> None:
    """Write predictions.csv, one row for each prediction."""
    names = found.class_names
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    columns = [f"probability_{name}" for name in names]
    writer.writerow(["repeat", "fold", "row", "review", "label", "predicted", *columns])
    labels, predicted = found.predictions.labels, found.predictions.predicted
    for index, probabilities in enumerate(found.predictions.probabilities.tolist()):
        writer.writerow([
            found.repeats[index], found.folds[index], found.rows[index], found.keys[index],
            names[labels[index]], names[predicted[index]],
            *(f"{value:.17g}" for value in probabilities),  # exact: ties must stay ties
        ])  # fmt: skip
    atomic_write(folder / _TABLE, table.getvalue().encode())


def read_predictions(folder: Path) -> OutOfFoldPredictions:
    """Read predictions.csv.

    Raises:
        FileNotFoundError: the cross-validation is not finished.
        UserError: the file is damaged.
    """
    path = folder / _TABLE
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} has no {_TABLE}, as not all folds are trained: sentiment cross-validate "
            "trains the rest"
        )
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header, *table = csv.reader(file, strict=True)
        names = tuple(name.removeprefix("probability_") for name in header[6:])
        label_of = {name: label for label, name in enumerate(names)}
        numbers = np.array([[int(value) for value in row[:3]] for row in table], dtype=np.int64)
        labels = np.array([label_of[row[4]] for row in table], dtype=np.int64)
        probabilities = np.array([[float(value) for value in row[6:]] for row in table])
        with np.errstate(divide="ignore"):
            log_probabilities = np.log(probabilities.reshape(len(table), len(names)))
        if not table or len(names) < 2 or not np.isfinite(probabilities).all():
            raise ValueError("no predictions")
    except (ValueError, LookupError, OverflowError, csv.Error) as error:
        raise UserError(f"{path} is damaged: sentiment cross-validate writes it again") from error
    repeats, folds, rows = numbers.T
    keys = np.array([row[3] for row in table])
    predictions = Predictions(log_probabilities, labels)
    return OutOfFoldPredictions(names, repeats, folds, rows, keys, predictions)
