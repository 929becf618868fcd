"""A full disk, a read-only one, a removed folder, a second training: one line, nothing lost."""

from __future__ import annotations

import errno
import os
import resource
import shutil
from pathlib import Path

from helpers.processes import Processes
from helpers.trainings import arguments, ended, refusal

from sentiment.cli import main as cli
from sentiment.cli.main import run_command
from sentiment.cli.train import execute, parse
from sentiment.diagnostics.run_diff import compare_runs
from sentiment.runtime.files import run_lock
from sentiment.training.checkpoint import load_state


def one_line(error: str) -> str:
    assert error.startswith("error: ") and error.count("\n") == 1, error
    return error


def resume_and_compare(run: Path, corpus: Path, whole: Path, *settings: str) -> None:
    """The last checkpoint leads to the result of a training that nothing disturbed."""
    load_state(run)
    assert cli.train([f"--resume={run}"]) == 0
    assert cli.train(arguments(corpus, whole, *settings)) == 0
    assert compare_runs(whole, run).is_equal


def test_a_checkpoint_that_cannot_be_written(corpus, tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    fsync, is_full = os.fsync, []

    def failing(descriptor: int) -> None:
        if is_full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", failing)
    request = parse(arguments(corpus, run), "train")
    assert run_command(lambda: execute(request, lambda n: n == 7 and is_full.append(n))) == 1
    error = one_line(capsys.readouterr().err)
    assert "No space left on device" in error and f"--resume {run}" in error
    assert not list(run.rglob("*.new")), "half a file would take the room that is lacking"
    monkeypatch.setattr(os, "fsync", fsync)
    resume_and_compare(run, corpus, tmp_path / "whole")


def train_with_small_files(command: list[str]) -> int:
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
    return cli.train(command)


def test_a_disk_that_fills_up(corpus, tmp_path):
    """By a limit on the size of files, which the growing event files meet first."""
    run, settings = tmp_path / "run", "--training.num_epochs=6"
    process = Processes(train_with_small_files, arguments(corpus, run, settings))
    _, error = process.communicate()
    assert process.returncode == 1
    assert "File too large" in one_line(error) and f"--resume {run}" in error
    resume_and_compare(run, corpus, tmp_path / "whole", settings)


def test_a_folder_that_nobody_may_write_to(corpus, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    assert "cannot be written to" in refusal(arguments(corpus, tmp_path / "run"), capsys)


def test_a_folder_that_is_removed_while_training(corpus, tmp_path, capsys):
    run = tmp_path / "run"
    request = parse(arguments(corpus, run), "train")
    assert run_command(lambda: execute(request, lambda n: n == 7 and shutil.rmtree(run))) == 1
    error = one_line(capsys.readouterr().err)
    assert "training stopped: " in error and "No such file or directory" in error


def test_a_second_training_into_one_folder_is_refused(corpus, tmp_path, capsys):
    run = tmp_path / "run"
    with run_lock(run):
        for more in ([], ["--overwrite"]):
            message = refusal([*arguments(corpus, run), *more], capsys)
            assert "another training writes to" in message
    assert cli.train(arguments(corpus, run)) == 0


def test_two_trainings_fill_one_cache(corpus, tmp_path):
    cache = f"--data.cache_dir={tmp_path / 'cache'}"
    commands = [arguments(corpus, tmp_path / name, cache) for name in "ab"]
    for process in [Processes(cli.train, command) for command in commands]:
        assert ended(process)[1] == ""
    assert compare_runs(tmp_path / "a", tmp_path / "b").is_equal
    entries = list((tmp_path / "cache" / "tokens").iterdir())
    assert len([entry for entry in entries if entry.is_dir() and entry.name[0] != "."]) == 2
    assert not [entry for entry in entries if entry.name.startswith(".new")]
