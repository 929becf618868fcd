"""Every section of the benchmarks runs, at sizes too small to measure speed, without processes.

``make bench`` takes too long to run after each change, so a renamed attribute must show here.
"""

from __future__ import annotations

import functools
import itertools
import json
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import ranks, training
from benchmarks.gpu import speed
from benchmarks.measure import Row
from benchmarks.run import sections
from benchmarks.step import Shape

TINY_SHAPE = Shape(batch=2, time=3, input=3, hidden=4)
SIZES = {
    "recurrence._BUSY_ROUNDS": 1,
    "recurrence.flush_denormals": lambda is_wanted: True,  # later tests would keep it
    "constants._LETTERS": "bc",
    "constants._PROCESSES": 1,
    "constants._ROUNDS": 1,
    "growth.NUM_REVIEWS": 8,
    "growth._ROUNDS": 1,
    "growth._WARM_UP": 1,
    "growth._UPDATES": 2,
    "peers._BATCH": 2,
    "peers._TIME": 3,
    "peers.synthetic_lengths": lambda count, seed: np.full(count, 3),
    "inference._NUM_TEXTS": 4,
    "recurrence.USUAL": TINY_SHAPE,
    "recurrence._SQUARE": 8,
    "recurrence._VARIANTS": (replace(TINY_SHAPE, layers=2),),
    "text._NUM_TEXTS": 4,
    "text._WORDS": 64,
    "text._peak_megabytes": itertools.count(1).__next__,
    "training._NUM_REVIEWS": 8,
    "training._PRETRAINING_REVIEWS": 4,
    "training.CONFIG": replace(
        training.CONFIG,
        model=replace(training.CONFIG.model, embedding_size=3, hidden_size=4),
        training=replace(training.CONFIG.training, batch_size=4),
    ),
}


class InlineWorker:
    """Calls functions in this process; another one takes seconds to start."""

    def __init__(self, *, prepared: bool, variables: dict[str, str] | None = None) -> None:
        pass

    def __enter__(self) -> InlineWorker:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return function(*arguments)

    def close(self) -> None:
        pass


REPLACED = {
    "Worker": InlineWorker,
    "apart": lambda function, *arguments: function(*arguments),
    "prepare_threads": lambda local_size=1: None,  # later tests would keep it
    "describe_kernels": lambda shape, precision, variables=None: "ref",
    "texts": lambda folder, count: ["A fine film , said word7 .", "Dull !"] * (count // 2),
    "CONFIG": SIZES["training.CONFIG"],
}


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tiny sizes, in this process; caches are cleared afterwards."""
    modules = [module for name, module in sys.modules.items() if name.startswith("benchmarks.")]
    for module, (name, value) in itertools.product(modules, REPLACED.items()):
        if hasattr(module, name):
            monkeypatch.setattr(module, name, value)
    for name, value in SIZES.items():
        monkeypatch.setattr(f"benchmarks.{name}", value)
    yield
    for value in itertools.chain.from_iterable(vars(module).values() for module in modules):
        if isinstance(value, functools._lru_cache_wrapper):
            value.cache_clear()


def check(rows: list[Row]) -> None:
    """Rows have names, and finite ratios."""
    assert rows
    for row in rows:
        assert row.section and row.name
        assert row.ratio is None or math.isfinite(row.ratio)


SECTIONS = list(sections(InlineWorker(prepared=True), InlineWorker(prepared=False), None, {}))


@pytest.mark.parametrize("name", [name for name in SECTIONS if name not in ("cuda", "ranks")])
def test_every_section_measures(name):
    points: dict[str, list[float]] = {}
    workers = InlineWorker(prepared=True), InlineWorker(prepared=False)
    check(sections(*workers, None, points)[name]())
    assert bool(points) == (name == "growth")


def test_the_section_of_the_gpu_measures():
    check(speed.rows(torch.device("cpu"), SIZES["training.CONFIG"], speed.TINY))


def test_the_section_of_ranks_measures(monkeypatch, tmp_path):
    """With one rank at a time: starting two takes as long as all other tests here."""

    def train(num_ranks: int, size: ranks.Size) -> dict[str, float]:
        path = tmp_path / "found.json"
        ranks.train_as_rank(size, path)
        return json.loads(path.read_text(encoding="utf-8"))

    monkeypatch.setattr("benchmarks.ranks._train", train)
    check(ranks.rows(None, replace(ranks.TINY, reviews=8)))
