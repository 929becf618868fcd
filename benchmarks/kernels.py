"""The oneDNN kernels that compute the recurrence, from oneDNN's verbose output in a child process.

oneDNN chooses by processor, precision and shape; its reference kernel can take several times as
long as others, so a ratio says little without the kernel's name.
https://uxlfoundation.github.io/oneDNN/dev_guide_verbose.html
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks.step import Shape, run_forward, step_seconds
from sentiment.environment import VARIABLES
from sentiment.runtime.device import prepare_threads

_LINE = re.compile(r"^onednn_verbose,.*\bexec,cpu,rnn,([^,]+),([^,]+),.*dhc(\d+)", re.MULTILINE)
_ROOT = Path(__file__).parent.parent


def parse_kernels(text: str, hidden: int) -> dict[str, str]:
    """The implementations of each propagation kind, from the output of ONEDNN_VERBOSE=1.

    Lines with another number of units than ``hidden`` are ignored: they are from probing a kernel.
    """
    kernels: dict[str, list[str]] = {}
    for implementation, kind, units in _LINE.findall(text):
        if int(units) != hidden:
            continue
        names = kernels.setdefault(kind, [])
        if implementation not in names:
            names.append(implementation)
    return {kind: " and ".join(names) for kind, names in kernels.items()}


def find_kernels(
    shape: Shape, precision: torch.dtype, variables: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The kernels of PackedLSTM by propagation kind; empty if oneDNN is not used.

    ``variables`` are environment variables in addition to those that the program sets.
    """
    name = str(precision).removeprefix("torch.")
    child = subprocess.run(
        [sys.executable, "-m", "benchmarks.kernels", json.dumps(asdict(shape)), name],
        env={**os.environ, **VARIABLES, **(variables or {}), "ONEDNN_VERBOSE": "1"},
        capture_output=True,
        text=True,
        check=True,
        cwd=_ROOT,
    )
    return parse_kernels(child.stdout, shape.hidden)


def describe_kernels(
    shape: Shape, precision: torch.dtype, variables: Mapping[str, str] | None = None
) -> str:
    """The kernels of :func:`find_kernels` as text: a single name if all are the same."""
    kernels = find_kernels(shape, precision, variables)
    if not kernels:
        return "not oneDNN"
    if len(set(kernels.values())) == 1:
        return next(iter(kernels.values()))
    return ", ".join(f"{kind.replace('_', ' ')} {name}" for kind, name in kernels.items())


def main() -> None:
    """In the child process: one training step and one inference step."""
    prepare_threads()
    shape, precision = Shape(**json.loads(sys.argv[1])), getattr(torch, sys.argv[2])
    step_seconds("PackedLSTM", shape, precision, settle=False)
    run_forward("PackedLSTM", shape, precision)


if __name__ == "__main__":
    main()
