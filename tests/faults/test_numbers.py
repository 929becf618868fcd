"""Losses and gradients that are not finite, and a device that is out of memory."""

from __future__ import annotations

import re

import pytest
import torch
from helpers.trainings import arguments

from sentiment.cli import main as cli
from sentiment.cli.main import run_command
from sentiment.cli.train import execute, parse
from sentiment.model import SentimentClassifier
from sentiment.runs.run import load_run
from sentiment.training.checkpoint import load_state
from sentiment.training.optim import NonFiniteGuard, StepInfo


def poison(monkeypatch: pytest.MonkeyPatch, first: int, last: int) -> None:
    """Make the logits of some forward passes in training infinite."""
    forward, passes = SentimentClassifier.forward, []

    def poisoned(self, tokens, lengths):
        logits = forward(self, tokens, lengths)
        if self.training:
            passes.append(len(lengths))
            if first <= len(passes) <= last:
                return logits * float("inf")
        return logits

    monkeypatch.setattr(SentimentClassifier, "forward", poisoned)


def test_training_stops_and_names_the_update(corpus, tmp_path, monkeypatch, capsys):
    poison(monkeypatch, 8, 8)
    run = tmp_path / "run"
    assert cli.train(arguments(corpus, run)) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(r"loss is nan .* norm nan at update 8 \(epoch 1, learning rate 0.01, ", error)
    assert re.search(r"batch of 16 reviews of up to \d+ tokens: training reviews \d+, \d+", error)
    assert "training.learning_rate" in error and "training.nonfinite skip" in error
    state = load_state(run)
    assert state.values["updates"]["update"] == 5
    assert all(value.isfinite().all() for value in state.section("model").values())
    monkeypatch.undo()
    assert cli.train([f"--resume={run}"]) == 0


def test_non_finite_updates_can_be_skipped(corpus, tmp_path, monkeypatch):
    poison(monkeypatch, 8, 9)
    run = tmp_path / "run"
    updates: list[int] = []
    execute(parse(arguments(corpus, run, "--training.nonfinite=skip"), "train"), updates.append)
    assert len(updates) == 30, "skipped updates are counted too"
    assert all(parameter.isfinite().all() for parameter in load_run(run).model.parameters())


def test_skipping_ends_after_fifty_updates_in_a_row(corpus, tmp_path, monkeypatch, capsys):
    poison(monkeypatch, 1, 10**9)
    settings = ["--training.nonfinite=skip", "--training.num_epochs=9"]
    assert cli.train(arguments(corpus, tmp_path / "run", *settings)) == 1
    assert "not finite 51 times in a row" in capsys.readouterr().err


def test_values_on_a_gpu_are_checked_late_but_before_anything_is_saved():
    guard = NonFiniteGuard("stop", torch.device("cuda"))  # tensors on the CPU will do
    step = StepInfo(3, 1, 0.1, [4, 5], 9)
    bad = torch.tensor(float("nan"))
    assert guard.allows(step, torch.tensor(1.0), torch.tensor(1.0))
    guard.check()
    assert guard.allows(step, torch.tensor(1.0), bad)
    assert guard.allows(StepInfo(4, 1, 0.1, [1], 9), bad, bad)
    with pytest.raises(ValueError, match=r"update 3 \(.*training reviews 5, 6\)"):
        guard.check()


@pytest.mark.parametrize(
    "failure",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried ..."),
    ],
)
def test_out_of_memory_names_the_batch_and_the_setting(
    failure, corpus, tmp_path, monkeypatch, capsys
):
    forward = SentimentClassifier.forward
    passes = []

    def failing(self, tokens, lengths):
        passes.append(1)
        if len(passes) == 7:
            raise failure
        return forward(self, tokens, lengths)

    monkeypatch.setattr(SentimentClassifier, "forward", failing)
    run = tmp_path / "run"
    request = parse(arguments(corpus, run), "train")
    assert run_command(lambda: execute(request)) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(r"cpu has too little memory for a batch of 16 reviews of \d+ tokens", error)
    assert "lower training.batch_size (16 reviews;" in error and "data.max_length" in error
    assert load_state(run).values["updates"]["update"] == 5
