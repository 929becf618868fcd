"""Trainings that take a second, and the processes that they run in."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from helpers.corpus import ROOT
from helpers.processes import Processes
from sentiment.cli import main as cli
from sentiment.cli.train import execute, parse

SMALL = [
    "--model.embedding_size=8", "--model.hidden_size=8", "--training.batch_size=16",
    "--training.num_epochs=2", "--training.log_every=4", "--training.precision=fp32",
    "--vocabulary.min_frequency=2", "--training.learning_rate=0.01",
    "--training.checkpoint_updates=5", "--training.pictures=false",
]  # fmt: skip


def arguments(corpus: Path, run: Path, *more: str) -> list[str]:
    return [f"--data.path={corpus}", f"--output_dir={run}", *SMALL, *more]


def read_epochs(run: Path) -> list[dict]:
    """The metrics of each epoch."""
    return json.loads((run / "metrics.json").read_text(encoding="utf-8"))["epochs"]


def read_events(run: Path, name: str) -> EventAccumulator:
    """A run's events in TensorBoard's folder of this name."""
    return EventAccumulator(str(run / "tensorboard" / name), {"tensors": 0}).Reload()


class PowerCutError(BaseException):
    """Nothing catches it, so nothing is tidied up."""


def stop_after(command: list[str], last: int) -> None:
    """Train until an update, and stop as if the power were cut."""

    def cut(update: int) -> None:
        if update == last:
            raise PowerCutError

    with pytest.raises(PowerCutError):
        execute(parse(command, "train"), cut)


def torchrun(
    num_ranks: int, *command: str, launcher: tuple[str, ...] = ()
) -> subprocess.Popen[str]:
    """A script of the repository under torch's own launcher."""
    module = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={num_ranks}"]
    return subprocess.Popen(
        [*module, *launcher, *command], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


def ended(process: subprocess.Popen[str] | Processes, seconds: float = 120) -> tuple[str, str]:
    """Standard output and standard error of a process or ranks that must succeed."""
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
