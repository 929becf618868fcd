"""The recurrence while another process keeps a core busy, as on a desktop or a shared server."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event

import torch

from benchmarks.machine import num_cores
from benchmarks.measure import Row, Worker, faster, in_turns
from benchmarks.step import USUAL, step_seconds
from sentiment.runtime.device import find_precision

_SECTION = "recurrence beside other work"
_ROUNDS = 7
_SIZE = 512  # rows of the matrices that the other process multiplies


def rows() -> list[Row]:
    """The step beside a busy core against the step on the quiet machine."""
    if num_cores() == 1:
        return [Row(_SECTION, "one of several cores busy: not measured, as there is one", None)]
    precision = find_precision("auto", torch.device("cpu"))
    with Worker(prepared=True) as worker:
        step = functools.partial(worker, step_seconds, "PackedLSTM", USUAL, precision)

        def beside() -> float:
            with busy_core():
                return step()

        for _ in range(2):
            step()
        seconds = in_turns({"quiet": step, "busy": beside}, _ROUNDS, warm_up=0)
    short = "fp32" if precision == torch.float32 else "bf16"
    name = f"PackedLSTM {short} with one core busy : itself on the quiet machine, {USUAL}"
    return [faster(_SECTION, name, seconds["quiet"], seconds["busy"])]


@contextmanager
def busy_core() -> Iterator[BaseProcess]:
    """A context in which another process computes matrix products on one thread."""
    context = get_context("spawn")
    started = context.Event()
    process = context.Process(target=_multiply, args=(started, os.getpid()), daemon=True)
    process.start()
    try:
        if not started.wait(timeout=60):
            raise RuntimeError("the process that was to keep a core busy has not started")
        yield process
    finally:
        process.kill()
        process.join()


def _multiply(started: Event, parent: int) -> None:
    torch.set_num_threads(1)
    a = torch.randn(_SIZE, _SIZE)
    out = torch.mm(a, a)
    started.set()
    while os.getppid() == parent:  # which may be killed before it can end this process
        torch.mm(a, a, out=out)
