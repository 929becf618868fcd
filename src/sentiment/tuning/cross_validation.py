"""Cross-validation: folds, their trainings, out-of-fold predictions."""

from __future__ import annotations

import csv
import json
import os
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
from sentiment.runtime.claims import Claim, try_claim
from sentiment.runtime.errors import UserError
from sentiment.runtime.files import write_json
from sentiment.tuning.sweep import SignalForwarder, read_epochs, train_trial

LOCK = ".lock"  # held by whoever writes the folder's own files
_FILE = "cross_validation.json"


@dataclass(frozen=True)
class Fold:
    """One training.

    Attributes:
        repeat: which division into folds, from 1.
        number: which fold is held out, from 1.
        config: the settings of the training.
    """

    repeat: int
    number: int
    config: Config

    @property
    def name(self) -> str:
        """The name of its folder."""
        return f"repeat{self.repeat}-fold{self.number}"

    @property
    def run(self) -> Path:
        """The run's folder."""
        return Path(self.config.output_dir)

    def work(self, folder: Path, ending: str) -> Path:
        """A file about the training, beside the runs."""
        return folder / "work" / f"{self.name}.{ending}"


def plan_folds(config: Config, folder: Path, num_folds: int, num_repeats: int) -> list[Fold]:
    """All trainings, each holding out one fold; repeats divide by the next seed."""
    found = []
    for repeat in range(1, num_repeats + 1):
        for number in range(1, num_folds + 1):
            data = replace(
                config.data, num_folds=num_folds, fold=number,
                validation_seed=config.data.validation_seed + repeat - 1,
            )  # fmt: skip
            fold = Fold(repeat, number, config)
            own = replace(config, data=data, output_dir=str(folder / "folds" / fold.name))
            found.append(replace(fold, config=own))
    return found


def is_cross_validation(folder: Path) -> bool:
    """Whether a folder is one."""
    return (folder / _FILE).is_file()


def check_definition(
    folder: Path, config: Config, num_folds: int, reviews: Iterable[dict[str, Any]]
) -> None:
    """Write what a new folder is for, or compare with what it was begun for.

    Args:
        folder: the cross-validation's.
        config: the settings.
        num_folds: how many folds there are.
        reviews: fingerprints of the reviews that the first fold trains and validates on.

    Raises:
        FileExistsError: the folder holds something else.
        UserError: it was begun with other settings, folds or reviews, or its file is damaged.
    """
    own: dict[str, Any] = {"num_folds": num_folds, "settings": deciding_settings(config)}
    own["reviews"] = list(reviews)
    own = json.loads(json.dumps(own))  # as it will be read
    if not is_cross_validation(folder):
        if any(each.name != LOCK for each in folder.iterdir()):
            raise FileExistsError(
                f"{folder} is not empty and holds no cross-validation: choose another --output_dir"
            )
        write_json(folder / _FILE, own)
        return
    there = read_definition(folder)
    defaults = deciding_settings(Config())  # of settings that there were none of then
    pairs = [("--folds", there["num_folds"], num_folds)]
    pairs += [
        (key, there["settings"].get(key, defaults.get(key)), value)
        for key, value in own["settings"].items()
    ]
    for key, before, now in pairs:
        if before != now:
            raise UserError(
                f"{folder} was begun with {key} {before!r}, not {now!r}: go on as it was begun, or "
                "choose another --output_dir"
            )
    if there["reviews"] != own["reviews"]:
        raise UserError(
            f"{folder} was begun with other reviews, or they were divided into folds otherwise: "
            "choose another --output_dir"
        )


def read_definition(folder: Path) -> dict[str, Any]:
    """What a cross-validation's folder was begun for.

    Raises:
        UserError: its file is damaged.
    """
    path = folder / _FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        values["num_folds"] + 0, values["settings"].keys(), values["reviews"][1]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} is damaged: begin again in another --output_dir") from error
    return values


def train_folds(folder: Path, folds: Sequence[Fold], tell: Callable[[str], None]) -> int:
    """Train the folds that are not finished and that no other process works on.

    Args:
        folder: of the cross-validation.
        folds: all of them.
        tell: called with a line to be shown.

    Returns:
        the number of the signal that ended it, 0 where none did.

    Raises:
        UserError: a training failed.
    """
    for name in ("folds", "work"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    with SignalForwarder() as stop:
        for fold in folds:
            if stop.signal:
                break
            if is_trained(fold):
                continue
            claim = try_claim(fold.work(folder, "claim"))
            if claim is None:
                tell(f"{fold.name}: another process works on it")
                continue
            try:
                if not is_trained(fold):  # as another process may have done meanwhile
                    _train(folder, fold, claim, stop, tell)
            finally:
                claim.release()
    return stop.signal


def is_trained(fold: Fold) -> bool:
    """Whether a fold's training has come to its end."""
    return (fold.run / "run.json").is_file() and is_finished(fold.run)


def _train(
    folder: Path, fold: Fold, claim: Claim, stop: SignalForwarder, tell: Callable[[str], None]
) -> None:
    tell(f"{fold.name}: training")
    settings, log = fold.work(folder, "yaml"), fold.work(folder, "log")
    save_config(fold.config, settings)
    outcome = train_trial(
        settings, fold.run, log, descriptor=claim.descriptor, stop=stop,
        after_epoch=lambda entry: False,
    )  # fmt: skip
    if outcome.kind == "failed":
        raise UserError(f"the training of {fold.name} failed: {outcome.message} (see {log})")
    if outcome.kind == "stopped":
        tell(f"{fold.name}: stopped")
        return
    best = max(read_epochs(fold.run), key=lambda entry: entry["validation"]["accuracy"])
    accuracy, epoch = best["validation"]["accuracy"], best["training"]["epoch"]
    tell(f"{fold.name}: {100 * accuracy:.2f} % after epoch {epoch}")


_TABLE = "predictions.csv"


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
        FileNotFoundError, UserError: a run, or the reviews, cannot be read, or they are not those
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
        held_out = read_manifest(fold.run)["data"]["validation"]
        if reviews_fingerprint(reviews) != held_out:
            raise UserError(
                f"the reviews that {fold.run} held out are others now: train its folds again in "
                "another --output_dir"
            )
        found = predict_corpus(run.model.to(device), corpus, device=device, description=fold.name)
        assert reviews.rows is not None
        numbers = (np.full(len(reviews), each) for each in (fold.repeat, fold.number))
        keys = np.array([dedup_key(text).hex()[:16] for text in reviews.texts])
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
    path = folder / _TABLE
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
        UserError: the file is damaged.
    """
    path = folder / _TABLE
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} has no {_TABLE}: its folds are not all trained; sentiment cross-validate "
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
            raise UserError("no predictions")
    except (ValueError, LookupError, OverflowError, csv.Error) as error:
        raise UserError(f"{path} is damaged: sentiment cross-validate writes it again") from error
    repeats, folds, places = counts.T
    keys = np.array([row[3] for row in rows])
    return OutOfFold(names, repeats, folds, places, keys, Predictions(log_probabilities, labels))
