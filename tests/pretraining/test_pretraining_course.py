"""Pre-trainings: each setting has an effect, and stops have none."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch
from helpers.corpus import write_corpus
from helpers.pretraining import curves, error_line, options, pretrain, stop_before_batch

from sentiment.config.parser import parse_training
from sentiment.pretraining.pretrainer import Pretrainer
from sentiment.runs.initial import check_fits
from sentiment.runs.manifest import read_manifest
from sentiment.runs.weights import read_weights
from sentiment.training.checkpoint import CheckpointData, load_state, save_state


def run(reviews: Path, path: Path, *more: str) -> dict[str, torch.Tensor]:
    """The weights of a pre-training."""
    assert pretrain(*settings(reviews, path, *more)) == 0
    return read_weights(path, "last")[0]


def settings(reviews: Path, path: Path, *more: str) -> list[str]:
    few = "--pretraining.num_candidates=50", "--pretraining.warmup_share=0"
    return options(reviews, path, *few, "--pretraining.num_epochs=2", *more)


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


@pytest.mark.parametrize("batch", [1, 7, 9])  # of 7 in an epoch
def test_a_stop_changes_nothing(reviews, plain, tmp_path, monkeypatch, batch):
    path = tmp_path / "model"
    stop_before_batch(monkeypatch, batch)
    with pytest.raises(SystemExit) as end:
        run(reviews, path)
    assert end.value.code == 143
    with pytest.raises(FileNotFoundError, match="is not finished"):
        check_fits(parse_training(settings(reviews, path), "test").config, path)
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
    with pytest.raises(SystemExit):
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


def test_non_finite_weights_are_never_saved(reviews, tmp_path, capsys):
    path = tmp_path / "model"
    more = "--pretraining.learning_rate=1e30", "--training.checkpoint_updates=1"
    assert pretrain(*settings(reviews, path, *more)) == 1
    assert "lower pretraining.learning_rate" in error_line(capsys)
    state = load_state(path) if (path / "checkpoints").exists() else None
    for name, tensor in ({} if state is None else state.tensors).items():
        assert not tensor.is_floating_point() or tensor.isfinite().all(), name


def test_validation_reviews_of_one_word(tmp_path, capsys):
    folder = write_corpus(tmp_path / "reviews", splits={"train": 20, "validation": 2})
    (folder / "validation.csv").write_text("text,label\ngood,pos\nbad,neg\n", encoding="utf-8")
    assert pretrain(*settings(folder, tmp_path / "model")) == 1
    assert "every validation review has fewer than two words" in error_line(capsys)
