"""Measuring groups of runs on the same reviews and comparing them with each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations, product
from typing import Any, TypeVar

import numpy as np

from sentiment.comparison.significance import (
    PairComparison,
    SeedsComparison,
    compare_pair,
    compare_seeds,
)
from sentiment.evaluation.evaluate import Predictions
from sentiment.evaluation.metrics import Interval, accuracy_interval

AnyRun = TypeVar("AnyRun")  # a loaded run, or its predictions

_MOST_TO_PAIR_ALL = 4  # of more groups, the first is compared with each other one


@dataclass(frozen=True)
class RunResult:
    """Results of one run; ``nll`` is at temperature 1, in nats."""

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
    # Of the runs' mean probabilities, each at its run's temperature.
    ensemble_accuracy: float | None = None


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


def compare(
    groups: Mapping[str, Sequence[Predictions]],
    calibrated: Mapping[str, Sequence[Predictions]] | None = None,
) -> Comparison:
    """Compare predictions of the same reviews.

    ``groups`` holds predictions at temperature 1 of one run, or of several of one recipe, by a
    short name; ``calibrated`` the same at each run's temperature, for ``ensemble_accuracy``. Up to
    four groups are all compared with each other; of more, the first with each other one. The runs
    of a single group are compared likewise.
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
    calibrated = calibrated or groups
    results = tuple(_measure_group(name, runs, calibrated[name]) for name, runs in groups.items())
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
    """The mean of several runs' probabilities as one prediction."""
    if len(runs) == 1:
        return runs[0]
    mean = np.mean([run.probabilities for run in runs], axis=0)
    with np.errstate(divide="ignore"):  # a probability of 0 has the logarithm -inf
        return Predictions(np.log(mean), runs[0].labels)


def find_disagreements(first: Predictions, second: Predictions, *, most: int) -> np.ndarray:
    """(at most ``most``,) rows with different predicted classes, by descending distance.

    The distance is the total variation between the probabilities.
    """
    distances = np.abs(first.probabilities - second.probabilities).sum(axis=1) / 2
    distances[first.predicted == second.predicted] = -1
    order = np.argsort(-distances, kind="stable")[:most]
    return order[distances[order] >= 0]


def _measure_group(
    name: str, runs: Sequence[Predictions], calibrated: Sequence[Predictions]
) -> GroupResult:
    results = tuple(_measure_run(*named) for named in name_runs(name, runs))
    accuracies, nlls = [run.accuracy for run in results], [run.nll for run in results]
    accuracy, nll = float(np.mean(accuracies)), float(np.mean(nlls))
    if len(runs) == 1:
        return GroupResult(name, results, accuracy, nll)
    deviations = float(np.std(accuracies, ddof=1)), float(np.std(nlls, ddof=1))
    ensemble_accuracy = _accuracy(average(calibrated))
    return GroupResult(name, results, accuracy, nll, *deviations, ensemble_accuracy)


def _measure_run(name: str, run: Predictions) -> RunResult:
    num_reviews = len(run.labels)
    interval = accuracy_interval(int(run.is_right.sum()), num_reviews)
    nll = -float(run.log_probabilities[np.arange(num_reviews), run.labels].mean())
    return RunResult(name, _accuracy(run), interval, nll)


def _accuracy(run: Predictions) -> float:
    return float(run.is_right.mean())
