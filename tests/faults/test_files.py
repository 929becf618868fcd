"""Damaged, swapped or missing files, a full disk, a removed folder: one line, nothing lost."""

import errno
import os
import resource
import shutil
from pathlib import Path

import pytest
from helpers.processes import Processes
from helpers.trainings import arguments, ended, refusal, stop_after

from sentiment.cli import main as cli
from sentiment.cli.main import run_command
from sentiment.cli.train import execute, parse
from sentiment.diagnostics.run_diff import compare_runs
from sentiment.runs.manifest import read_manifest, write_manifest
from sentiment.runs.run import load_run
from sentiment.runtime.files import run_lock
from sentiment.training.checkpoint import load_state, state_path

WEIGHTS = "checkpoints/best/model.safetensors"
RESUME = "checkpoints/resume.safetensors"
FILES = ["run.json", "config.yaml", "vocabulary.txt", WEIGHTS, RESUME]


@pytest.fixture(scope="module")
def runs(corpus, tmp_path_factory) -> tuple[Path, Path]:
    """Two unfinished runs with the weights of an epoch, which differ by their seed alone."""
    folder = tmp_path_factory.mktemp("runs")
    for seed in (0, 1):
        stop_after(arguments(corpus, folder / str(seed), f"--seed={seed}"), 20)
    return folder / "0", folder / "1"


@pytest.fixture
def run(runs, tmp_path) -> Path:
    return shutil.copytree(runs[0], tmp_path / "run")


def read(run: Path, name: str) -> None:
    if name == RESUME:
        load_state(run)
    else:
        load_run(run)


def test_intact_files_are_read(run):
    load_run(run)
    load_state(run)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_a_truncated_file_is_named(name, share, run):
    data = (run / name).read_bytes()
    (run / name).write_bytes(data[: int(share * len(data))])
    with pytest.raises(ValueError, match=Path(name).name) as caught:
        read(run, name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_is_named(name, run):
    data = (run / name).read_bytes()
    for position in range(0, len(data), max(1, len(data) // 12)):
        changed = bytearray(data)
        changed[position] ^= 1 << (position % 8)
        (run / name).write_bytes(changed)
        with pytest.raises(ValueError, match=rf"{Path(name).name}|format"):
            read(run, name)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(name, run):
    (run / name).unlink()
    with pytest.raises(FileNotFoundError, match=Path(name).name):
        read(run, name)


@pytest.mark.parametrize("name", [WEIGHTS, RESUME, "config.yaml", "run.json"])
def test_a_file_of_another_run_is_noticed(name, run, runs):
    """The other run has the same shapes."""
    shutil.copyfile(runs[1] / name, run / name)
    with pytest.raises(ValueError, match="another run|not the one this run was trained with"):
        read(run, name)


def test_weights_swapped_within_a_run_are_noticed(run):
    shutil.copyfile(run / "checkpoints/last/model.safetensors", run / WEIGHTS)
    with pytest.raises(ValueError, match="holds the weights 'last': files were swapped"):
        load_run(run)


def test_another_format_is_refused_by_name(run):
    values = read_manifest(run)
    for version, message in ((3, ".* newer release"), (1, ".*train the run again")):
        write_manifest(run, {**values, "format_version": version})
        with pytest.raises(ValueError, match=rf"run.json has format {version}, {message}"):
            load_run(run)


def test_resuming_from_a_damaged_checkpoint_is_a_one_line_error(run, capsys):
    data = bytearray(state_path(run).read_bytes())
    data[-1] ^= 1
    state_path(run).write_bytes(data)
    assert "resume.safetensors is damaged" in refusal([f"--resume={run}"], capsys)


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
