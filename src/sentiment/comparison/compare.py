"""Several runs on the same reviews: their figures, and each against the others.

What is compared is a *side*: one run, or several of one recipe that differ in their seeds.
"""

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
    find_hits,
)
from sentiment.evaluation.evaluate import Predictions
from sentiment.evaluation.metrics import accuracy_interval
from sentiment.runtime.errors import UserError

AnyRun = TypeVar("AnyRun")  # a loaded run, or its predictions

_MOST_TO_PAIR_ALL = 4  # of more, the first is compared with each other one


@dataclass(frozen=True)
class RunFigures:
    """One run on the reviews.

    Attributes:
        accuracy: share classified rightly.
        accuracy_ci95: its 95 % interval.
        nll: mean negative log-likelihood of the right class at temperature 1, in nats.
    """

    name: str
    accuracy: float
    accuracy_ci95: tuple[float, float]
    nll: float


@dataclass(frozen=True)
class SideFigures:
    """One run, or several of one recipe.

    Attributes:
        accuracy, nll: means over the runs.
        accuracy_deviation, nll_deviation: standard deviations over the runs, by ``n - 1``; None
            where there is one run.
        ensemble_accuracy: of the mean of the runs' probabilities, each at its run's temperature;
            None where there is one run.
    """

    name: str
    runs: tuple[RunFigures, ...]
    accuracy: float
    nll: float
    accuracy_deviation: float | None = None
    nll_deviation: float | None = None
    ensemble_accuracy: float | None = None


@dataclass(frozen=True)
class Comparison:
    """All figures of a comparison; a pair is in ``seeds`` where both have several runs."""

    num_reviews: int
    sides: tuple[SideFigures, ...]
    pairs: tuple[PairComparison, ...]
    seeds: tuple[SeedsComparison, ...]

    def as_dict(self) -> dict[str, Any]:
        """The figures as JSON-able values."""
        return asdict(self)


def compare(
    sides: Mapping[str, Sequence[Predictions]],
    calibrated: Mapping[str, Sequence[Predictions]] | None = None,
) -> Comparison:
    """Compare predictions of the same reviews.

    Up to four sides are compared each with each, of more the first with each other one; one side
    of several runs, these runs likewise.

    Args:
        sides: the predictions of one run, or of several of one recipe, by a short name, at
            temperature 1; the runs of ``B`` are named ``B1``, ``B2`` and so on.
        calibrated: the same at each run's temperature, which ``ensemble_accuracy`` averages; None
            averages those of ``sides``.

    Raises:
        UserError: there is nothing to compare, or the reviews are not the same.
    """
    opponents = list_opponents(sides)
    labels = next(iter(opponents.values()))[0].labels
    for name, runs in opponents.items():
        if any(not np.array_equal(run.labels, labels) for run in runs):
            raise UserError(f"{name} has predictions of other reviews than the first")
    names = list(opponents)
    chosen = list(combinations(names, 2))
    if len(names) > _MOST_TO_PAIR_ALL:
        chosen = [(names[0], name) for name in names[1:]]
    pairs: list[PairComparison] = []
    seeds: list[SeedsComparison] = []
    for first, second in chosen:
        if len(opponents[first]) > 1 and len(opponents[second]) > 1:
            accuracies = [[_accuracy(run) for run in opponents[each]] for each in (first, second)]
            seeds.append(compare_seeds(first, second, *accuracies))
            continue
        both = product(name_runs(first, opponents[first]), name_runs(second, opponents[second]))
        pairs += [compare_pair(*one, *other) for one, other in both]
    averaged = sides if calibrated is None else calibrated
    figures = tuple(_measure_side(name, runs, averaged[name]) for name, runs in sides.items())
    return Comparison(len(labels), figures, tuple(pairs), tuple(seeds))


def list_opponents(sides: Mapping[str, Sequence[Predictions]]) -> dict[str, Sequence[Predictions]]:
    """What is compared with one another: the sides, or the runs of the only one."""
    if len(sides) > 1:
        return dict(sides)
    (name, runs), *_ = sides.items()
    if len(runs) < 2:
        raise UserError("one run alone has nothing to be compared with")
    return {name: [run] for name, run in name_runs(name, runs)}


def name_runs(side: str, runs: Sequence[AnyRun]) -> list[tuple[str, AnyRun]]:
    """A side's runs with their names: that of the side where there is one, else numbered."""
    if len(runs) == 1:
        return [(side, runs[0])]
    return [(f"{side}{number}", run) for number, run in enumerate(runs, start=1)]


def average(runs: Sequence[Predictions]) -> Predictions:
    """The mean of several runs' probabilities, as one run; one run stays itself."""
    if len(runs) == 1:
        return runs[0]
    mean = np.mean([np.exp(run.log_probabilities) for run in runs], axis=0)
    with np.errstate(divide="ignore"):  # a probability of 0 has the logarithm -inf
        return Predictions(np.log(mean), runs[0].labels)


def find_disagreements(
    first: Sequence[Predictions], second: Sequence[Predictions], *, most: int
) -> np.ndarray:
    """(at most ``most``,) reviews that two sides give different classes, farthest apart first.

    How far is the total variation between their mean probabilities: half the sum of the absolute
    differences, which of two classes is the difference of either.
    """
    one, other = average(first), average(second)
    apart = np.exp(one.log_probabilities) - np.exp(other.log_probabilities)
    distances = np.abs(apart).sum(axis=1) / 2
    distances[one.predicted == other.predicted] = -1
    order = np.argsort(-distances, kind="stable")[:most]
    return order[distances[order] >= 0]


def _measure_side(
    name: str, runs: Sequence[Predictions], calibrated: Sequence[Predictions]
) -> SideFigures:
    figures = tuple(_measure_run(*each) for each in name_runs(name, runs))
    accuracies, nlls = [run.accuracy for run in figures], [run.nll for run in figures]
    means = SideFigures(name, figures, float(np.mean(accuracies)), float(np.mean(nlls)))
    if len(runs) == 1:
        return means
    return SideFigures(
        name,
        figures,
        means.accuracy,
        means.nll,
        accuracy_deviation=float(np.std(accuracies, ddof=1)),
        nll_deviation=float(np.std(nlls, ddof=1)),
        ensemble_accuracy=_accuracy(average(calibrated)),
    )


def _measure_run(name: str, run: Predictions) -> RunFigures:
    hits = find_hits(run)
    rows = np.arange(len(hits))
    return RunFigures(
        name=name,
        accuracy=_accuracy(run),
        accuracy_ci95=accuracy_interval(int(hits.sum()), len(hits)),
        nll=-float(run.log_probabilities[rows, run.labels].mean()),
    )


def _accuracy(run: Predictions) -> float:
    return float(find_hits(run).mean())
