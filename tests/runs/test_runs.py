"""A run's folder: what is refused, and what a damaged file says."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from helpers.distilling import rewrite
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


def test_what_is_not_a_run_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no such folder"):
        load_run(tmp_path / "nowhere")


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
