"""Each setting changes what its explanation says."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import torch
from helpers.corpus import write_corpus
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sentiment.config.config import Config
from sentiment.config.parser import parse_training
from sentiment.data.pipeline import prepare_training
from sentiment.data.vocabulary import token_counts
from sentiment.runs.run import build_model, create_run, load_run
from sentiment.training.checkpoint import load_state
from sentiment.training.context import TrainingContext
from sentiment.training.logger import RunLogger
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


def parse(folder: Path, *changes: str) -> Config:
    return parse_training([f"--data.path={folder}", *BASE, *changes], "test").config


def fit(config: Config, path: Path) -> tuple[torch.Tensor, Trainer]:
    """All weights after training, and the trainer."""
    data = prepare_training(config)
    torch.manual_seed(config.seed)
    model = build_model(
        config.model,
        vocabulary_size=len(data.vocabulary),
        num_classes=2,
        frequencies=token_counts(data.vocabulary),
    )
    create_run(path, config, data.class_names, data.vocabulary)
    precision = torch.bfloat16 if config.training.precision == "bf16" else torch.float32
    context = TrainingContext(config, path, torch.device("cpu"), precision)
    trainer = Trainer(model, data, context, RunLogger(path))
    trainer.fit()
    return torch.cat([weight.detach().flatten() for weight in model.parameters()]), trainer


@pytest.fixture(scope="module")
def base(tiny, tmp_path_factory) -> torch.Tensor:
    return fit(parse(tiny), tmp_path_factory.mktemp("base") / "run")[0]


def test_the_base_is_reproduced(tiny, base, tmp_path):
    """Without this, every difference below would prove nothing."""
    assert torch.equal(fit(parse(tiny), tmp_path / "run")[0], base)


@pytest.mark.parametrize(
    "change",
    [
        "--training.batch_size=16",
        "--training.batch_unit=tokens --training.batch_size=400",
        "--training.accumulation_steps=2",
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
        base = fit(parse(tiny, "--training.learning_rate=0.2"), tmp_path / "other")[0]
    weights, _ = fit(parse(tiny, *changes), tmp_path / "run")
    assert weights.shape == base.shape
    assert not torch.equal(weights, base)


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
    config = parse(tiny, change, "--training.num_epochs=4", "--training.learning_rate=0.02")
    weights, _ = fit(config, tmp_path / "run")
    assert len(weights) == len(base) + added
    assert weights.isfinite().all()
    epochs = json.loads((tmp_path / "run" / "metrics.json").read_text())["epochs"]
    losses = [epoch["training"]["loss"] for epoch in epochs]
    assert losses[-1] < losses[0]
    run = load_run(tmp_path / "run")  # the settings alone rebuild the model
    assert run.config.model == config.model


def test_the_reference_is_trained_as_the_packed_lstm(tiny, base, tmp_path):
    weights, _ = fit(parse(tiny, "--model.implementation=reference"), tmp_path / "run")
    assert torch.allclose(weights, base, atol=1e-3)


def test_adamw_decays_weights(tiny, tmp_path):
    adamw = ["--training.optimizer=adamw"]
    weights = [
        fit(parse(tiny, *adamw, f"--training.weight_decay={decay}"), tmp_path / str(decay))[0]
        for decay in (0, 0.5)
    ]
    assert weights[1].norm() < weights[0].norm()


def test_epochs_have_orders_of_their_own(tiny, tmp_path, monkeypatch):
    orders: list[list[int]] = []
    original = Trainer.train_step

    def record(self, batches, *meters):
        orders.append(torch.cat(batches).tolist())
        return original(self, batches, *meters)

    monkeypatch.setattr(Trainer, "train_step", record)
    fit(parse(tiny, "--training.num_epochs=2"), tmp_path / "run")
    half = len(orders) // 2
    assert orders[:half] != orders[half:]
    for epoch in (orders[:half], orders[half:]):
        assert sorted(itertools.chain.from_iterable(epoch)) == list(range(40))


def test_plateau_reduces_the_rate(tiny, tmp_path):
    changes = [
        "--training.schedule=plateau", "--training.plateau_patience=0",
        "--training.plateau_factor=0.1", "--training.num_epochs=6",
        "--training.learning_rate=1e-9",  # nothing is learned, so accuracy stands still
    ]  # fmt: skip
    _, trainer = fit(parse(tiny, *changes), tmp_path / "run")
    assert trainer._optimizer.param_groups[0]["lr"] == pytest.approx(1e-14)


@pytest.mark.parametrize("monitor", ["accuracy", "f1", "auroc", "nll"])
def test_the_monitored_metric_decides_the_best_epoch(monitor, tiny, tmp_path):
    changes = [f"--training.monitor={monitor}", "--training.num_epochs=6"]
    fit(parse(tiny, *changes, "--training.learning_rate=0.05"), tmp_path / "run")
    epochs = json.loads((tmp_path / "run" / "metrics.json").read_text())["epochs"]
    values = [epoch["validation"][monitor] for epoch in epochs]
    best_value = min(values) if monitor == "nll" else max(values)
    kept = [value for value, epoch in zip(values, epochs, strict=True) if epoch["is_best"]]
    assert kept[-1] == best_value


def test_vocabulary_settings(tiny):
    everything = prepare_training(parse(tiny)).vocabulary
    assert len(prepare_training(parse(tiny, "--vocabulary.max_size=7")).vocabulary) == 9
    frequent = prepare_training(parse(tiny, "--vocabulary.min_frequency=3")).vocabulary
    assert 2 < len(frequent) < len(everything)


def test_hold_out_settings(tmp_path):
    write_corpus(tmp_path, splits={"train": 100})

    def validation(*changes: str) -> list[str]:
        return prepare_training(parse(tmp_path, *changes)).validation_reviews.texts

    assert len(validation()) == 10
    assert len(validation("--data.validation_share=0.3")) == 30
    assert validation("--data.validation_seed=1") != validation()
    assert validation("--seed=1") == validation(), "the run's seed leaves the hold-out alone"


def test_a_loss_that_is_no_number_stops_training(tiny, tmp_path):
    changes = ["--training.learning_rate=1e38", "--training.gradient_clip=null"]
    with pytest.raises(ValueError, match=r"norm nan at update .*: lower training.learn"):
        fit(parse(tiny, *changes), tmp_path / "run")
    kept = load_state(tmp_path / "run").section("model")
    assert all(each.isfinite().all() for each in kept.values()), "no broken weights are kept"


def test_pictures_are_drawn_when_asked_for_and_change_nothing(tiny, tmp_path):
    """With dropout, whose random numbers a picture could consume."""
    weights = []
    for pictures in ("true", "false"):
        changes = [f"--training.pictures={pictures}", "--model.dropout=0.5"]
        weights.append(fit(parse(tiny, *changes), tmp_path / pictures)[0])
        events = EventAccumulator(str(tmp_path / pictures / "tensorboard" / "validation"))
        images = events.Reload().Tags()["images"]
        num_explanations = sum("explanation" in tag for tag in images)
        assert num_explanations == (3 if pictures == "true" else 0)
        assert bool(images) == (pictures == "true")
    assert torch.equal(*weights)
