"""Stopping on signals, and child processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from types import FrameType
from typing import Any, Literal, NoReturn

from sentiment.runtime.errors import UserError

# Windows has no SIGKILL: there SIGTERM ends a process at once, with the signal as its status.
_KILL = getattr(signal, "SIGKILL", signal.SIGTERM)
KILLED = -_KILL if os.name == "posix" else int(_KILL)  # a killed child's return code


class Interrupted(Exception):
    """A signal stopped training after a checkpoint; ``status`` is the process's exit status."""

    def __init__(self, number: int) -> None:
        self.signal = number
        self.status = 128 + number  # as shells report a program that a signal ended
        super().__init__(f"stopped by {signal.Signals(number).name}")


class StopRequests:
    """While its body runs, notes SIGINT and SIGTERM, for training to stop after the next step.

    With ``ends_at_second``, a second one does not wait: SIGINT raises ``KeyboardInterrupt``, and
    SIGTERM ends the process. Not for ranks: they get each signal twice, from the terminal or
    scheduler and from their launcher, which itself ends ranks that take too long.
    """

    def __init__(self, *, ends_at_second: bool = True) -> None:
        self.signal = 0  # the first signal received
        self._ends_at_second = ends_at_second
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopRequests:
        # Python lets only the main thread set handlers; other threads keep the usual ones.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # A failing rank must still print its error before the launcher, which ends all ranks when
        # one is gone, ends it too.
        is_failing_rank = kind is not None and not self._ends_at_second
        for number, handler in self._previous.items():
            signal.signal(number, signal.SIG_IGN if is_failing_rank else handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal:
            if self._ends_at_second and number == signal.SIGINT:
                raise KeyboardInterrupt
            if self._ends_at_second:
                os._exit(128 + number)
            return
        self.signal = number
        hint = b"; a second signal stops at once" if self._ends_at_second else b""
        # os.write, because the signal may have interrupted a print.
        os.write(2, b"\nstopping after this step and a checkpoint" + hint + b"\n")


def kill_this_process() -> NoReturn:
    """End at once, without cleaning up, as after a power cut."""
    os.kill(os.getpid(), _KILL)
    raise AssertionError("unreachable")


Output = Literal["kept", "shown", "on stderr"]

_STDERR = 2
_LAUNCHER = [sys.executable, "-m", "torch.distributed.run", "--standalone"]


def run_module(
    arguments: Sequence[str],
    *,
    num_ranks: int = 1,
    num_threads: int | None = None,
    output: Output = "kept",
) -> subprocess.CompletedProcess[str]:
    """Run ``python -m`` with a module and its arguments until it ends.

    Several ranks are started by torch's launcher; without ``num_threads``, each takes its share of
    the cores. ``output`` is kept for :func:`check_exit`, shown as it comes, or shown on standard
    error, where standard output is for programs to read.
    """
    command = [sys.executable]
    if num_ranks > 1:
        command = [*_LAUNCHER, f"--nproc-per-node={num_ranks}"]
    environment = dict(os.environ)
    if num_threads is not None:
        environment["OMP_NUM_THREADS"] = str(num_threads)
    kept = subprocess.PIPE if output == "kept" else None
    process = subprocess.Popen(
        [*command, "-m", *arguments],
        stdout=_STDERR if output == "on stderr" else kept,
        stderr=kept,
        env=environment,
        text=True,
    )
    try:
        stdout, stderr = process.communicate()
    except BaseException:  # Ctrl-C: terminated, a launcher ends its ranks; killed, it would not
        process.terminate()
        process.communicate()
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def check_exit(process: subprocess.CompletedProcess[str], expected: int = 0) -> None:
    """Refuse the result of a training that did not return the expected code."""
    if process.returncode != expected:
        output = process.stderr or process.stdout or "see its message above"
        raise UserError(f"a training failed: {describe_exit(process.returncode, output)}")


_MEANINGS = {
    "SIGILL": "the processor lacks an instruction it needs",
    "SIGKILL": "killed, as the system does when it runs out of memory",
    "SIGSEGV": "a library crashed",
}


def describe_exit(returncode: int, output: str) -> str:
    """Why a process failed: the signal that ended it, or its last error or line of output."""
    if returncode < 0:
        name = signal.Signals(-returncode).name
        return f"{name}: {_MEANINGS[name]}" if name in _MEANINGS else f"ended by {name}"
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line.partition("error: ")[2] for line in lines if "error: " in line]
    return (errors or lines or [f"exit status {returncode}"])[-1]
