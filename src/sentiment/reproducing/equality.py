"""Two runs side by side: weights, metrics and curves, to the bit."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sentiment.runs import load_run

# What depends on the clock and on the memory that is free.
_MEASURED = {"seconds", "tokens_per_second", "peak_memory_bytes"}


@dataclass(frozen=True)
class Likeness:
    """How far two runs are from each other.

    Attributes:
        weights: largest difference of a weight, of the best or the last ones.
        metrics: largest difference of a figure in metrics.json.
        curves: largest difference of a point in TensorBoard.
        num_points: points that were compared.
        problems: what stands in one run only, in words.
    """

    weights: float
    metrics: float
    curves: float
    num_points: int
    problems: tuple[str, ...]

    @property
    def is_equal(self) -> bool:
        """Whether nothing differs, to the bit."""
        return not self.problems and self.largest == 0

    @property
    def largest(self) -> float:
        """The largest difference of all."""
        return max(self.weights, self.metrics, self.curves)


def compare_runs(first: Path, second: Path) -> Likeness:
    """Compare two finished runs.

    Raises:
        FileNotFoundError, ValueError: one cannot be read.
    """
    problems: list[str] = []
    weights = max(_weights_distance(first, second, name, problems) for name in ("best", "last"))
    histories = [_without_measured(_read_metrics(run)) for run in (first, second)]
    metrics = _distance(histories[0], histories[1], "metrics.json", problems)
    curves = [_read_curves(run) for run in (first, second)]
    distance = _distance(curves[0], curves[1], "TensorBoard", problems)
    num_points = sum(len(points) for points in curves[0].values())
    return Likeness(weights, metrics, distance, num_points, tuple(problems))


def _weights_distance(first: Path, second: Path, name: str, problems: list[str]) -> float:
    runs = [load_run(path, checkpoint=name) for path in (first, second)]
    if runs[0].vocabulary.itos != runs[1].vocabulary.itos:
        problems.append("the vocabularies differ")
        return float("inf")
    states = [run.model.state_dict() for run in runs]
    if {key: value.shape for key, value in states[0].items()} != {
        key: value.shape for key, value in states[1].items()
    }:
        problems.append("the models differ")
        return float("inf")
    if runs[0].checkpoint.epoch != runs[1].checkpoint.epoch:
        epochs = " and ".join(str(run.checkpoint.epoch) for run in runs)
        problems.append(f"the {name} weights are of epochs {epochs}")
    return max(
        _difference(value.double().numpy(), states[1][key].double().numpy())
        for key, value in states[0].items()
    )


def _difference(first: np.ndarray, second: np.ndarray) -> float:
    """Largest difference; where one is no number and the other is another, it is infinite."""
    is_same = (first == second) | (np.isnan(first) & np.isnan(second))
    if is_same.all():
        return 0.0
    with np.errstate(invalid="ignore"):
        distance = np.abs(first - second)[~is_same]
    return float(np.nan_to_num(distance, nan=np.inf, posinf=np.inf).max())


def _read_metrics(run: Path) -> Any:
    return json.loads((run / "metrics.json").read_text(encoding="utf-8"))


def _without_measured(values: Any) -> Any:
    if isinstance(values, dict):
        return {key: _without_measured(each) for key, each in values.items()
                if key not in _MEASURED}  # fmt: skip
    return [_without_measured(each) for each in values] if isinstance(values, list) else values


def _read_curves(run: Path) -> dict[str, list[tuple[int, float]]]:
    """All scalars and the outlines of all histograms, by folder and tag."""
    # Takes a second, and only this needs it.
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found: dict[str, list[tuple[int, float]]] = {}
    for name in ("train", "validation"):
        folder = run / "tensorboard" / name
        events = EventAccumulator(str(folder), {"scalars": 0, "histograms": 0}).Reload()
        for tag in events.Tags()["scalars"]:
            if tag.rpartition("/")[2] not in _MEASURED:
                points = [(each.step, each.value) for each in events.Scalars(tag)]
                found[f"{name}/{tag}"] = sorted(points)
        for tag in events.Tags()["histograms"]:
            points = [(each.step, each.histogram_value.sum_squares) for each in
                      events.Histograms(tag)]  # fmt: skip
            found[f"{name}/{tag}"] = sorted(points)
    return found


def _distance(first: Any, second: Any, place: str, problems: list[str]) -> float:
    """Largest difference of two numbers in nested values; what has no partner is a problem."""
    if isinstance(first, dict) and isinstance(second, dict):
        for key in sorted(first.keys() ^ second.keys()):
            problems.append(f"{place}: {key} stands in one only")
        shared = [key for key in first if key in second]
        return max(
            (_distance(first[key], second[key], f"{place}: {key}", problems) for key in shared),
            default=0.0,
        )
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        if len(first) != len(second):
            problems.append(f"{place}: {len(first)} entries and {len(second)}")
        pairs = zip(first, second, strict=False)
        return max((_distance(one, two, place, problems) for one, two in pairs), default=0.0)
    if first == second or (first is second):
        return 0.0
    numbers = (int, float)
    if isinstance(first, numbers) and isinstance(second, numbers):
        return _difference(np.array(first, dtype=np.float64), np.array(second, dtype=np.float64))
    problems.append(f"{place}: {first!r} and {second!r}")
    return float("inf")
