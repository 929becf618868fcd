"""Comparing runs of the same reviews: groups with each other, and a run with its baseline."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations, product
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from sentiment.baseline.folder import baseline_folder, evaluation_folder
from sentiment.comparison.significance import (
    PairComparison,
    SeedsComparison,
    compare_pair,
    compare_seeds,
    describe_gain,
)
from sentiment.config.parser import parse_training
from sentiment.data.batches import EncodedCorpus
from sentiment.display.console import sanitize
from sentiment.evaluation.calibration import average_models
from sentiment.evaluation.evaluate import Predictions, predict_corpus
from sentiment.evaluation.metrics import Interval, accuracy_interval
from sentiment.runs.manifest import holds_baseline, read_manifest
from sentiment.runs.run import load_run, load_settings

AnyRun = TypeVar("AnyRun")  # a loaded run, or its predictions

_MOST_TO_PAIR_ALL = 4  # of more groups, the first is compared with each other one


@dataclass(frozen=True)
class RunResult:
    """Results of one run; ``nll`` is in nats."""

    name: str
    accuracy: float
    accuracy_ci95: Interval
    nll: float


@dataclass(frozen=True)
class GroupResult:
    """Results of one run, or of several of one recipe; the fields with defaults need several."""

    name: str
    runs: tuple[RunResult, ...]
    accuracy: float  # mean over the runs, like nll
    nll: float
    accuracy_deviation: float | None = None  # standard deviation over the runs, with n - 1
    nll_deviation: float | None = None
    ensemble_accuracy: float | None = None  # of the runs' predictions averaged


@dataclass(frozen=True)
class Comparison:
    """All results; two groups are compared in ``seeds`` if both have several runs."""

    num_reviews: int
    groups: tuple[GroupResult, ...]
    pairs: tuple[PairComparison, ...]
    seeds: tuple[SeedsComparison, ...]

    def as_dict(self) -> dict[str, Any]:
        values = asdict(self)
        # compare.json has called the groups sides from the start.
        return {"num_reviews": self.num_reviews, "sides": values.pop("groups"), **values}


def compare(groups: Mapping[str, Sequence[Predictions]]) -> Comparison:
    """Compare calibrated predictions of the same reviews.

    ``groups`` holds those of one run, or of several of one recipe, by a short name. Up to four
    groups are all compared with each other; of more, the first with each other one. The runs of a
    single group are compared likewise.
    """
    opponents = list_opponents(groups)
    names = list(opponents)
    compared = list(combinations(names, 2))
    if len(names) > _MOST_TO_PAIR_ALL:
        compared = [(names[0], name) for name in names[1:]]
    pairs: list[PairComparison] = []
    seeds: list[SeedsComparison] = []
    for first, second in compared:
        first_runs, second_runs = opponents[first], opponents[second]
        if len(first_runs) > 1 and len(second_runs) > 1:
            accuracies = [list(map(_accuracy, runs)) for runs in (first_runs, second_runs)]
            seeds.append(compare_seeds(first, second, *accuracies))
            continue
        for one, other in product(name_runs(first, first_runs), name_runs(second, second_runs)):
            pairs.append(compare_pair(*one, *other))
    results = tuple(_measure_group(name, runs) for name, runs in groups.items())
    num_reviews = len(opponents[names[0]][0].labels)
    return Comparison(num_reviews, results, tuple(pairs), tuple(seeds))


def list_opponents(groups: Mapping[str, Sequence[Predictions]]) -> dict[str, Sequence[Predictions]]:
    """What is compared with each other: the groups, or the runs of a single one."""
    if len(groups) > 1:
        return dict(groups)
    ((name, runs),) = groups.items()
    return {name: [run] for name, run in name_runs(name, runs)}


def name_runs(group: str, runs: Sequence[AnyRun]) -> list[tuple[str, AnyRun]]:
    """A group's runs with their names: the group's name for a single run, else numbered."""
    if len(runs) == 1:
        return [(group, runs[0])]
    return [(f"{group}{number}", run) for number, run in enumerate(runs, start=1)]


def average(runs: Sequence[Predictions]) -> Predictions:
    """Several runs' predictions as those of one ensemble, as ``evaluate --ensemble`` does."""
    if len(runs) == 1:
        return runs[0]
    together = average_models([run.log_probabilities for run in runs])
    return replace(runs[0], log_probabilities=together)


def find_disagreements(first: Predictions, second: Predictions, *, most: int) -> np.ndarray:
    """(at most ``most``,) rows with different predicted classes, by descending distance.

    The distance is the total variation between the probabilities.
    """
    distances = np.abs(first.probabilities - second.probabilities).sum(axis=1) / 2
    distances[first.predicted == second.predicted] = -1
    order = np.argsort(-distances, kind="stable")[:most]
    return order[distances[order] >= 0]


def _measure_group(name: str, runs: Sequence[Predictions]) -> GroupResult:
    results = tuple(_measure_run(*named) for named in name_runs(name, runs))
    accuracies, nlls = [run.accuracy for run in results], [run.nll for run in results]
    accuracy, nll = float(np.mean(accuracies)), float(np.mean(nlls))
    if len(runs) == 1:
        return GroupResult(name, results, accuracy, nll)
    deviations = float(np.std(accuracies, ddof=1)), float(np.std(nlls, ddof=1))
    return GroupResult(name, results, accuracy, nll, *deviations, _accuracy(average(runs)))


def _measure_run(name: str, run: Predictions) -> RunResult:
    interval = accuracy_interval(int(run.is_right.sum()), len(run.labels))
    return RunResult(name, _accuracy(run), interval, float(run.losses.mean()))


def _accuracy(run: Predictions) -> float:
    return float(run.is_right.mean())


def baseline_command(run: Path) -> str:
    """The command that trains a run's baseline, replacing an existing one."""
    file = run / "config.yaml"
    command = f"sentiment baseline --config {sanitize(str(file))}"
    hold_out = load_settings(run).data.hold_out
    if parse_training([f"--config={file}"], "baseline").config.data.hold_out != hold_out:
        command += f" --data.validation {hold_out}"  # which earlier versions did not write
    exists = (baseline_folder(run) / "run.json").exists()
    return f"{command}{' --overwrite' if exists else ''}"


def compare_with_baseline(run: Path, corpus: EncodedCorpus, device: torch.device) -> str | None:
    """Two lines that compare a run's best weights with the baseline of the same reviews, and with
    the ensemble of both.

    ``corpus`` holds the run's validation reviews, predicted on ``device``. None if no baseline of
    these reviews lies next to the run, or it cannot be read.
    """
    folder = baseline_folder(run)
    try:
        if not holds_baseline(folder) or not _has_same_reviews(run, folder):
            return None
        table = evaluation_folder(folder) / "predictions.csv"
        loaded = load_run(run)
        theirs, baseline = _read_predictions(table, loaded.class_names)
        if len(theirs) != len(corpus):
            return None
        predictions = predict_corpus(loaded.model.to(device), corpus, device=device)
    except (OSError, ValueError, LookupError, TypeError, csv.Error):  # a damaged file
        return None
    labels, ours = predictions.labels, predictions.is_right
    calibrated = predictions.calibrated(loaded.checkpoint.temperature).log_probabilities
    together = average_models([calibrated, baseline]).argmax(axis=1) == labels
    points, test = describe_gain(theirs, ours)
    return (
        f"baseline: {100 * theirs.mean():.2f} %, this run: {100 * ours.mean():.2f} %, "
        f"{points} ({test})\n"
        f"both averaged: {100 * together.mean():.2f} %, by evaluate and predict with "
        f"--ensemble {sanitize(str(folder))}"
    )


def _has_same_reviews(run: Path, folder: Path) -> bool:
    """Whether both were validated on the same reviews with the same classes."""
    ours, theirs = read_manifest(run), read_manifest(folder)
    validation = ours.get("data", {}).get("validation")
    return (
        validation is not None
        and validation == theirs.get("data", {}).get("validation")
        and ours["class_names"] == theirs["class_names"]
    )


def _read_predictions(path: Path, class_names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """From a predictions.csv, whether each prediction is right (num_reviews,), and the
    log-probabilities (num_reviews, num_classes).
    """
    with path.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    is_right = [line["label"] == line["predicted"] for line in lines]
    rows = [[float(line[f"probability_{name}"]) for name in class_names] for line in lines]
    # The file has rounded the probabilities.
    return np.array(is_right, dtype=bool), np.log(np.maximum(rows, 1e-12))
