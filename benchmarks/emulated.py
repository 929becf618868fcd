"""The recurrence on processors with fewer instructions, which this one stands in for.

torch, oneDNN and MKL are told to use no more than the other processor has. What that processor's
caches and clock would do is not shown, but which kernels it runs, and what they are worth, is.
https://uxlfoundation.github.io/oneDNN/dev_guide_cpu_dispatcher_control.html
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from benchmarks.kernels import describe_kernels
from benchmarks.machine import find_processor
from benchmarks.measure import Row, Worker, faster, in_turns
from benchmarks.step import USUAL, step_seconds

_SECTION = "recurrence on emulated processors"
_ROUNDS = 5


@dataclass(frozen=True)
class Emulation:
    """A processor to stand in for.

    Attributes:
        name: what it has.
        flag: what this processor must have for that.
        variables: the environment in which libraries use no more.
        goal: how many times as fast as nn.LSTM the step is meant to be.
        headline: whether a newcomer asks for it first.
    """

    name: str
    flag: str
    variables: Mapping[str, str]
    goal: float | None = None
    headline: bool = False


EMULATIONS = (
    Emulation(
        "AVX2 alone",
        "avx2",
        {
            "ATEN_CPU_CAPABILITY": "avx2",
            "ONEDNN_MAX_CPU_ISA": "AVX2",
            "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        },
        goal=10,
        headline=True,
    ),
    Emulation("AVX-512 without bf16", "avx512f", {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"}),
)


def rows() -> list[Row]:
    """A row for each emulated processor, which says so where this one cannot emulate it."""
    flags = find_processor().flags
    return [
        _measured(each)
        if each.flag in flags
        else Row(_SECTION, f"{each.name}: not measured, as this processor lacks {each.flag}", None)
        for each in EMULATIONS
    ]


def _measured(emulation: Emulation) -> Row:
    fp32, variables = torch.float32, emulation.variables
    with (
        Worker(prepared=True, variables=variables) as ours,
        Worker(prepared=False, variables=variables) as theirs,
    ):
        slow = theirs(step_seconds, "packed nn.LSTM", USUAL, fp32, False)
        step = functools.partial(ours, step_seconds, "PackedLSTM", USUAL, fp32)
        taken = in_turns({"ours": step}, _ROUNDS, warm_up=2)["ours"]
    name = f"{emulation.name}, emulated: PackedLSTM fp32 : packed nn.LSTM fp32 (once), {USUAL}"
    row = faster(_SECTION, name, [slow], taken, emulation.goal, headline=emulation.headline)
    return replace(row, kernel=describe_kernels(USUAL, fp32, variables))
