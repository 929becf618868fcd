"""Processes: stopping on signals, and processes started by this one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from subprocess import CompletedProcess
from types import FrameType
from typing import Any, Literal

from sentiment.runtime.errors import UserError

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(Exception):
    """Training was stopped by a signal, and its checkpoint is written.

    Attributes:
        status: what the process is to exit with.
    """

    def __init__(self, number: int) -> None:
        self.status = 128 + number  # as a shell counts a program that a signal ended
        super().__init__(f"stopped by {signal.Signals(number).name}")


class StopRequests:
    """Notes a signal while its body runs, for training to end at the next whole step.

    Args:
        ends_at_second: whether a second signal ends the process at once. Ranks get each signal
            twice, from a terminal or scheduler and from their launcher, which ends those by itself
            that take too long.

    Attributes:
        signal: the number of the signal that came, 0 before.
    """

    def __init__(self, *, ends_at_second: bool = True) -> None:
        self.signal = 0
        self._ends_at_second = ends_at_second
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequests:
        # Python lets the main thread alone handle signals; elsewhere they do what they did.
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # A rank that fails has yet to say why, and its launcher, which ends all ranks when one is
        # gone, must not be faster.
        is_failing_rank = kind is not None and not self._ends_at_second
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_IGN if is_failing_rank else handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal:
            if self._ends_at_second:
                os._exit(128 + number)
            return
        self.signal = number
        again = b"; once more stops at once" if self._ends_at_second else b""
        # Not by print, which the signal may have interrupted.
        os.write(2, b"\nstopping after this step and a checkpoint" + again + b"\n")


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
    """Raise ``UserError`` unless a process ended as expected (negative: by that signal)."""
    if done.returncode == expected:
        return
    lines = (done.stderr or done.stdout or "its own message stands above").strip().splitlines()
    if done.returncode < 0:
        how = f"was ended by {signal.Signals(-done.returncode).name}"
    else:
        how = f"ended with status {done.returncode}"
    raise UserError(f"a training {how}: {lines[-1]}")


_MEANINGS = {
    signal.SIGILL: "the processor lacks an instruction that it needs",
    signal.SIGKILL: "killed, as a system does that is out of memory",
    signal.SIGSEGV: "a library crashed",
}


def how_it_ended(done: CompletedProcess[str]) -> str:
    """The signal that ended it, or the last line of what it said."""
    if done.returncode < 0:
        ended_by = signal.Signals(-done.returncode)
        meaning = _MEANINGS.get(ended_by, "")
        return f"{ended_by.name}{': ' * bool(meaning)}{meaning}"
    lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
    return lines[-1].strip() if lines else f"exit status {done.returncode}"
