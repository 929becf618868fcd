"""GRU and plain RNN through the packed machinery, against PyTorch's own and against the LSTM."""

from __future__ import annotations

import functools

import torch

from benchmarks.measure import Row, Worker, faster, in_turns
from benchmarks.step import USUAL, step_seconds

_SECTION = "cells"
_SHAPE = str(USUAL).removeprefix("BiLSTM ")
_PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def rows() -> list[Row]:
    """Each cell in each precision, in turns; PyTorch's packed ones once, as they are so slow."""
    ours, theirs = Worker(prepared=True), Worker(prepared=False)
    try:
        slow = {
            cell: theirs(step_seconds, f"packed nn.{cell}", USUAL, torch.float32, False)
            for cell in ("GRU", "RNN")
        }
        found = []
        for name, precision in _PRECISIONS.items():
            seconds = in_turns(
                {
                    cell: functools.partial(ours, step_seconds, f"Packed{cell}", USUAL, precision)
                    for cell in ("LSTM", "GRU", "RNN")
                },
                5,
                warm_up=2,
            )
            for cell, goal in (("GRU", 0.75), ("RNN", 1.0)):
                title = f"Packed{cell} {name} : packed nn.{cell} fp32 (once), both directions "
                found.append(faster(_SECTION, title + _SHAPE, [slow[cell]], seconds[cell]))
                title = f"Packed{cell} {name} : PackedLSTM {name}, both directions {_SHAPE}"
                found.append(faster(_SECTION, title, seconds["LSTM"], seconds[cell], goal))
        return found
    finally:
        ours.close()
        theirs.close()
