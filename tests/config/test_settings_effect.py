"""Each setting changes what its explanation says."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from helpers.corpus import write_corpus
from helpers.trainings import read_epochs, read_events

from sentiment.cli import main as cli
from sentiment.config.parser import parse_training
from sentiment.data.pipeline import TrainingData, prepare_training
from sentiment.runs.run import load_run
from sentiment.runs.weights import read_weights
from sentiment.training.trainer import Trainer

BASE = [
    "--model.embedding_size=8", "--model.hidden_size=8", "--training.num_epochs=1",
    "--training.batch_size=8", "--training.precision=fp32", "--vocabulary.min_frequency=1",
    "--model.embedding_dropout=0", "--model.dropout=0", "--training.pictures=false",
]  # fmt: skip


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    return write_corpus(folder, splits={"train": 40, "validation": 16})


def fit(folder: Path, run: Path, *changes: str) -> dict[str, torch.Tensor]:
    """The weights after training."""
    assert cli.train([f"--data.path={folder}", f"--output_dir={run}", *BASE, *changes]) == 0
    return read_weights(run, "last")[0]


def prepare(folder: Path, *changes: str) -> TrainingData:
    return prepare_training(parse_training([f"--data.path={folder}", *BASE, *changes], "").config)


@pytest.fixture(scope="module")
def base(tiny, tmp_path_factory) -> dict[str, torch.Tensor]:
    return fit(tiny, tmp_path_factory.mktemp("base") / "run")


def test_the_base_is_reproduced(tiny, base, tmp_path):
    """Without this, every difference below would prove nothing."""
    again = fit(tiny, tmp_path / "run")
    assert all(torch.equal(again[name], weight) for name, weight in base.items())


@pytest.mark.parametrize(
    "change",
    [
        "--training.batch_size=16",
        "--training.batch_unit=tokens --training.batch_size=400",
        "--training.accumulation_steps=2",
        "--training.optimizer=adamw --training.weight_decay=0.5",
        "--training.learning_rate=0.01",
        "--training.schedule=linear",
        "--training.schedule=cosine",
        "--training.warmup_share=0.5",
        "--training.gradient_clip=0.001",
        "--training.gradient_clip=null",
        "--training.label_smoothing=0.2",
        "--training.class_weights.pos=3",
        "--training.precision=bf16",
        "--model.embedding_dropout=0.5",
        "--model.dropout=0.5",
        "--model.word_dropout=0.5",
        "--model.weight_dropout=0.5",
        "--model.normalize_embedding=true",
        "--model.forget_bias=0.5",
        "--model.input_init=uniform",
        "--model.recurrent_init=uniform",
        "--model.pooling=mean",
        "--model.pooling=last",
        "--model.implementation=reference",
        "--data.max_length=5",
        "--seed=1",
    ],
)
def test_a_setting_changes_the_weights(change, tiny, base, tmp_path):
    changes = change.split()
    if "gradient_clip=null" in change:  # the base's gradients must be large enough to be clipped
        changes = ["--training.learning_rate=0.2", change]
        base = fit(tiny, tmp_path / "other", "--training.learning_rate=0.2")
    weights = fit(tiny, tmp_path / "run", *changes)
    assert not torch.equal(weights["recurrence.weight_hh_l0"], base["recurrence.weight_hh_l0"])


@pytest.mark.parametrize(
    ("change", "added"),
    [
        ("--model.cell=gru", -2 * 8 * (8 + 8 + 2)),  # of four gates a direction, three are left
        ("--model.cell=rnn", -2 * 3 * 8 * (8 + 8 + 2)),
        ("--model.learned_initial_state=true", 2 * (8 + 8)),
        ("--model.pooling=attention", 16 * 16 + 16 + 16),
        ("--model.pooling=last+max+mean", 2 * 2 * 16),
    ],
)
def test_a_setting_changes_what_there_is_to_learn(change, added, tiny, base, tmp_path):
    run = tmp_path / "run"
    weights = fit(tiny, run, change, "--training.num_epochs=4", "--training.learning_rate=0.02")
    sizes = [sum(weight.numel() for weight in each.values()) for each in (weights, base)]
    assert sizes[0] == sizes[1] + added
    losses = [epoch["training"]["loss"] for epoch in read_epochs(run)]
    assert losses[-1] < losses[0]
    load_run(run)  # the settings alone rebuild the model


def test_epochs_have_orders_of_their_own(tiny, tmp_path, monkeypatch):
    orders: list[list[int]] = []
    original = Trainer.train_step

    def record(self, batches, *meters):
        orders.append(torch.cat(batches).tolist())
        return original(self, batches, *meters)

    monkeypatch.setattr(Trainer, "train_step", record)
    fit(tiny, tmp_path / "run", "--training.num_epochs=2")
    half = len(orders) // 2
    assert orders[:half] != orders[half:]
    for epoch in (orders[:half], orders[half:]):
        assert sorted(itertools.chain.from_iterable(epoch)) == list(range(40))


def test_plateau_reduces_the_rate(tiny, tmp_path):
    changes = [
        "--training.schedule=plateau", "--training.plateau_patience=0",
        "--training.plateau_factor=0.1", "--training.num_epochs=4",
        "--training.learning_rate=1e-9",  # nothing is learned, so accuracy stands still
    ]  # fmt: skip
    fit(tiny, tmp_path / "run", *changes)
    rates = [epoch["training"]["learning_rate"] for epoch in read_epochs(tmp_path / "run")]
    assert rates == pytest.approx([1e-9, 1e-9, 1e-10, 1e-11])


@pytest.mark.parametrize("monitor", ["accuracy", "f1", "auroc", "nll"])
def test_the_monitored_metric_decides_the_best_epoch(monitor, tiny, tmp_path):
    changes = [f"--training.monitor={monitor}", "--training.num_epochs=6"]
    fit(tiny, tmp_path / "run", *changes, "--training.learning_rate=0.05")
    epochs = read_epochs(tmp_path / "run")
    values = [epoch["validation"][monitor] for epoch in epochs]
    best_value = min(values) if monitor == "nll" else max(values)
    kept = [value for value, epoch in zip(values, epochs, strict=True) if epoch["is_best"]]
    assert kept[-1] == best_value


def test_vocabulary_settings(tiny):
    everything = prepare(tiny).vocabulary
    assert len(prepare(tiny, "--vocabulary.max_size=7").vocabulary) == 9
    assert 2 < len(prepare(tiny, "--vocabulary.min_frequency=3").vocabulary) < len(everything)


def test_hold_out_settings(tmp_path):
    write_corpus(tmp_path, splits={"train": 100})

    def validation(*changes: str) -> list[str]:
        return prepare(tmp_path, *changes).validation_reviews.texts

    assert len(validation()) == 10
    assert len(validation("--data.validation_share=0.3")) == 30
    assert validation("--data.validation_seed=1") != validation()
    assert validation("--seed=1") == validation(), "the run's seed leaves the hold-out alone"


def test_pictures_are_drawn_when_asked_for_and_change_nothing(tiny, tmp_path):
    """With dropout, whose random numbers a picture could consume."""
    weights = []
    for pictures in ("true", "false"):
        run, changes = tmp_path / pictures, [f"--training.pictures={pictures}"]
        weights.append(fit(tiny, run, *changes, "--model.dropout=0.5")["output.weight"])
        images = read_events(run, "validation").Tags()["images"]
        num_explanations = sum("explanation" in tag for tag in images)
        assert num_explanations == (3 if pictures == "true" else 0)
        assert bool(images) == (pictures == "true")
    assert torch.equal(*weights)
