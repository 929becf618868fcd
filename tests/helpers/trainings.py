"""Trainings that take seconds: in this process, in another one, killed, or on several ranks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.corpus import ROOT
from sentiment.cli import main as cli

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
    script = str(ROOT / "tests" / "helpers" / "killed.py")
    process = start(script, str(seed), str(most), *command, module=False)
    status, _, error = end(process)
    assert status in (0, -signal.SIGKILL), error
    return status


def launch(num_ranks: int, *command: str, launcher: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    torchrun = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={num_ranks}"]
    where = launcher or ("--standalone",)
    return subprocess.Popen(
        [*torchrun, *where, *command], cwd=ROOT, env=ONE_THREAD, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


def ended(process: subprocess.Popen[str], seconds: float = 120) -> tuple[str, str]:
    out, err = process.communicate(timeout=seconds)
    assert process.returncode == 0, err
    return out, err


def in_process(arguments: list[str], **_: object) -> subprocess.CompletedProcess[str]:
    """A replacement for starting ``python -m sentiment`` that calls the command instead."""
    status = cli.main(arguments[1:])
    return subprocess.CompletedProcess(arguments, status, "", "")


def refusal(command: list[str], capsys: pytest.CaptureFixture[str], *, command_name="train") -> str:
    """The one line of standard error that a command with a mistake prints."""
    capsys.readouterr()
    assert cli.main([command_name, *command]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error
