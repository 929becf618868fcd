"""The recurrence where gradients shrink to denormal numbers, on which a processor can be slow.

A gradient that comes from the last state alone shrinks with each step back in time. Below 1.2e-38
fp32 is denormal: some processors compute with such numbers in microcode, a hundred times as slowly,
unless ``torch.set_flush_denormal`` makes them zero. It is one line in a program of one's own.
"""

from __future__ import annotations

import functools

import torch

from benchmarks.measure import Row, Worker, faster, in_turns
from benchmarks.step import USUAL, step_seconds

_SECTION = "recurrence with denormal numbers"
_ROUNDS = 5
_GRADIENT = f"gradient of the last state alone, {USUAL}"


def flush_denormals(is_wanted: bool) -> bool:
    """Whether denormal numbers count as zero, in this thread and those it starts.

    Called before any tensor is computed: threads that run already would keep their mode.

    Returns:
        Whether the processor lets it be chosen.
    """
    return torch.set_flush_denormal(is_wanted)


def rows() -> list[Row]:
    """What flushing is worth to nn.LSTM, and PackedLSTM, which flushes, against it."""
    fp32 = torch.float32
    with (
        Worker(prepared=True) as ours,
        Worker(prepared=False) as keeping,
        Worker(prepared=False) as flushing,
    ):
        if not flushing(flush_denormals, True):
            name = "denormal numbers flushed: not measured, as this processor does not offer it"
            return [Row(_SECTION, name, None)]
        packed = functools.partial(step_seconds, "packed nn.LSTM", USUAL, fp32, False, True)
        padded = functools.partial(step_seconds, "padded nn.LSTM", USUAL, fp32, True, True)
        step = functools.partial(step_seconds, "PackedLSTM", USUAL, fp32, True, True)
        slow = keeping(packed)
        seconds = in_turns(
            {
                "ours": lambda: ours(step),
                "kept": lambda: keeping(padded),
                "flushed": lambda: flushing(padded),
            },
            _ROUNDS,
            warm_up=2,
        )
    return [
        faster(
            _SECTION,
            f"nn.LSTM fp32 on a padded batch, denormals flushed : kept, {_GRADIENT}",
            seconds["kept"],
            seconds["flushed"],
            headline=True,
        ),
        faster(
            _SECTION,
            f"PackedLSTM fp32 : packed nn.LSTM fp32 as torch comes (once), {_GRADIENT}",
            [slow],
            seconds["ours"],
        ),
    ]
