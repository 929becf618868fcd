"""The largest differences between the weights, metrics and curves of two runs."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sentiment.runs.run import load_run

# They depend on the clock and on free memory.
_NOT_COMPARED = {"seconds", "tokens_per_second", "peak_memory_bytes"}


@dataclass(frozen=True)
class RunDiff:
    """How much two runs differ; an infinite difference means not comparable.

    Attributes:
        weights: largest difference of a weight, best or last.
        metrics: largest difference of a number in metrics.json.
        curves: largest difference of a point in TensorBoard.
        num_points: number of points compared.
        problems: other differences, in words.
    """

    weights: float
    metrics: float
    curves: float
    num_points: int
    problems: tuple[str, ...]

    @property
    def is_equal(self) -> bool:
        """Whether the runs are equal to the bit."""
        return not self.problems and self.largest == 0

    @property
    def largest(self) -> float:
        return max(self.weights, self.metrics, self.curves)


def compare_runs(first: Path, second: Path) -> RunDiff:
    """Compare two finished runs.

    Raises:
        FileNotFoundError, UserError: a run cannot be read.
    """
    problems: list[str] = []
    weights = max(_compare_weights(first, second, name, problems) for name in ("best", "last"))
    metrics = [json.loads((run / "metrics.json").read_text("utf-8")) for run in (first, second)]
    curves = [_read_curves(run) for run in (first, second)]
    return RunDiff(
        weights=weights,
        metrics=compare_values(metrics[0], metrics[1], "metrics.json", problems),
        curves=compare_values(curves[0], curves[1], "TensorBoard", problems),
        num_points=sum(map(len, curves[0].values())),
        problems=tuple(problems),
    )


def _compare_weights(first: Path, second: Path, name: str, problems: list[str]) -> float:
    one, other = (load_run(path, checkpoint=name) for path in (first, second))
    if one.vocabulary.itos != other.vocabulary.itos:
        problems.append("the vocabularies differ")
        return math.inf
    states = one.model.state_dict(), other.model.state_dict()
    shapes = [{key: tensor.shape for key, tensor in state.items()} for state in states]
    if shapes[0] != shapes[1]:
        problems.append("the models differ")
        return math.inf
    if one.checkpoint.epoch != other.checkpoint.epoch:
        epochs = f"{one.checkpoint.epoch} and {other.checkpoint.epoch}"
        problems.append(f"the {name} weights are of epochs {epochs}")
    return max(
        _difference(tensor.double().numpy(), states[1][key].double().numpy())
        for key, tensor in states[0].items()
    )


def _read_curves(run: Path) -> dict[str, list[tuple[int, float]]]:
    """All scalars, and the sums of squares of all histograms, by folder and tag."""
    # Imported here because it takes a second.
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    curves: dict[str, list[tuple[int, float]]] = {}
    for name in ("train", "validation"):
        folder = str(run / "tensorboard" / name)
        events = EventAccumulator(folder, {"scalars": 0, "histograms": 0}).Reload()
        for tag in events.Tags()["scalars"]:
            if tag.rpartition("/")[2] not in _NOT_COMPARED:
                points = [(event.step, event.value) for event in events.Scalars(tag)]
                curves[f"{name}/{tag}"] = sorted(points)
        for tag in events.Tags()["histograms"]:
            squares = [
                (event.step, event.histogram_value.sum_squares) for event in events.Histograms(tag)
            ]
            curves[f"{name}/{tag}"] = sorted(squares)
    return curves


def compare_values(first: Any, second: Any, where: str, problems: list[str]) -> float:
    """The largest difference of numbers in nested values; others are added to ``problems``."""
    if isinstance(first, dict) and isinstance(second, dict):
        for key in sorted((first.keys() ^ second.keys()) - _NOT_COMPARED):
            problems.append(f"{where}: only one has {key}")
        pairs = [
            (first[key], second[key], f"{where}: {key}")
            for key in first
            if key in second and key not in _NOT_COMPARED
        ]
    elif isinstance(first, list | tuple) and isinstance(second, list | tuple):
        if len(first) != len(second):
            problems.append(f"{where}: {len(first)} and {len(second)} entries")
        pairs = [(one, other, where) for one, other in zip(first, second, strict=False)]
    elif first == second or first is second:
        return 0.0
    elif isinstance(first, int | float) and isinstance(second, int | float):
        return _difference(np.float64(first), np.float64(second))
    else:
        problems.append(f"{where}: {first!r} and {second!r}")
        return math.inf
    return max((compare_values(*pair, problems) for pair in pairs), default=0.0)


def _difference(first: Any, second: Any) -> float:
    """The largest difference of two arrays; infinite where only one is NaN."""
    first, second = np.atleast_1d(first), np.atleast_1d(second)
    is_same = (first == second) | (np.isnan(first) & np.isnan(second))
    if is_same.all():
        return 0.0
    with np.errstate(invalid="ignore"):
        differences = np.abs(first - second)[~is_same]
    return float(np.nan_to_num(differences, nan=np.inf, posinf=np.inf).max())
