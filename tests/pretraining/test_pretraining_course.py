"""Pre-trainings: each setting has an effect, and stops have none."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch
from helpers.corpus import write_corpus
from helpers.pretraining import curves, stop_before_batch

from sentiment.config.parser import parse_training
from sentiment.pretraining.pretrainer import Pretrainer
from sentiment.pretraining.run import pretrain
from sentiment.runs.manifest import read_manifest
from sentiment.runs.weights import read_weights
from sentiment.runtime.processes import Interrupted
from sentiment.training.checkpoint import CheckpointData, load_state, save_state
from sentiment.training.context import TrainingContext

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reviews")
    return write_corpus(folder, splits={"train": 40, "validation": 8, "unsupervised": 40})


def run(reviews: Path, path: Path, *more: str) -> dict[str, torch.Tensor]:
    """The weights of a pre-training."""
    options = [
        f"--data.path={reviews}", f"--output_dir={path}", "--model.embedding_size=6",
        "--model.hidden_size=6", "--vocabulary.min_frequency=1", "--training.precision=fp32",
        "--training.log_every=7", "--pretraining.num_epochs=2", "--pretraining.batch_size=16",
        "--pretraining.window=8", "--pretraining.num_candidates=50", "--data.num_processes=1",
        "--pretraining.warmup_share=0", *more,
    ]  # fmt: skip
    config = parse_training(options, "test").config
    pretrain(TrainingContext(config, path, CPU, torch.float32))
    return read_weights(path, "last")[0]


def assert_equal_trainings(path: Path, other: Path) -> None:
    weights, expected = (read_weights(each, "last")[0] for each in (path, other))
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    assert curves(path) == curves(other)


@pytest.fixture(scope="module")
def plain(reviews: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plain") / "model"
    run(reviews, path)
    return path


@pytest.mark.parametrize(
    "option",
    [
        "seed=1", "pretraining.num_epochs=1", "pretraining.batch_size=20", "pretraining.window=9",
        "pretraining.max_length=12", "pretraining.learning_rate=0.01", "pretraining.dropout=0",
        "pretraining.warmup_share=0.4", "pretraining.gradient_clip=0.01",
        "pretraining.num_candidates=40",
    ],
)  # fmt: skip
def test_each_setting_has_an_effect(reviews, plain, tmp_path, option):
    changed, before = run(reviews, tmp_path / "run", f"--{option}"), read_weights(plain, "last")[0]
    name = "recurrence.weight_hh_l0"
    assert not torch.equal(changed[name], before[name])


@pytest.mark.parametrize("batch", [1, 6, 9])
def test_a_stop_changes_nothing(reviews, plain, tmp_path, monkeypatch, batch):
    path = tmp_path / "model"
    stop_before_batch(monkeypatch, batch)
    with pytest.raises(Interrupted):
        run(reviews, path)
    state = load_state(path)
    values = {**state.values, "seconds": 1_000.0}
    save_state(path, CheckpointData(values, state.tensors))
    run(reviews, path)
    assert_equal_trainings(path, plain)
    assert read_manifest(path)["result"]["seconds"] > 1_000, "seconds before the stop count"


def test_a_stop_during_the_last_measurement_counts(reviews, plain, tmp_path, monkeypatch):
    measure = Pretrainer._measure

    def stopped(self):
        measure(self)
        if self._epoch == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    path = tmp_path / "model"
    monkeypatch.setattr(Pretrainer, "_measure", stopped)
    with pytest.raises(Interrupted):
        run(reviews, path)
    monkeypatch.setattr(Pretrainer, "_measure", measure)
    run(reviews, path)
    assert_equal_trainings(path, plain)


def test_checkpoints_by_count_are_not_missed_within_a_batch(reviews, tmp_path, monkeypatch):
    saved: list[int] = []
    monkeypatch.setattr(
        "sentiment.pretraining.pretrainer.save_state",
        lambda path, checkpoint: saved.append(checkpoint.values["update"]),
    )
    run(reviews, tmp_path / "model", "--training.checkpoint_updates=5")
    # At the end of the batch in which one was due, of up to four windows.
    assert all(any(due <= update < due + 4 for update in saved) for due in range(5, saved[-1], 5))


def test_non_finite_weights_are_never_saved(reviews, tmp_path, monkeypatch):
    path = tmp_path / "model"
    with pytest.raises(ValueError, match="lower pretraining.learning_rate"):
        run(reviews, path, "--pretraining.learning_rate=1e30", "--training.checkpoint_updates=1")
    state = load_state(path) if (path / "checkpoints").exists() else None
    for name, tensor in ({} if state is None else state.tensors).items():
        assert not tensor.is_floating_point() or tensor.isfinite().all(), name


def test_validation_reviews_of_one_word(tmp_path):
    folder = write_corpus(tmp_path / "reviews", splits={"train": 20, "validation": 2})
    (folder / "validation.csv").write_text("text,label\ngood,pos\nbad,neg\n", encoding="utf-8")
    with pytest.raises(ValueError, match="no validation review has two words"):
        run(folder, tmp_path / "model")
