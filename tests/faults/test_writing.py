"""A full disk, a read-only one, a folder that is gone, another training: one line, nothing lost."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
from pathlib import Path

import pytest
from helpers.trainings import arguments, end, start, train

from sentiment.cli import main as cli
from sentiment.cli.main import report_mistakes
from sentiment.cli.train import execute, parse
from sentiment.diagnostics.run_diff import compare_runs
from sentiment.runtime.files import run_lock
from sentiment.training.checkpoint import load_state


def one_line(error: str) -> str:
    assert error.startswith("error: ") and error.count("\n") == 1, error
    return error


def finish_and_compare(command: list[str], run: Path, whole: Path) -> None:
    """What was saved goes on to the same end."""
    load_state(run)
    assert cli.train([f"--resume={run}"]) == 0
    command = [each for each in command if not each.startswith("--output_dir")]
    assert cli.train([*command, f"--output_dir={whole}"]) == 0
    assert compare_runs(whole, run).is_equal


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
def test_a_checkpoint_that_cannot_be_written(number, corpus, tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    command = arguments(corpus, run)
    fsync, broken = os.fsync, []

    def failing(descriptor: int) -> None:
        if broken:
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", failing)
    request = parse(command, "train")
    assert report_mistakes(lambda: execute(request, lambda n: n == 7 and broken.append(n))) == 1
    error = one_line(capsys.readouterr().err)
    assert os.strerror(number) in error and f"--resume {run}" in error
    assert not list(run.rglob("*.new")), "half a file would take the room that is lacking"
    monkeypatch.setattr(os, "fsync", fsync)
    finish_and_compare(command, run, tmp_path / "whole")


def test_a_disk_that_fills_up(corpus, tmp_path):
    """By a limit on the size of files, which the growing event files meet first."""
    run = tmp_path / "run"
    command = arguments(corpus, run, "--training.num_epochs=6")
    limit = 40_000

    def restrict() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    status, _, error = end(start("train", *command, preexec_fn=restrict))
    assert status == 1
    assert "File too large" in one_line(error) and f"--resume {run}" in error
    finish_and_compare(command, run, tmp_path / "whole")


@pytest.mark.long
def test_a_small_disk(corpus, tmp_path):
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("needs the right to mount")
    try:
        command = arguments(corpus, place / "run", "--training.num_epochs=6")
        status, _, error = train(*command)
        assert status == 1
        assert "No space left on device" in one_line(error)
        subprocess.run(["mount", "-o", "remount,size=10m", str(place)], check=True)
        finish_and_compare(command, place / "run", tmp_path / "whole")
        subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
        status, _, error = train(*arguments(corpus, place / "other"))
        assert status == 1
        assert "nothing can be written in" in one_line(error)
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_folder_that_nobody_may_write_to(corpus, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    assert cli.train(arguments(corpus, tmp_path / "run")) == 1
    assert "nothing can be written in" in one_line(capsys.readouterr().err)


def test_a_folder_that_is_removed_while_training(corpus, tmp_path, capsys):
    run = tmp_path / "run"
    request = parse(arguments(corpus, run), "train")

    def remove(update: int) -> None:
        if update == 7:
            shutil.rmtree(run)

    assert report_mistakes(lambda: execute(request, remove)) == 1
    error = one_line(capsys.readouterr().err)
    assert "training stopped: " in error and "No such file or directory" in error


def test_a_second_training_into_one_folder_is_refused(corpus, tmp_path, capsys):
    run = tmp_path / "run"
    with run_lock(run):
        assert cli.train(arguments(corpus, run)) == 1
        assert "another training writes to" in one_line(capsys.readouterr().err)
        assert cli.train([*arguments(corpus, run), "--overwrite"]) == 1
        capsys.readouterr()
    assert cli.train(arguments(corpus, run)) == 0


def test_two_trainings_fill_one_cache(corpus, tmp_path):
    cache = f"--data.cache_dir={tmp_path / 'cache'}"
    processes = [start("train", *arguments(corpus, tmp_path / name, cache)) for name in "ab"]
    for process in processes:
        status, _, error = end(process)
        assert (status, error) == (0, "")
    assert compare_runs(tmp_path / "a", tmp_path / "b").is_equal
    entries = list((tmp_path / "cache" / "tokens").iterdir())
    assert len([each for each in entries if each.is_dir() and each.name[0] != "."]) == 2
    assert not [each for each in entries if each.name.startswith(".new")]
