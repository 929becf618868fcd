"""The recurrence where gradients shrink to denormal numbers, on which a processor can be slow.

A gradient that comes from the last state alone shrinks with each step back in time. Below 1.2e-38
fp32 is denormal: processors compute with such numbers in microcode, or treat them as zero where
``torch.set_flush_denormal`` asks for it.
"""

from __future__ import annotations

import functools

import torch

from benchmarks.measure import Row, Worker, faster, in_turns
from benchmarks.step import USUAL, step_seconds

_SECTION = "recurrence with denormal numbers"
_ROUNDS = 5


def flush_denormals() -> bool:
    """Treat denormal numbers as zero, in this thread and those it starts; whether that works.

    Called before any tensor is computed: threads that run already would keep their mode.
    """
    return torch.set_flush_denormal(True)


def rows() -> list[Row]:
    """PackedLSTM as it is, with denormal numbers flushed, and against nn.LSTM."""
    fp32 = torch.float32
    with (
        Worker(prepared=True) as ours,
        Worker(prepared=True) as flushing,
        Worker(prepared=False) as theirs,
    ):
        slow = theirs(step_seconds, "packed nn.LSTM", USUAL, fp32, False, True)
        step = functools.partial(step_seconds, "PackedLSTM", USUAL, fp32, True, True)
        contestants = {"ours": functools.partial(ours, step)}
        if flushing(flush_denormals):
            contestants["flushing"] = functools.partial(flushing, step)
        seconds = in_turns(contestants, _ROUNDS, warm_up=2)
    kind, shape = "PackedLSTM fp32, gradient of the last state alone", str(USUAL)
    found = [
        faster(_SECTION, f"{kind} : packed nn.LSTM fp32 (once), {shape}", [slow], seconds["ours"])
    ]
    if "flushing" not in seconds:
        name = f"{kind}, denormal numbers flushed: not measured, as this processor cannot"
        return [*found, Row(_SECTION, name, None)]
    flushed = "denormal numbers flushed"
    return [
        *found,
        faster(_SECTION, f"{kind}, {flushed} : packed nn.LSTM fp32 (once), {shape}", [slow],
               seconds["flushing"]),
        faster(_SECTION, f"{kind} : itself with {flushed}, {shape}", seconds["flushing"],
               seconds["ours"]),
    ]  # fmt: skip
