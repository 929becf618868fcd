"""Files of a run that are truncated, changed by a bit, swapped or missing: the error names them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from helpers.trainings import arguments, refusal, stop_after

from sentiment.runs.manifest import read_manifest, write_manifest
from sentiment.runs.run import load_run
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
