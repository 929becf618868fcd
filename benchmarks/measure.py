"""How everything here is measured: in turns, in processes of their own, as ratios of medians.

Absolute times move with what else the machine does; two things measured in turns in one run are
met by the same. Each contestant runs in a worker, a process that keeps what it has built and whose
environment is set before torch is loaded: ``prepared`` as the program's entry points set it,
``plain`` as torch comes. Rivals have workers of their own, as they would have scripts of their own:
how fast memory is to be had depends on what a process gave back before.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

from sentiment.runtime.environment import VARIABLES, set_variables

_COSTS = ("growth",)  # sections whose ratios are better the smaller they are


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        section: what kind of thing was measured.
        name: what was measured, against what.
        ratio: the result: times as fast, or a share; None where ``value`` is all there is.
        low, high: the smallest and the largest ratio among the rounds.
        value: the measured quantity behind it, for orientation alone.
        goal: what the ratio is meant to reach, None where nothing is.
        headline: whether a newcomer asks for it first.
        kernel: the oneDNN kernels that ran, where a recurrence was measured.
    """

    section: str
    name: str
    ratio: float | None
    low: float | None = None
    high: float | None = None
    value: str = ""
    goal: float | None = None
    headline: bool = False
    kernel: str = ""

    @property
    def misses_goal(self) -> bool:
        """Whether the ratio falls short of its goal, or exceeds it where less is better."""
        if self.ratio is None or self.goal is None:
            return False
        is_cost = self.section in _COSTS
        return self.ratio > self.goal if is_cost else self.ratio < self.goal


class Worker:
    """A process that calls functions, one at a time.

    Args:
        prepared: whether its environment is the one that the program sets for itself.
        variables: environment variables beside these.
    """

    def __init__(self, *, prepared: bool, variables: Mapping[str, str] | None = None) -> None:
        before = dict(os.environ)
        for name in VARIABLES:
            os.environ.pop(name, None)
        if prepared:
            set_variables()
        os.environ.update(variables or {})
        self._pool = ProcessPoolExecutor(1, get_context("spawn"))
        try:
            self._pool.submit(_start, prepared).result()  # now, with this environment
        finally:
            os.environ.clear()
            os.environ.update(before)

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return self._pool.submit(function, *arguments).result()

    def close(self) -> None:
        self._pool.shutdown()


def _start(prepared: bool) -> None:
    from sentiment.runtime.device import prepare_threads

    if prepared:
        prepare_threads()


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function returns in a new process, in which no other one has left memory behind."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def in_turns(
    contestants: dict[str, Callable[[], float]], rounds: int, *, warm_up: int = 1
) -> dict[str, list[float]]:
    """Seconds of each contestant in each round, all of them in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(-warm_up, rounds):
        for name, measure in contestants.items():
            taken = measure()
            if turn >= 0:
                seconds[name].append(taken)
    return seconds


def faster(
    section: str,
    name: str,
    theirs: list[float],
    ours: list[float],
    goal: float | None = None,
    *,
    headline: bool = False,
) -> Row:
    """How many times as fast ``ours`` is; one measurement of a slow contestant stands for all."""
    theirs = theirs * len(ours) if len(theirs) == 1 else theirs
    ratios = [one / other for one, other in zip(theirs, ours, strict=True)]
    median_theirs, median_ours = statistics.median(theirs), statistics.median(ours)
    value = f"{median_theirs:.4g} s : {median_ours:.4g} s"
    ratio = median_theirs / median_ours
    return Row(section, name, ratio, min(ratios), max(ratios), value, goal, headline)


def settled(function: Callable[[], object]) -> float:
    """Seconds that a call takes after another one.

    Steps of a training follow each other; a machine that takes back what is free between two turns
    would make each of them a first one.
    """
    function()
    return timed(function)


def timed(function: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started
