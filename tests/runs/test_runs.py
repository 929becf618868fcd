"""A run's folder: what is refused, what damage is named; a wheel works without the repository."""

import fnmatch
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from helpers.corpus import ROOT
from helpers.trainings import rewrite
from safetensors.torch import load_file, save_file

from sentiment.config.config import Config, ModelConfig
from sentiment.data.vocabulary import build_vocabulary
from sentiment.runs.run import build_model, check_place, create_run, load_run
from sentiment.runs.weights import WeightsInfo, save_weights

MODEL = ModelConfig(embedding_size=4, hidden_size=5)


@pytest.fixture
def run(tmp_path):
    path = tmp_path / "run"
    vocabulary = build_vocabulary(Counter({"a": 3, "b": 2}))
    create_run(path, Config(model=MODEL), ("neg", "pos"), vocabulary)
    torch.manual_seed(0)
    model = build_model(MODEL, vocabulary, 2)
    save_weights(path, "best", model, WeightsInfo(2, 40, {"accuracy": 0.5}))
    return path, model


def weights_path(path):
    return path / "checkpoints" / "best" / "model.safetensors"


def test_saved_equals_loaded(run):
    path, model = run
    loaded = load_run(path)
    assert loaded.checkpoint == WeightsInfo(2, 40, {"accuracy": 0.5})
    assert loaded.vocabulary.itos == ["<pad>", "<unk>", "a", "b"]
    for key, value in model.state_dict().items():
        assert torch.equal(value, loaded.model.state_dict()[key])
    assert not loaded.model.training
    assert not list(path.rglob("*.new"))


def test_overwriting_removes_the_run_and_nothing_else(run):
    path, _ = run
    (path / "notes.md").write_text("mine")
    for kind in ("evaluation", "export"):
        (path / kind).mkdir()
    vocabulary = build_vocabulary(Counter({"a": 3}))
    create_run(path, Config(), ("neg", "pos"), vocabulary, overwrite=True)
    names = {each.name for each in path.iterdir()}
    assert names == {"notes.md", "config.yaml", "run.json", "vocabulary.txt"}


def test_a_folder_that_is_no_run_is_never_overwritten(tmp_path):
    (tmp_path / "config.yaml").write_text("of: another program")
    vocabulary = build_vocabulary(Counter({"a": 3}))
    with pytest.raises(FileExistsError, match="holds no run"):
        create_run(tmp_path, Config(), ("neg", "pos"), vocabulary, overwrite=True)
    assert (tmp_path / "config.yaml").read_text() == "of: another program"


def test_a_place_where_nothing_can_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below" / "it"):
        with pytest.raises(NotADirectoryError, match="file is a file"):
            check_place(path)
    check_place(tmp_path / "new" / "folder")
    assert not (tmp_path / "new").exists(), "checking writes nothing"


def test_weights_of_another_model_are_refused(run):
    path, _ = run
    larger = ModelConfig(embedding_size=4, hidden_size=6)
    other = build_model(larger, load_run(path).vocabulary, 2)
    save_weights(path, "best", other, WeightsInfo(1, 1, {}))
    with pytest.raises(ValueError, match="does not fit the run's settings"):
        load_run(path)


def test_weights_without_our_metadata_are_refused(run):
    path, _ = run
    save_file(load_file(weights_path(path)), weights_path(path))
    with pytest.raises(ValueError, match="damaged"):
        load_run(path)


@pytest.mark.parametrize(
    "change",
    [
        {"class_names": ["one"]}, {"class_names": 3}, {"class_names": ["a", "\ud800"]},
        {"vocabulary_sha256": 3}, {"format_version": "x"},
    ],
)  # fmt: skip
def test_a_value_that_cannot_be_is_noticed(run, change):
    """Also with the checksum of a program that wrote it on purpose."""
    path, _ = run
    rewrite(path, **change)
    with pytest.raises(ValueError, match="run.json is damaged"):
        load_run(path)


@pytest.mark.parametrize("content", ["", "{", "[]", "3", '{"format_version": 1}'])
def test_a_description_that_is_none_is_noticed(run, content):
    path, _ = run
    (path / "run.json").write_text(content)
    with pytest.raises(ValueError, match="run.json is damaged"):
        load_run(path)


def declared_patterns() -> list[str]:
    """The patterns of [tool.setuptools.package-data]; Python 3.10 has no tomllib."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    _, _, rest = text.partition("[tool.setuptools.package-data]\nsentiment = [")
    return [pattern.strip().strip('"') for pattern in rest.partition("]")[0].split(",")]


def test_every_data_file_of_the_package_is_declared():
    source = ROOT / "src" / "sentiment"
    names = [path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()]
    files = [name for name in names if not name.endswith((".py", ".pyc"))]
    assert len(files) > 5
    for name in files:
        assert any(fnmatch.fnmatch(name, pattern) for pattern in declared_patterns()), name


@pytest.mark.long
def test_a_wheel_trains_checks_and_examines_itself(tmp_path):
    source, wheels, installed = tmp_path / "source", tmp_path / "wheels", tmp_path / "installed"
    empty = tmp_path / "empty"
    empty.mkdir()
    shutil.copytree(ROOT / "src", source / "src")  # setuptools writes into its source folder
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(wheels), str(source)]
    subprocess.run([*pip, *build], check=True)
    (wheel,) = wheels.iterdir()
    install = ["install", "--no-deps", "--target", str(installed), str(wheel)]
    subprocess.run([*pip, *install], check=True)

    def sentiment(*arguments: str) -> str:
        environment = {**os.environ, "PYTHONPATH": str(installed)}
        command = [sys.executable, "-m", "sentiment", *arguments]
        done = subprocess.run(command, cwd=empty, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    sentiment(
        "train", "--output_dir=run", "--model.embedding_size=4", "--model.hidden_size=4",
        "--training.num_epochs=1", "--training.pictures=false",
    )  # fmt: skip
    assert "negation" in sentiment("check", "run").lower()
    assert "checks passed" in sentiment("doctor")
    assert [path.name for path in Path(empty).iterdir()] == ["run"]
