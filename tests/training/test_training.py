"""Training end to end on a corpus that a single word decides, and what it leaves behind."""

from __future__ import annotations

import sys
from pathlib import Path
from traceback import walk_stack

import pytest
import torch
from helpers.trainings import arguments, read_epochs, read_events

from sentiment.cli import main as cli
from sentiment.config.parser import parse_training
from sentiment.data.batches import by_update
from sentiment.data.pipeline import prepare_training
from sentiment.runs.run import build_model, create_run, load_run
from sentiment.training import meters
from sentiment.training import trainer as trainer_module
from sentiment.training.checkpoint import TrainingContext
from sentiment.training.logger import RunLogger
from sentiment.training.trainer import Trainer

LONGER = ["--training.num_epochs=4", "--training.learning_rate=0.02", "--training.log_every=5"]
NO_DROPOUT = ["--model.dropout=0", "--model.embedding_dropout=0"]


@pytest.fixture(scope="module")
def run_path(corpus, tmp_path_factory) -> Path:
    """A run trained by the train command."""
    path = tmp_path_factory.mktemp("runs") / "small"
    assert cli.train(arguments(corpus, path, *LONGER, "--model.embedding_dropout=0")) == 0
    return path


def make_trainer(corpus: Path, path: Path, *options: str) -> Trainer:
    config = parse_training(arguments(corpus, path, *NO_DROPOUT, *options), "test").config
    torch.manual_seed(config.seed)
    data = prepare_training(config)
    model = build_model(config.model, data.vocabulary, 2)
    create_run(path, config, data.class_names, data.vocabulary)
    context = TrainingContext(config, path, torch.device("cpu"), torch.float32)
    return Trainer(model, data, context, RunLogger(path))


def test_it_learns(run_path):
    history = read_epochs(run_path)
    assert len(history) == 4
    assert max(epoch["validation"]["accuracy"] for epoch in history) > 0.95
    assert history[-1]["training"]["loss"] < 0.5 * history[0]["training"]["loss"]


def test_tensorboard_holds_every_curve(run_path):
    train, validation = read_events(run_path, "train"), read_events(run_path, "validation")
    shared = {"loss/by_update", "accuracy/by_update", "loss/by_epoch", "accuracy/by_epoch"}
    figures = {
        "learning_rate", "gradient_norm", "tokens_per_second", "padding_share",
        "peak_memory_bytes",
    }  # fmt: skip
    assert set(train.Tags()["scalars"]) == shared | {f"training/{name}" for name in figures}
    best = {"best/accuracy", "best/f1", "best/macro_f1", "best/auroc", "best/nll"}
    more = {"f1/by_epoch", "auroc/by_epoch", *best}
    assert set(validation.Tags()["scalars"]) == shared | more
    parameters = {name for name, _ in load_run(run_path).model.named_parameters()}
    expected = {f"{kind}/{name}" for kind in ("weights", "gradients") for name in parameters}
    assert set(train.Tags()["histograms"]) == expected
    assert "reviews/text_summary" in validation.Tags()["tensors"]
    assert "_hparams_/session_start_info" in validation.PluginTagToContent("hparams")
    epochs = [event.step for event in train.Scalars("loss/by_epoch")]
    assert epochs == [event.step for event in validation.Scalars("loss/by_epoch")] == [1, 2, 3, 4]
    updates = [event.step for event in train.Scalars("loss/by_update")]
    assert updates == sorted(set(updates)), "no point stands twice"
    history = read_epochs(run_path)
    curve = [event.value for event in validation.Scalars("accuracy/by_epoch")]
    assert curve == pytest.approx([epoch["validation"]["accuracy"] for epoch in history])
    (words,) = (run_path / "tensorboard").rglob("metadata.tsv")
    vocabulary = load_run(run_path).vocabulary.itos
    assert words.read_text(encoding="utf-8").split("\n")[: len(vocabulary)] == vocabulary


def test_only_updates_count_as_time_of_training(corpus, tmp_path, monkeypatch):
    clock = iter(range(10**9))  # a second passes whenever someone looks
    monkeypatch.setattr(meters.time, "perf_counter", lambda: float(next(clock)))
    trainer = make_trainer(corpus, tmp_path / "run", "--training.checkpoint_updates=null")

    def slow(*_: object, **__: object) -> None:
        for _ in range(10_000):
            next(clock)

    for name in ("histograms", "figures", "reviews"):
        monkeypatch.setattr(RunLogger, name, slow)
    monkeypatch.setattr(trainer_module, "save_state", slow)
    trainer.fit()
    history = read_epochs(tmp_path / "run")
    for epoch in history:
        assert 0 < epoch["training"]["seconds"] < 10_000


def test_accumulated_batches_have_the_gradient_of_one_large_batch(corpus, tmp_path):
    """Batches of 100, 100 and 40 reviews: a mean of their means would be another gradient."""
    gradients = []
    for name, batch_size, steps in (("large", 240, 1), ("small", 100, 3)):
        sizes = f"--training.batch_size={batch_size}", f"--training.accumulation_steps={steps}"
        trainer = make_trainer(corpus, tmp_path / name, *sizes)
        (group,) = by_update(trainer._sampler, steps)
        trainer.train_step(group)
        gradients.append(torch.cat([each.grad.flatten() for each in trainer._model.parameters()]))
    assert gradients[0].norm() > 0
    assert (gradients[0] - gradients[1]).norm() <= 1e-4 * gradients[0].norm()


def test_early_stopping_keeps_the_best(corpus, tmp_path):
    settings = ["--training.num_epochs=30", "--training.patience=2",
                "--training.learning_rate=0.05", "--training.label_smoothing=0.5"]  # fmt: skip
    assert cli.train(arguments(corpus, tmp_path / "run", *settings)) == 0
    is_best = [epoch["is_best"] for epoch in read_epochs(tmp_path / "run")]
    assert len(is_best) < 30 and is_best[-3:] == [True, False, False]
    save = tmp_path / "run" / "checkpoints"
    assert (save / "best" / "model.safetensors").read_bytes() != (
        save / "last" / "model.safetensors"
    ).read_bytes()


@pytest.mark.parametrize("shared_reviews", ["report", "ignore"])
def test_training_opens_the_test_split_for_the_guard_alone(shared_reviews, corpus, tmp_path):
    """Watches every file that the process opens while the command runs, and who opens it."""
    opened: list[tuple[str, bool]] = []
    watching = True

    def watch(event: str, details: tuple) -> None:
        if watching and event == "open":
            by_guard = "read_test_keys" in [frame.f_code.co_name for frame, _ in walk_stack(None)]
            opened.append((str(details[0]), by_guard))

    sys.addaudithook(watch)
    more = "--training.num_epochs=1", f"--data.shared_reviews={shared_reviews}"
    assert cli.train(arguments(corpus, tmp_path / "run", *more)) == 0
    watching = False
    assert (str(corpus / "train.csv"), False) in opened
    assert (str(corpus / "validation.csv"), False) in opened
    by_guard = {by_guard for path, by_guard in opened if path == str(corpus / "test.csv")}
    assert by_guard == ({True} if shared_reviews == "report" else set())


@pytest.mark.cuda
def test_it_learns_on_cuda(corpus, tmp_path):
    assert cli.train(arguments(corpus, tmp_path / "run", *LONGER, "--device=cuda")) == 0
    assert load_run(tmp_path / "run").checkpoint.metrics["accuracy"] > 0.95


def test_averaged_weights_are_kept_and_the_others_trained(corpus, tmp_path):
    """A decay of almost 0 keeps the last weights: it must equal a training without average."""
    weights = {}
    for name, decay in {"none": "null", "hardly": "1e-9", "long": "0.9"}.items():
        settings = f"--training.average_decay={decay}", "--training.num_epochs=1"
        assert cli.train(arguments(corpus, tmp_path / name, *settings)) == 0
        model = load_run(tmp_path / name, checkpoint="last").model
        weights[name] = torch.cat([each.detach().flatten() for each in model.parameters()])
    assert torch.allclose(weights["hardly"], weights["none"], atol=1e-6)
    assert (weights["long"] - weights["none"]).norm() > 1e-3 * weights["none"].norm()
