"""Trainings of seconds that faults are tried on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from helpers.corpus import ROOT

SMALL = [
    "--model.embedding_size=8", "--model.hidden_size=8", "--training.batch_size=16",
    "--training.num_epochs=2", "--training.log_every=4", "--training.precision=fp32",
    "--vocabulary.min_frequency=2", "--training.learning_rate=0.01",
    "--training.checkpoint_updates=5", "--training.pictures=false",
]  # fmt: skip
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}


def arguments(corpus: Path, run: Path, *more: str) -> list[str]:
    return [f"--data.path={corpus}", f"--output_dir={run}", *SMALL, *more]


def start(*command: str, module: bool = True, **options: object) -> subprocess.Popen[str]:
    """A training in a process of its own."""
    python = [sys.executable, "-m", "sentiment"] if module else [sys.executable]
    return subprocess.Popen(
        [*python, *command], cwd=ROOT, env=ONE_THREAD, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options,
    )  # fmt: skip


def end(process: subprocess.Popen[str], *, seconds: float = 120) -> tuple[int, str, str]:
    """Status, standard output and standard error of a process."""
    out, err = process.communicate(timeout=seconds)
    return process.returncode, out, err


def train(*command: str) -> tuple[int, str, str]:
    return end(start("train", *command))


def killed_by_seed(seed: int, most: int, *command: str) -> int:
    script = str(ROOT / "tests" / "faults" / "killed.py")
    process = start(script, str(seed), str(most), *command, module=False)
    status, _, error = end(process)
    assert status in (0, -signal.SIGKILL), error
    return status
