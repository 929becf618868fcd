"""A trial's training, in a process of its own: a crash, or memory not given back, is its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from sentiment.bounds import shortened
from sentiment.shown import printable

_TRAIN = [sys.executable, "-m", "sentiment", "train"]
_LOOK_SECONDS = 0.2  # between two looks at what a training has come to
_LONGEST_MESSAGE = 300


@dataclass(frozen=True)
class Outcome:
    """How a training ended.

    Attributes:
        kind: complete; pruned, as asked for; stopped, by a signal to this process; or failed.
        message: why it failed.
    """

    kind: Literal["complete", "pruned", "stopped", "failed"]
    message: str = ""


class Stop:
    """Hands signals on to the training that is under way while its body runs.

    A training makes a checkpoint at the first one and ends at once at the second.

    Attributes:
        signal: the number of the first one that came, 0 before.
    """

    def __init__(self) -> None:
        self.signal = 0
        self.process: subprocess.Popen[bytes] | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stop:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if not self.signal:
            os.write(2, b"\nstopping after a checkpoint; once more stops at once\n")
            self.signal = number
        if self.process is not None:
            self.process.terminate()


def train_trial(
    settings: Path,
    run: Path,
    log: Path,
    *,
    descriptor: int,
    stop: Stop,
    after_epoch: Callable[[dict[str, Any]], bool],
) -> Outcome:
    """Train, or go on training, until the end or until there is a reason to stop.

    Args:
        settings: a settings file.
        run: the run's folder, as it says.
        log: where to add what the training prints.
        descriptor: of a locked file that the training is to hold as well.
        stop: the signals to this process.
        after_epoch: called with each entry of the run's metrics.json; true ends the training.
    """
    command = [*_TRAIN, f"--config={settings}", "--auto_resume"]
    with log.open("ab") as output:
        start = output.tell()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            pass_fds=(descriptor,),
            start_new_session=True,  # Ctrl-C reaches it through this process alone, and once
        )  # fmt: skip
    stop.process = process
    try:
        if stop.signal:  # which came before there was anything to hand it on to
            process.terminate()
        is_pruned = _watch(process, run, stop, after_epoch)
    except BaseException:
        process.terminate()
        process.wait()
        raise
    finally:
        stop.process = None
    if process.returncode == 0:
        return Outcome("complete")
    if stop.signal:
        return Outcome("stopped")
    return Outcome("pruned") if is_pruned else Outcome("failed", _message(process, log, start))


def read_epochs(run: Path) -> list[dict[str, Any]]:
    """The entries of a run's metrics.json, none where there is none yet."""
    try:
        return json.loads((run / "metrics.json").read_text(encoding="utf-8"))["epochs"]
    except FileNotFoundError:
        return []


def _watch(
    process: subprocess.Popen[bytes],
    run: Path,
    stop: Stop,
    after_epoch: Callable[[dict[str, Any]], bool],
) -> bool:
    """Wait for the end; returns whether it was asked for."""
    num_seen, is_pruned = 0, False
    while True:
        try:
            process.wait(_LOOK_SECONDS)
            is_over = True
        except subprocess.TimeoutExpired:
            is_over = False
        for entry in (epochs := read_epochs(run))[num_seen:]:
            is_behind = after_epoch(entry)
            if is_behind and not (is_over or is_pruned or stop.signal):
                process.terminate()
                is_pruned = True
        num_seen = len(epochs)
        if is_over:
            return is_pruned


def _message(process: subprocess.Popen[bytes], log: Path, start: int) -> str:
    """Why a training failed, by what it said last."""
    if process.returncode < 0:
        name = signal.Signals(-process.returncode).name
        hint = ", as a system does that has no memory left" if name == "SIGKILL" else ""
        return f"ended by {name}{hint}"
    text = log.read_bytes()[start:].decode("utf-8", errors="replace")
    lines = [line for line in text.splitlines() if line.strip()]
    errors = [line.partition("error: ")[2] for line in lines if "error: " in line]
    said = (errors or lines or ["nothing"])[-1]
    return shortened(printable(said.strip()), _LONGEST_MESSAGE)
