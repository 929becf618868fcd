"""Trainings that are killed at a moment that a seed decides: after an update, or inside a write."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

from helpers.processes import Processes
from sentiment.cli.main import run_command
from sentiment.cli.train import execute, parse
from sentiment.runs import weights as tensor_files
from sentiment.runtime import files


def train_and_kill(seed: int, max_moments: int, command: list[str]) -> int:
    """Train in another process that kills itself; returns its status."""
    process = Processes(_train_to_death, seed, max_moments, command)
    _, error = process.communicate()
    assert process.returncode in (0, -signal.SIGKILL), error
    return process.returncode


def _train_to_death(seed: int, max_moments: int, command: list[str]) -> int:
    countdown = _Countdown(random.Random(seed).randint(1, max_moments))
    _count_writes(countdown)
    request = parse(command, "killed")
    return run_command(lambda: execute(request, countdown.tick))


class _Countdown:
    """Kills the process at the last of so many moments."""

    def __init__(self, num_moments: int) -> None:
        self._left = num_moments

    def is_over(self) -> bool:
        self._left -= 1
        return self._left == 0

    def tick(self, *_: object) -> None:
        if self.is_over():
            self.kill()

    @staticmethod
    def kill() -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def _count_writes(countdown: _Countdown) -> None:
    """Make four moments of every write: half written, written, replaced, and afterwards."""
    atomic_write, replace = files.atomic_write, os.replace

    def write(path: Path, data: bytes) -> None:
        if countdown.is_over():
            path.with_name(path.name + ".new").write_bytes(data[: len(data) // 2])
            countdown.kill()
        atomic_write(path, data)
        countdown.tick()

    def counted_replace(source: Path, target: Path) -> None:
        countdown.tick()
        replace(source, target)
        countdown.tick()

    files.atomic_write = tensor_files.atomic_write = write
    os.replace = counted_replace
