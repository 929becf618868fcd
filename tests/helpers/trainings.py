"""Trainings that take a second, and the processes that they run in."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from helpers.corpus import ROOT
from helpers.processes import Processes
from sentiment.cli import main as cli
from sentiment.cli.train import execute, parse
from sentiment.runs.manifest import read_manifest, write_manifest

SMALL = [
    "--model.embedding_size=8", "--model.hidden_size=8", "--training.batch_size=16",
    "--training.num_epochs=2", "--training.log_every=4", "--training.precision=fp32",
    "--vocabulary.min_frequency=2", "--training.learning_rate=0.01",
    "--training.checkpoint_updates=5", "--training.pictures=false",
]  # fmt: skip


def arguments(corpus: Path, run: Path, *more: str) -> list[str]:
    return [f"--data.path={corpus}", f"--output_dir={run}", *SMALL, *more]


def train(corpus: Path, run: Path, *more: str) -> Path:
    """Train by the command; returns the run."""
    assert cli.train(arguments(corpus, run, *more)) == 0
    return run


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


def refusal(
    arguments: Sequence[object],
    capsys: pytest.CaptureFixture[str],
    command: str = "train",
    status: int = 1,
) -> str:
    """The one line of standard error that a command with a mistake prints."""
    capsys.readouterr()
    try:
        found = cli.main([command, *map(str, arguments)])
    except SystemExit as end:  # of the parser of its options
        found = end.code
    error = capsys.readouterr().err
    assert found == status and "error: " in error and error.count("\n") == 1, error
    return error


SPLITS = {"train": 120, "validation": 30, "unsupervised": 70}  # to distil


def learn_from(*teachers: Path) -> str:
    return f"--distillation.teachers=[{','.join(map(str, teachers))}]"


def rewrite(run: Path, **values: object) -> None:
    """Change values in run.json, with a valid checksum; None removes a key."""
    changed = {**read_manifest(run), **values}
    removed = {key for key, value in values.items() if value is None}
    write_manifest(run, {key: changed[key] for key in changed.keys() - removed})
