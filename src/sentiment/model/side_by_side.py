"""Computations at once, each on its share of the threads.

The products of one time step of an LSTM are too small for many threads, and a barrier ends each of
them. The directions of a layer and the parts of its batch do not depend on each other, so each may
have its share of the threads to itself: faster on a quiet machine, and much faster on a busy one,
where each barrier waits for the thread that another process holds up.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Result = TypeVar("Result")


def run_side_by_side(job: Callable[[int], Result], count: int) -> list[Result]:
    """``[job(0), ..., job(count - 1)]``, as many at once as there are threads to share.

    Each worker takes the next job when it has done one, so that a slow one does fewer.

    Args:
        job: computes on the CPU, without a graph across jobs, and writes to nothing that another
            one reads or writes.
        count: how many jobs.
    """
    total = torch.get_num_threads()
    if count == 1 or total == 1:
        return [job(number) for number in range(count)]
    # Modes are a thread's own.
    is_inference, is_recorded = torch.is_inference_mode_enabled(), torch.is_grad_enabled()

    def run(number: int) -> Result:
        with torch.inference_mode(is_inference), torch.set_grad_enabled(is_recorded):
            return job(number)

    # A power of two: batches of all sizes then share a few pools, whose threads stay.
    workers = 1 << (min(count, total).bit_length() - 1)
    return list(_make_threads(workers, total).map(run, range(count)))


@functools.cache
def _make_threads(count: int, total: int) -> ThreadPoolExecutor:
    """So many workers, each with its share of the ``total`` threads of the caller."""
    share = max(1, total // count)  # what remains of an uneven division rests

    def start() -> None:
        torch.get_num_threads()  # a thread takes the common number when it first asks: not later
        torch.set_num_threads(share)
        torch.set_flush_denormal(True)  # else fading gradients take up to 15 times as long on Intel

    pool = ThreadPoolExecutor(count, "recurrence", start)
    # The number is a thread's own, but what was set last is the common one, with which any other
    # thread starts: once all of ours are up, it is the caller's again.
    everybody = threading.Barrier(count)
    list(pool.map(lambda _: everybody.wait(), range(count)))
    torch.set_num_threads(total)
    return pool


if hasattr(os, "register_at_fork"):  # a forked process has none of its parent's threads
    os.register_at_fork(after_in_child=_make_threads.cache_clear)
