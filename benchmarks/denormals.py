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
_GRADIENT = f"gradient of the last state alone, {USUAL}"


def flush_denormals(is_wanted: bool) -> bool:
    """Whether denormal numbers count as zero, in this thread and those it starts.

    Called before any tensor is computed: threads that run already would keep their mode.

    Returns:
        Whether the processor lets it be chosen.
    """
    return torch.set_flush_denormal(is_wanted)


def rows() -> list[Row]:
    """PackedLSTM with denormal numbers kept and flushed, and nn.LSTM, which comes with them kept.

    PackedLSTM may flush them in threads of its own, whatever is asked for.
    """
    fp32 = torch.float32
    with (
        Worker(prepared=True) as keeping,
        Worker(prepared=True) as flushing,
        Worker(prepared=False) as theirs,
    ):
        can_choose = keeping(flush_denormals, False) and flushing(flush_denormals, True)
        if not can_choose:
            name = "denormal numbers flushed: not measured, as this processor does not offer it"
            return [Row(_SECTION, name, None)]
        slow = theirs(step_seconds, "packed nn.LSTM", USUAL, fp32, False, True)
        step = functools.partial(step_seconds, "PackedLSTM", USUAL, fp32, True, True)
        seconds = in_turns(
            {"kept": lambda: keeping(step), "flushed": lambda: flushing(step)},
            _ROUNDS,
            warm_up=2,
        )
    found = []
    for mode, taken in seconds.items():
        name = f"PackedLSTM fp32, denormals {mode} : packed nn.LSTM fp32 (once), {_GRADIENT}"
        found.append(faster(_SECTION, name, [slow], taken))
    name = f"PackedLSTM fp32, denormals kept : itself with denormals flushed, {_GRADIENT}"
    return [*found, faster(_SECTION, name, seconds["flushed"], seconds["kept"])]
