"""Whether training stays as fast, and in bounds of memory, as the corpus grows to 64 times IMDB."""

from __future__ import annotations

import functools
import re
import statistics
import tempfile
from pathlib import Path

import torch

from benchmarks.corpus import synthetic_corpus
from benchmarks.measure import Row, Worker, timed
from benchmarks.training import TrainingParts, make_parts
from sentiment.training.meters import MeanMeter

NUM_REVIEWS = 25_000
FACTORS = (1, 4, 16, 64)
_ROUNDS, _UPDATES, _SETTLING = 8, 15, 3  # the first of a turn are not timed


@functools.cache
def _parts(path: Path, factor: int) -> TrainingParts:
    return make_parts(synthetic_corpus(factor * NUM_REVIEWS, path=path))


def planning_seconds(path: Path, factor: int) -> float:
    """Putting an epoch's batches together."""
    sampler = _parts(path, factor).sampler
    sampler.set_epoch(1)
    return timed(lambda: len(sampler))


def seconds_per_token(path: Path, factor: int, turn: int) -> list[float]:
    """Of each of some updates, batching included."""
    parts = _parts(path, factor)
    groups = parts.groups()[turn * _UPDATES : (turn + 1) * _UPDATES]
    sums = MeanMeter(torch.device("cpu"))
    found = []
    for group in groups:
        seconds = timed(functools.partial(parts.updates.step, group, sums))
        found.append(seconds / parts.num_tokens(group))
    return found[_SETTLING:]


def mean_length(path: Path, factor: int) -> float:
    """Tokens kept of a review."""
    return float(_parts(path, factor).corpus.lengths.double().mean())


def own_megabytes() -> float:
    """Memory of this process, without the pages of mapped files, which the kernel may take back."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    found = re.search(r"RssAnon:\s+(\d+) kB", status)
    return int(found[1]) / 1024 if found else float("nan")


def rows() -> tuple[list[Row], dict[str, list[float]]]:
    """The rows, and the points of the plot."""
    with tempfile.TemporaryDirectory() as folder:
        workers = {factor: Worker(prepared=True) for factor in FACTORS}
        paths = {factor: Path(folder) / f"{factor}.npy" for factor in FACTORS}
        planning = {
            factor: worker(planning_seconds, paths[factor], factor)
            for factor, worker in workers.items()
        }
        taken: dict[int, list[float]] = {factor: [] for factor in FACTORS}
        for turn in range(_ROUNDS):
            for factor, worker in workers.items():
                taken[factor] += worker(seconds_per_token, paths[factor], factor, turn)
        tokens_per_review = workers[1](mean_length, paths[1], 1)
        milliseconds = [
            1000
            * (statistics.median(taken[f]) * tokens_per_review + planning[f] / (f * NUM_REVIEWS))
            for f in FACTORS
        ]
        megabytes = [workers[factor](own_megabytes) for factor in FACTORS]
        for worker in workers.values():
            worker.close()
    points = {
        "factor": list(FACTORS),
        "milliseconds_per_review": milliseconds,
        "megabytes": megabytes,
    }
    found = []
    for name, values, unit, goal in (
        ("time per review", milliseconds, "ms", 1.1),
        ("memory of training", megabytes, "MB", None),
    ):
        for factor, value in zip(FACTORS[1:], values[1:], strict=True):
            label = f"{name} at {factor} × {NUM_REVIEWS:,} reviews : at 1 ×"
            found.append(
                Row(
                    "growth",
                    label,
                    value / values[0],
                    value=f"{value:.3g} {unit}",
                    goal=goal,
                    headline=factor == 64,
                )
            )
    return found, points


def plot(points: dict[str, list[float]], path: Path) -> None:
    """Time per review and memory over the size of the corpus, as an SVG."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(8, 2.8), layout="constrained")
    labels = [f"{int(factor)}×" for factor in points["factor"]]
    for axes, key, title in (
        (left, "milliseconds_per_review", "training, milliseconds per review"),
        (right, "megabytes", "memory of the process, MB"),
    ):
        axes.plot(labels, points[key], marker="o", color="#1f5fa8")
        axes.set_ylim(0, 1.25 * max(points[key]))
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("corpus, times 25,000 reviews", fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.3)
    figure.savefig(path)
    pyplot.close(figure)
