"""Cross-validation: folds, their trainings, out-of-fold predictions, figures and comparison."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock

from sentiment.baseline.folder import baseline_folder, is_finished_baseline
from sentiment.baseline.train import train_baseline
from sentiment.comparison.run_groups import load_classifier
from sentiment.comparison.significance import (
    bootstrap_difference,
    format_p,
    format_points,
    mcnemar,
)
from sentiment.config.config import Config, deciding_settings
from sentiment.data.reviews import load_labelled, load_split, reviews_fingerprint
from sentiment.data.splits import dedup_key, hold_out
from sentiment.display.console import format_table, wrap_text
from sentiment.evaluation.evaluate import Predictions
from sentiment.evaluation.metrics import (
    ClassScores,
    Interval,
    accuracy_interval,
    percentile_interval,
)
from sentiment.evaluation.report import classes_table
from sentiment.runs.manifest import read_manifest
from sentiment.runs.run import is_finished
from sentiment.runtime.errors import UserError
from sentiment.runtime.files import LOCK, write_csv
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
_NUM_RESAMPLES = 2_000


@dataclass(frozen=True)
class Fold:
    """One training."""

    repeat: int  # the division into folds, from 1
    number: int  # the fold that is held out, from 1
    config: Config

    @property
    def name(self) -> str:
        return self.run.name

    @property
    def run(self) -> Path:
        return Path(self.config.output_dir)

    @property
    def baseline(self) -> Path:
        """The folder of the linear model of the same reviews."""
        return baseline_folder(self.run)

    @property
    def is_trained(self) -> bool:
        return is_finished(self.run)

    @property
    def has_baseline(self) -> bool:
        return is_finished_baseline(self.baseline)

    @property
    def is_done(self) -> bool:
        """Whether the linear model to compare with is trained too."""
        return self.is_trained and self.has_baseline


def plan_folds(config: Config, folder: Path, num_folds: int, num_repeats: int) -> list[Fold]:
    """All trainings, each holding out one fold; each repeat divides by the next seed."""
    folds = []
    for repeat in range(1, num_repeats + 1):
        for number in range(1, num_folds + 1):
            data = replace(
                config.data, num_folds=num_folds, fold=number,
                validation_seed=config.data.validation_seed + repeat - 1,
            )  # fmt: skip
            output_dir = str(folder / "folds" / f"repeat{repeat}-fold{number}")
            folds.append(Fold(repeat, number, replace(config, data=data, output_dir=output_dir)))
    return folds


def check_folds(folds: Sequence[Fold]) -> None:
    """Raise ``UserError`` if a class is missing in one of the folds, or in the other folds."""
    data = folds[0].config.data
    if data.hold_out == "random":  # single reviews spread evenly
        return
    # Rows that data.exclude lists take part in the division.
    train = load_labelled(replace(data, exclude=None))["train"]
    for fold in folds:
        hold_out(
            train.texts, train.labels, fold.config.data,
            class_names=train.class_names, origin=train.origin, groups=train.groups,
        )  # fmt: skip


def is_cross_validation(folder: Path) -> bool:
    return (folder / _DEFINITION).is_file()


def check_definition(
    folder: Path, config: Config, num_folds: int, reviews: Iterable[dict[str, Any]]
) -> None:
    """Write a new folder's settings, or compare with those it was started with.

    The folder is locked; ``reviews`` are the fingerprints of the first fold's reviews.

    Raises:
        FileExistsError: the folder holds something else.
        UserError: it was started with other settings, folds or reviews, or its file is damaged.
    """
    settings = deciding_settings(config)
    now = {"num_folds": num_folds, "settings": settings, "reviews": list(reviews)}
    path = folder / _DEFINITION
    before = write_or_read_definition(path, now, kind="cross-validation", allowed=(LOCK,))
    then = {"--folds": before.get("num_folds"), **before["settings"]}
    check_unchanged(folder, then, {"--folds": num_folds, **settings})
    if before.get("reviews") != now["reviews"]:
        raise UserError(
            f"{folder} was started with other reviews, or with another division into folds: "
            "choose another --output_dir"
        )


def train_folds(folder: Path, folds: Sequence[Fold], announce: Callable[[str], None]) -> int:
    """Train the folds that are not finished and that no other process trains.

    Each fold's linear model is trained too, to compare with.

    ``announce`` is called with lines to print. Returns the number of the signal that stopped the
    training, 0 if none did; a failed training raises ``UserError``.
    """
    for name in ("folds", "work"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    with SignalForwarder() as forwarder:
        for fold in folds:
            if forwarder.signal:
                break
            if fold.is_done:
                continue
            claim = _try_claim(folder, fold)
            if claim is None:
                announce(f"{fold.name}: another process trains it")
                continue
            try:
                if not fold.is_trained:  # another process may have finished it meanwhile
                    announce(f"{fold.name}: training")
                    announce(f"{fold.name}: {_train(folder / 'work', fold, forwarder)}")
                if fold.is_trained and not forwarder.signal:
                    _train_baseline(fold, announce)
            finally:
                claim.release()
    return forwarder.signal


def num_remaining(folder: Path, folds: Sequence[Fold]) -> int:
    """Number of folds that are not trained, or that another process is still training."""
    number = 0
    for fold in folds:
        if fold.is_done:
            continue
        if (claim := _try_claim(folder, fold)) is not None:
            claim.release()
        number += claim is None or not fold.is_trained
    return number


def _try_claim(folder: Path, fold: Fold) -> FileLock | None:
    return try_claim(folder / "work" / f"{fold.name}.claim", fold.run)


def _train(work: Path, fold: Fold, forwarder: SignalForwarder) -> str:
    """Train a fold; returns the result in words."""
    outcome = run_training(fold.config, work / fold.name, forwarder=forwarder)
    if outcome.kind == "failed":
        log = work / f"{fold.name}.log"
        raise UserError(f"the training of {fold.name} failed: {outcome.message} (see {log})")
    if outcome.kind == "stopped":
        return "stopped"
    best = [entry for entry in read_epochs(fold.run) if entry["is_best"]][-1]
    accuracy, epoch = best["validation"]["accuracy"], best["training"]["epoch"]
    return f"{100 * accuracy:.2f} % after epoch {epoch}"


def _train_baseline(fold: Fold, announce: Callable[[str], None]) -> None:
    """Train the linear model of the fold's reviews, unless the fold has learned from it."""
    if fold.has_baseline:
        return
    try:
        train_baseline(fold.config, fold.baseline, overwrite=True)
    except UserError as error:  # no word occurs often enough
        announce(f"{fold.name}: no linear model to compare with: {error}")


@dataclass(frozen=True, eq=False)  # == of arrays is an array
class OutOfFoldPredictions:
    """Out-of-fold predictions, ordered by repeat and row; arrays are (num_predictions,)."""

    class_names: tuple[str, ...]
    repeats: np.ndarray  # int64, from 1
    folds: np.ndarray  # int64, from 1
    rows: np.ndarray  # int64, the review's row in the training split, from 0
    keys: np.ndarray  # a digest of each review's text, to recognize it
    predictions: Predictions  # at temperature 1

    @property
    def num_repeats(self) -> int:
        return int(self.repeats.max())

    def by_fold(self) -> Iterator[tuple[int, int, Predictions]]:
        """Repeat, fold and the fold's predictions."""
        for repeat in range(1, self.num_repeats + 1):
            in_repeat = self.repeats == repeat
            for fold in np.unique(self.folds[in_repeat]).tolist():
                in_fold = in_repeat & (self.folds == fold)
                log_probabilities = self.predictions.log_probabilities[in_fold]
                yield repeat, fold, Predictions(log_probabilities, self.predictions.labels[in_fold])

    def share_correct(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows and, for each, the share of repeats that predict it correctly: (num_reviews,)."""
        rows, review = np.unique(self.rows, return_inverse=True)
        return rows, np.bincount(review, self.predictions.is_right) / np.bincount(review)


def predict_out_of_fold(
    folds: Sequence[Fold], folders: Sequence[Path], device: torch.device
) -> OutOfFoldPredictions:
    """Have each fold's model predict the reviews it was not trained on.

    ``folders`` holds the models, one for each fold: runs or baselines. Raises ``UserError`` if
    these reviews have changed since.
    """
    parts: list[tuple[np.ndarray, ...]] = []
    class_names: tuple[str, ...] = ()
    for fold, path in zip(folds, folders, strict=True):
        classifier = load_classifier(path)
        class_names = classifier.class_names
        reviews = load_split(classifier.config.data, "validation", class_names)
        if reviews_fingerprint(reviews) != read_manifest(path)["data"]["validation"]:
            raise UserError(
                f"the reviews that {path} held out have changed: train the folds again in "
                "another --output_dir"
            )
        predictions = classifier.predict(reviews, device)
        assert reviews.rows is not None
        parts.append(
            (
                np.full(len(reviews), fold.repeat),
                np.full(len(reviews), fold.number),
                reviews.rows,
                np.array([dedup_key(text).hex()[:16] for text in reviews.texts]),
                predictions.log_probabilities,
                predictions.labels,
            )
        )
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    order = np.lexsort((columns[2], columns[0]))
    repeats, numbers, rows, keys, outputs, labels = (column[order] for column in columns)
    predictions = Predictions(outputs, labels)
    return OutOfFoldPredictions(class_names, repeats, numbers, rows, keys, predictions)


def write_predictions(folder: Path, result: OutOfFoldPredictions) -> None:
    """Write predictions.csv, one row for each prediction."""
    names = result.class_names
    columns = ["repeat", "fold", "row", "review", "label", "predicted"]
    columns += [f"probability_{name}" for name in names]
    rows = []
    labels, predicted = result.predictions.labels, result.predictions.predicted
    for index, probabilities in enumerate(result.predictions.probabilities.tolist()):
        rows.append((
            result.repeats[index], result.folds[index], result.rows[index] + 1, result.keys[index],
            names[labels[index]], names[predicted[index]],
            *(f"{value:.17g}" for value in probabilities),  # exact: ties must stay ties
        ))  # fmt: skip
    write_csv(folder / _TABLE, columns, rows)


def read_predictions(folder: Path) -> OutOfFoldPredictions:
    """Read predictions.csv, which a finished cross-validation has."""
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
    rows = rows - (rows.min() > 0)  # earlier versions wrote them from 0
    keys = np.array([row[3] for row in table])
    predictions = Predictions(log_probabilities, labels)
    return OutOfFoldPredictions(names, repeats, folds, rows, keys, predictions)


@dataclass(frozen=True)
class Difference:
    """Two cross-validations, compared on the reviews that both predict."""

    num_reviews: int
    first: float  # accuracy
    second: float
    difference: float  # the second minus the first
    difference_ci95: Interval | None  # by a paired bootstrap; None if no review differs
    mcnemar_p: float | None  # None if reviews were predicted several times


@dataclass(frozen=True)
class Summary:
    """The figures of a cross-validation."""

    num_reviews: int  # distinct ones
    num_repeats: int
    accuracies: tuple[float, ...]  # of each fold
    mean: float  # of the folds' accuracies
    deviation: float | None  # sample deviation of the folds' accuracies
    accuracy: float  # share of all predictions that are correct
    accuracy_ci95: Interval  # for other reviews
    nll: float  # mean negative log-likelihood of the correct class, in nats
    macro_f1: float  # of all predictions, as by_class
    by_class: tuple[ClassScores, ...]
    linear_model: Difference | None  # the first is the linear model of the same folds


def summarize(
    result: OutOfFoldPredictions, linear_model: OutOfFoldPredictions | None = None
) -> Summary:
    accuracies = [float(fold.is_right.mean()) for _, _, fold in result.by_fold()]
    rows, shares = result.share_correct()
    accuracy = float(shares.mean())
    if result.num_repeats == 1:
        interval = accuracy_interval(int(shares.sum()), len(rows))
    else:  # repeated predictions of a review are not independent
        margin = 1.96 * float(shares.std(ddof=1)) / len(rows) ** 0.5
        interval = max(0.0, accuracy - margin), min(1.0, accuracy + margin)
    metrics = result.predictions.metrics()
    return Summary(
        num_reviews=len(rows),
        num_repeats=result.num_repeats,
        accuracies=tuple(accuracies),
        mean=float(np.mean(accuracies)),
        deviation=float(np.std(accuracies, ddof=1)) if len(accuracies) > 1 else None,
        accuracy=accuracy,
        accuracy_ci95=interval,
        nll=metrics.nll,
        macro_f1=metrics.macro_f1,
        by_class=metrics.by_class,
        linear_model=None if linear_model is None else compare_out_of_fold(linear_model, result),
    )


def summary_table(result: OutOfFoldPredictions, summary: Summary, title: str) -> str:
    """A line for each fold, and the figures of all, at most 80 columns wide."""
    rows = [("fold", "reviews", "accuracy", "NLL")]
    for repeat, fold, predictions in result.by_fold():
        metrics = predictions.metrics()
        name = f"{fold}" if summary.num_repeats == 1 else f"{fold} of repeat {repeat}"
        accuracy = f"{100 * metrics.accuracy:.2f} %"
        rows.append((name, f"{metrics.num_reviews:,}", accuracy, f"{metrics.nll:.4f}"))
    spread = "" if summary.deviation is None else f" ± {100 * summary.deviation:.2f}"
    low, high = (100 * limit for limit in summary.accuracy_ci95)
    figures = [
        ("mean over folds", f"{100 * summary.mean:.2f}{spread} %"),
        ("all predictions", f"{100 * summary.accuracy:.2f} %",
         f"95 %: {low:.2f} to {high:.2f}  ({summary.num_reviews:,} reviews)"),
        ("NLL", f"{summary.nll:.4f}"),
    ]  # fmt: skip
    if (versus := summary.linear_model) is not None:
        difference = f"these are {format_points(versus.difference)} points"
        if versus.mcnemar_p is not None:
            difference += f", McNemar p {format_p(versus.mcnemar_p)}"
        figures.append(("linear model", f"{100 * versus.first:.2f} %", difference))
    return "\n\n".join([
        title, format_table(rows, min_widths=(18,)), format_table(figures, align="<"),
        classes_table(result.predictions.metrics(), result.class_names),
        "The best epoch of each fold was selected on the reviews it is evaluated on, so\n"
        "the figures are slightly optimistic.",
    ])  # fmt: skip


def compare_out_of_fold(first: OutOfFoldPredictions, second: OutOfFoldPredictions) -> Difference:
    """Compare two cross-validations; ``UserError`` if classes or reviews differ."""
    if first.class_names != second.class_names:
        raise UserError("the cross-validations have different classes, or another order of them")
    (rows, shares), (other_rows, other_shares) = first.share_correct(), second.share_correct()
    common, index, other_index = np.intersect1d(rows, other_rows, return_indices=True)
    if len(common) == 0 or (_keys(first, common) != _keys(second, common)).any():
        raise UserError(
            "the cross-validations are of different reviews: compare those of one training split"
        )
    shares, other_shares = shares[index], other_shares[other_index]
    p_value = None
    if first.num_repeats == second.num_repeats == 1:
        only = int((shares > other_shares).sum()), int((other_shares > shares).sum())
        p_value, interval = mcnemar(*only)[0], bootstrap_difference(*only, len(common))
    else:
        interval = _bootstrap(other_shares - shares)
    return Difference(
        num_reviews=len(common),
        first=float(shares.mean()),
        second=float(other_shares.mean()),
        difference=float((other_shares - shares).mean()),
        difference_ci95=interval,
        mcnemar_p=p_value,
    )


def _keys(result: OutOfFoldPredictions, rows: np.ndarray) -> np.ndarray:
    return result.keys[np.searchsorted(result.rows[result.repeats == 1], rows)]


def _bootstrap(differences: np.ndarray) -> Interval | None:
    if np.ptp(differences) == 0:
        return None
    generator, size = np.random.default_rng(0), len(differences)
    drawn = (differences[generator.integers(size, size=size)] for _ in range(_NUM_RESAMPLES))
    return percentile_interval(np.array([resample.mean() for resample in drawn]))


def difference_text(difference: Difference, first: Path, second: Path) -> str:
    """The comparison in a few lines of at most 80 columns."""
    rows = [
        ("A", str(first), f"{100 * difference.first:.2f} %"),
        ("B", str(second), f"{100 * difference.second:.2f} %"),
    ]
    text = (
        f"B minus A: {100 * difference.difference:+.2f} points on {difference.num_reviews:,} "
        "reviews, each predicted by models not trained on it"
    )
    lines = [format_table(rows, align="<<>", flexible=1), "", wrap_text(text)]
    if difference.difference_ci95 is not None:
        low, high = (100 * limit for limit in difference.difference_ci95)
        lines.append(f"95 % interval {low:+.2f} to {high:+.2f}")
    if difference.mcnemar_p is not None:
        lines.append(f"McNemar p = {difference.mcnemar_p:.3g}")
    return "\n".join(lines)
