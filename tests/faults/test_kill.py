"""kill -9 at any moment, those inside a checkpoint's write among them: nothing is lost."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

import pytest
from helpers.trainings import arguments, killed_by_seed, train

from sentiment.cli import main as cli
from sentiment.cli.train import execute, parse
from sentiment.diagnostics.run_diff import compare_runs
from sentiment.runs.manifest import read_manifest
from sentiment.runs.run import load_run
from sentiment.training.checkpoint import load_state, state_path


def survive(num_kills: int, most: int, corpus: Path, folder: Path, *settings: str) -> int:
    """Kill and resume one training again and again, then compare; returns kills inside it."""
    whole, broken = folder / "whole", folder / "broken"
    status, _, error = train(*arguments(corpus, whole, *settings))
    assert status == 0, error
    command = [*arguments(corpus, broken, *settings), "--auto_resume"]
    num_inside = num_finished = 0
    for seed in range(num_kills):
        if killed_by_seed(seed, most, *command) == 0:
            num_finished += 1
        elif (broken / "run.json").exists():
            num_inside += 1
            if state_path(broken).exists():
                load_state(broken)  # checked to the bit
    status, _, error = train(*command)
    assert status == 0, error
    assert num_finished == 0, "all kills were inside the training"
    likeness = compare_runs(whole, broken)
    assert likeness.is_equal, likeness
    assert not list(broken.rglob("*.new")) and not state_path(broken).exists()
    assert read_manifest(broken)["result"]["num_resumed"] > 0
    return num_inside


def test_a_training_survives_kills(corpus, tmp_path):
    settings = ["--training.num_epochs=3", "--training.checkpoint_updates=3"]
    assert survive(3, 60, corpus, tmp_path, *settings) >= 1


@pytest.mark.parametrize("over", ["nothing", "a run"])
def test_a_kill_while_a_run_is_made_leaves_nothing_in_the_way(over, corpus, tmp_path, monkeypatch):
    """At every file that is removed or written; in-process, for there are many."""
    run = tmp_path / "run"
    command = arguments(corpus, run, "--training.num_epochs=1")
    for last in range(1, 99):
        shutil.rmtree(run, ignore_errors=True)
        if over == "a run":
            shutil.copytree(_small_run(corpus, tmp_path / "old"), run)
        touched = _die_at_file(monkeypatch, last)
        request = parse([*command, "--overwrite"], "train")
        with suppress(KillError):
            execute(request, lambda update, touched=touched: touched.append("begun"))
        monkeypatch.undo()
        if "begun" in touched:
            break
        if last % 3 == 0:  # each third, as a training takes half a second
            assert cli.train([*command, "--auto_resume"]) == 0, last
            assert load_run(run)
    assert last > 5


class KillError(BaseException):
    pass


def _small_run(corpus: Path, run: Path) -> Path:
    if not run.exists():
        assert cli.train(arguments(corpus, run, "--training.num_epochs=1")) == 0
    return run


def _die_at_file(monkeypatch: pytest.MonkeyPatch, last: int) -> list[str]:
    """Have the process die before the last of so many changes to files by os and pathlib."""
    touched: list[str] = []

    def count(name: str, *_: object) -> None:
        touched.append(name)
        if len(touched) == last:
            raise KillError

    for module, name in ((os, "replace"), (os, "unlink"), (shutil, "rmtree"), (Path, "touch"),
                         (Path, "unlink")):  # fmt: skip
        original = getattr(module, name)

        def change(*arguments, _name=name, _original=original, **options):
            count(_name)
            return _original(*arguments, **options)

        monkeypatch.setattr(module, name, change)
    return touched


@pytest.mark.long
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_training_survives_fifty_kills(precision, corpus, tmp_path):
    settings = [
        "--training.num_epochs=60", "--training.checkpoint_updates=3",
        "--training.accumulation_steps=2", "--training.schedule=cosine", "--training.patience=60",
        f"--training.precision={precision}",
    ]  # fmt: skip
    num_inside = survive(50, 60, corpus, tmp_path, *settings)
    print(f"{num_inside} of 50 kills inside a {precision} training survived")
    assert num_inside >= 40
