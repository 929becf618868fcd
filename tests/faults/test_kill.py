"""Kill -9 at any moment, also inside a checkpoint's write: nothing is lost."""

import os
import random
import shutil
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from helpers.processes import Processes
from helpers.trainings import PowerCutError, arguments

from sentiment.cli import main as cli
from sentiment.cli.main import run_command
from sentiment.cli.train import execute, parse
from sentiment.diagnostics.run_diff import compare_runs
from sentiment.runs import weights as tensor_files
from sentiment.runs.manifest import read_manifest
from sentiment.runs.run import load_run
from sentiment.runtime import files
from sentiment.training.checkpoint import load_state, state_path


def train_and_kill(seed: int, max_moments: int, command: list[str]) -> int:
    """Train in another process that kills itself; returns its status."""
    process = Processes(_train_to_death, seed, max_moments, command)
    _, error = process.communicate()
    assert process.returncode in (0, -signal.SIGKILL), error
    return process.returncode


def _train_to_death(seed: int, max_moments: int, command: list[str]) -> int:
    """The moments are updates and four of every write: half written, written, replaced, after."""
    left = random.Random(seed).randint(1, max_moments)
    atomic_write, replace = files.atomic_write, os.replace

    def is_over() -> bool:
        nonlocal left
        left -= 1
        return left == 0

    def tick(*_: object) -> None:
        if is_over():
            os.kill(os.getpid(), signal.SIGKILL)

    def write(path: Path, data: bytes) -> None:
        if is_over():
            path.with_name(path.name + ".new").write_bytes(data[: len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        atomic_write(path, data)
        tick()

    def counted_replace(source: Path, target: Path) -> None:
        tick()
        replace(source, target)
        tick()

    files.atomic_write = tensor_files.atomic_write = write
    os.replace = counted_replace
    request = parse(command, "killed")
    return run_command(lambda: execute(request, tick))


def survive(num_kills: int, corpus: Path, folder: Path, *settings: str) -> int:
    """Kill and resume a training again and again, then compare; returns the kills inside it."""
    whole, broken = folder / "whole", folder / "broken"
    assert cli.train(arguments(corpus, whole, *settings)) == 0
    command = [*arguments(corpus, broken, *settings), "--auto_resume"]
    num_inside = 0
    for seed in range(num_kills):
        assert train_and_kill(seed, 60, command) != 0, "the training ended before it was killed"
        if (broken / "run.json").exists():
            num_inside += 1
            if state_path(broken).exists():
                load_state(broken)  # checks its digest
    assert cli.train(command) == 0
    diff = compare_runs(whole, broken)
    assert diff.is_equal, diff
    assert not list(broken.rglob("*.new"))
    assert read_manifest(broken)["result"]["num_resumed"] > 0
    return num_inside


def test_a_training_survives_kills(corpus, tmp_path):
    settings = ["--training.num_epochs=3", "--training.checkpoint_updates=3"]
    assert survive(3, corpus, tmp_path, *settings) >= 1


@pytest.mark.long
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_training_survives_fifty_kills(precision, corpus, tmp_path):
    settings = [
        "--training.num_epochs=60", "--training.checkpoint_updates=3",
        "--training.accumulation_steps=2", "--training.schedule=cosine", "--training.patience=60",
        f"--training.precision={precision}",
    ]  # fmt: skip
    assert survive(50, corpus, tmp_path, *settings) >= 40


@pytest.mark.parametrize("previous", ["nothing", "a run"])
def test_a_kill_while_a_run_is_created_leaves_nothing_in_the_way(previous, corpus, tmp_path):
    """At every file that is removed or replaced; an exception stands for the kill."""
    run, old = tmp_path / "run", tmp_path / "old"
    command = arguments(corpus, run, "--training.num_epochs=1")
    if previous == "a run":
        assert cli.train(arguments(corpus, old, "--training.num_epochs=1")) == 0
    for last in range(1, 99):
        shutil.rmtree(run, ignore_errors=True)
        if old.exists():
            shutil.copytree(old, run)
        if reaches_first_update([*command, "--overwrite"], last):
            break
        if last % 3 == 0:  # for time's sake
            assert reaches_first_update([*command, "--auto_resume"]) or load_run(run), last
    assert last > 5


def reaches_first_update(command: list[str], last_change: int | None = None) -> bool:
    """Train until the first update, or until a change to a file by os and pathlib."""
    updates: list[int] = []
    num_changes = 0

    def count(function: Callable[..., object]) -> Callable[..., object]:
        def counted(*arguments: object, **options: object) -> object:
            nonlocal num_changes
            num_changes += 1
            if num_changes == last_change:
                raise PowerCutError
            return function(*arguments, **options)

        return counted

    def stop(update: int) -> None:
        updates.append(update)
        raise PowerCutError

    with pytest.MonkeyPatch.context() as patch, suppress(PowerCutError):
        for owner, name in ((os, "replace"), (os, "unlink"), (shutil, "rmtree"), (Path, "touch"),
                            (Path, "unlink")):  # fmt: skip
            patch.setattr(owner, name, count(getattr(owner, name)))
        execute(parse(command, "train"), stop)
    return bool(updates)
