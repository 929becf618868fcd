"""Predictions of files that are killed at any moment and resumed."""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys

import pytest
from helpers.predicting import TEXTS, predict, write

from sentiment.inference.batch_predict import check_output, output_lock


def killed_at(moment, action):
    """Run in a process of its own that is killed at its n-th durable step; whether it was."""
    child = os.fork()
    if child == 0:
        steps = itertools.count()
        for name in ("fsync", "replace", "unlink"):
            setattr(os, name, _or_die(getattr(os, name), moment, steps))
        try:
            action()
            os._exit(0)
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL), status
    return status != 0


def _or_die(call, moment, steps):
    def step(*arguments, **options):
        if next(steps) == moment:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments, **options)

    return step


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_killed_at_any_moment_and_resumed_is_as_if_never_stopped(tmp_path, ending):
    path = write(tmp_path / "in.csv", TEXTS)
    expected = tmp_path / f"expected{ending}"
    predict(path, expected)
    output = tmp_path / f"out{ending}"
    num_killed = 0
    for moment in itertools.count():
        was_killed = killed_at(moment, lambda: predict(path, output, resumes=True))
        if not was_killed:
            break
        num_killed += 1
        progress = tmp_path / f"out{ending}.partial.json"
        if moment % 2 and progress.exists():  # once more
            killed_at(moment // 2, lambda: predict(path, output, resumes=True))
        if progress.exists() or not output.exists():
            predict(path, output, resumes=True)
        assert output.read_bytes() == expected.read_bytes(), f"killed at step {moment}"
        assert not list(tmp_path.glob("*.partial")) + list(tmp_path.glob("*.json"))
        output.unlink()
    assert num_killed > 12


def begin_and_kill(tmp_path):
    path, output = write(tmp_path / "in.csv", TEXTS), tmp_path / "out.csv"
    assert killed_at(12, lambda: predict(path, output))
    assert (tmp_path / "out.csv.partial").exists() and not output.exists()
    return path, output


def test_an_unfinished_output_is_not_lost_unasked(tmp_path):
    path, output = begin_and_kill(tmp_path)
    with pytest.raises(FileExistsError, match="out.csv.partial exists already.*--resume, or start"):
        predict(path, output)
    progress = json.loads((tmp_path / "out.csv.partial.json").read_text())
    assert progress["num_rows"] == 10


def test_what_was_begun_otherwise_is_not_continued(tmp_path):
    path, output = begin_and_kill(tmp_path)
    with pytest.raises(ValueError, match="cannot resume: --window was 5 and is now 4"):
        predict(path, output, window=4, resumes=True)
    (tmp_path / "out.csv.partial.json").write_text("{")
    with pytest.raises(ValueError, match="out.csv.partial.json is damaged .*--overwrite"):
        predict(path, output, resumes=True)


def test_outputs_that_cannot_be_written_are_refused_before_anything_is_read(tmp_path):
    path, output = write(tmp_path / "in.csv", TEXTS), tmp_path / "out.csv"
    output.write_text("mine")

    def check(output, **options):
        check_output(output, path, **{"resumes": False, "overwrites": False, **options})

    for options in ({}, {"resumes": True}):
        with pytest.raises(FileExistsError, match="out.csv exists already: .*--overwrite"):
            check(output, **options)
    check(output, overwrites=True)
    with pytest.raises(ValueError, match="in.csv is the input"):
        check(path, overwrites=True)
    with pytest.raises(ValueError, match="must end in .csv, .tsv"):
        check(tmp_path / "out.xlsx")
    with pytest.raises(FileNotFoundError, match="no folder .*nowhere"):
        check(tmp_path / "nowhere" / "out.csv")
    assert output.read_text() == "mine"


def test_two_do_not_write_one_output(tmp_path):
    with (
        output_lock(tmp_path / "out.csv"),
        pytest.raises(FileExistsError, match="another process is writing"),
        output_lock(tmp_path / "out.csv"),
    ):
        pass
    assert list(tmp_path.iterdir()) == []
