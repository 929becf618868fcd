"""The program started again, in a process of its own or in several ranks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Literal

Output = Literal["kept", "shown", "on stderr"]

_STDERR = 2
_RANKS = [sys.executable, "-m", "torch.distributed.run", "--standalone"]


def run_module(
    arguments: Sequence[str],
    *,
    num_ranks: int = 1,
    num_threads: int | None = None,
    output: Output = "kept",
) -> subprocess.CompletedProcess[str]:
    """Run ``python -m`` with these arguments, and wait for its end.

    Args:
        arguments: a module and what it is to do.
        num_ranks: processes that torch's launcher is to start; 1 does without it.
        num_threads: of each process; None lets it take its share of the cores.
        output: whether what it says is kept for :func:`check_end`, shown as it comes, or shown
            on standard error alone, where standard output is for programs to read.
    """
    launcher = [sys.executable]
    if num_ranks > 1:
        launcher = [*_RANKS, f"--nproc-per-node={num_ranks}"]
    environment = dict(os.environ)
    if num_threads is not None:
        environment["OMP_NUM_THREADS"] = str(num_threads)
    kept = subprocess.PIPE if output == "kept" else None
    process = subprocess.Popen(
        [*launcher, "-m", *arguments],
        stdout=_STDERR if output == "on stderr" else kept,
        stderr=kept,
        env=environment,
        text=True,
    )
    try:
        stdout, stderr = process.communicate()
    except BaseException:  # Ctrl-C: a launcher that was killed would leave its ranks behind
        process.terminate()
        process.communicate()
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def check_end(done: subprocess.CompletedProcess[str], expected: int = 0) -> None:
    """Raise ``ValueError`` unless a process ended as expected (negative: by that signal)."""
    if done.returncode == expected:
        return
    lines = (done.stderr or done.stdout or "its own message stands above").strip().splitlines()
    if done.returncode < 0:
        how = f"was ended by {signal.Signals(-done.returncode).name}"
    else:
        how = f"ended with status {done.returncode}"
    raise ValueError(f"a training {how}: {lines[-1]}")
