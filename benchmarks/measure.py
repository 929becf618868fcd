"""How to measure: contestants take turns in separate processes, and results are ratios of medians.

Absolute times depend on what else the machine does, which affects alternating measurements alike.
Each contestant runs in a worker, a process that keeps what it has built and whose environment is
set before torch is imported: ``prepared`` as by the program's entry points, ``plain`` as torch's
default. Rivals have separate workers, because allocation is faster or slower depending on what a
process freed before.
"""

from __future__ import annotations

import os
import re
import statistics
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from sentiment.environment import VARIABLES, set_variables

_COSTS = ("growth",)  # sections in which lower ratios are better


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        section: the heading it belongs to.
        name: "what is measured vs the reference".
        ratio: speed-up or share; None if there is only a ``value``.
        low, high: the lowest and the highest ratio over the rounds.
        value: the measured quantity, for orientation only.
        goal: what the ratio should reach, or None.
        headline: whether the README shows it.
        kernel: the oneDNN kernels that ran, for a recurrence.
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
        """Whether the ratio is below its goal, or above it if lower is better."""
        if self.ratio is None or self.goal is None:
            return False
        is_cost = self.section in _COSTS
        return self.ratio > self.goal if is_cost else self.ratio < self.goal


class Worker:
    """A process that calls functions, one at a time.

    Args:
        prepared: whether its environment is set as by the program's entry points.
        variables: additional environment variables.
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
    """Call a function in a new process, with fresh memory."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def in_turns(
    contestants: dict[str, Callable[[], float]], rounds: int, *, warm_up: int = 1
) -> dict[str, list[float]]:
    """Seconds of each contestant in each round, with the contestants taking turns."""
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
    """The speed-up of ``ours``; ``theirs`` may be a single measurement, used for all rounds."""
    theirs = theirs * len(ours) if len(theirs) == 1 else theirs
    ratios = [one / other for one, other in zip(theirs, ours, strict=True)]
    median_theirs, median_ours = statistics.median(theirs), statistics.median(ours)
    value = f"{median_ours:.4g} s vs {median_theirs:.4g} s"
    ratio = median_theirs / median_ours
    return Row(section, name, ratio, min(ratios), max(ratios), value, goal, headline)


def settled(function: Callable[[], object]) -> float:
    """Seconds of a call right after another one, as in training.

    Between two turns, a virtual machine may return free memory to its host.
    """
    function()
    return timed(function)


def timed(function: Callable[[], object]) -> float:
    """Seconds of a call."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def own_megabytes(name: str) -> float:
    """A figure of this process's memory in Linux's /proc/self/status, such as VmHWM, its peak."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    match = re.search(rf"{name}:\s+(\d+) kB", status)
    return int(match[1]) / 1024 if match else float("nan")
