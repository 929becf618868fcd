"""Training time per review and memory, as the corpus grows to 64 times IMDB."""

from __future__ import annotations

import functools
import statistics
import tempfile
from pathlib import Path

import torch

from benchmarks.corpus import synthetic_corpus
from benchmarks.measure import Row, Worker, own_megabytes, timed
from benchmarks.training import TrainingParts, make_parts
from sentiment.training.meters import MeanMeter

NUM_REVIEWS = 25_000
FACTORS = (1, 4, 16, 64)
_ROUNDS, _UPDATES, _WARM_UP = 8, 15, 3  # the first updates of a turn are not timed


@functools.cache
def _parts(path: Path, factor: int) -> TrainingParts:
    return make_parts(synthetic_corpus(factor * NUM_REVIEWS, path=path))


def planning_seconds(path: Path, factor: int) -> float:
    """Building an epoch's batches."""
    sampler = _parts(path, factor).sampler
    sampler.set_epoch(1)
    return timed(lambda: len(sampler))


def seconds_per_token(path: Path, factor: int, turn: int) -> list[float]:
    """Of each update of a turn, batching included."""
    parts = _parts(path, factor)
    groups = parts.groups()[turn * _UPDATES : (turn + 1) * _UPDATES]
    sums = MeanMeter(torch.device("cpu"))
    seconds_per_update = []
    for group in groups:
        seconds = timed(functools.partial(parts.step, group, sums))
        seconds_per_update.append(seconds / parts.num_tokens(group))
    return seconds_per_update[_WARM_UP:]


def mean_length(path: Path, factor: int) -> float:
    """Mean tokens of a review, after truncation."""
    return float(_parts(path, factor).corpus.lengths.double().mean())


def private_megabytes() -> float:
    """Memory of this process without mapped files, whose pages the kernel can reclaim."""
    return own_megabytes("RssAnon")


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
        megabytes = [workers[factor](private_megabytes) for factor in FACTORS]
        for worker in workers.values():
            worker.close()
    points = {
        "factor": list(FACTORS),
        "milliseconds_per_review": milliseconds,
        "megabytes": megabytes,
    }
    results = []
    for name, values, unit, goal in (
        ("training time per review", milliseconds, "ms", 1.1),
        ("training memory", megabytes, "MB", None),
    ):
        for factor, value in zip(FACTORS[1:], values[1:], strict=True):
            label = f"{name}, {factor} × {NUM_REVIEWS:,} reviews vs 1 ×"
            results.append(
                Row(
                    "growth",
                    label,
                    value / values[0],
                    value=f"{value:.3g} {unit}",
                    goal=goal,
                    headline=factor == 64 and unit == "ms",
                )
            )
    return results, points


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
