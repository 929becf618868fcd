"""Losses and gradients that are not finite, and a device that is out of memory."""

import math
import re

import pytest
import torch
from helpers.trainings import arguments, read_epochs, refusal, stop_after

from sentiment.cli import main as cli
from sentiment.cli.train import execute, parse
from sentiment.config.config import TrainingConfig
from sentiment.data.batches import Batch
from sentiment.diagnostics.run_diff import compare_runs
from sentiment.model import SentimentClassifier
from sentiment.runs.run import load_run
from sentiment.runtime.distributed import DistributedContext
from sentiment.training.checkpoint import load_state
from sentiment.training.optim import NonFiniteGuard, StepInfo, explain_out_of_memory


def infinite(logits: torch.Tensor) -> torch.Tensor:
    return logits * float("inf")


def without_first_class(logits: torch.Tensor) -> torch.Tensor:
    """Probabilities of 0: reviews of the first class have an infinite loss, but a gradient."""
    return torch.cat((torch.full_like(logits[:, :1], float("-inf")), logits[:, 1:]), dim=1)


def poison(monkeypatch: pytest.MonkeyPatch, first: int, last: int, change=infinite) -> None:
    """Change the logits of some forward passes in training."""
    forward, passes = SentimentClassifier.forward, []

    def poisoned(self, tokens, lengths):
        logits = forward(self, tokens, lengths)
        if self.training:
            passes.append(len(lengths))
            if first <= len(passes) <= last:
                return change(logits)
        return logits

    monkeypatch.setattr(SentimentClassifier, "forward", poisoned)


def test_training_stops_and_names_the_update(corpus, tmp_path, monkeypatch, capsys):
    poison(monkeypatch, 8, 8)
    run = tmp_path / "run"
    error = refusal(arguments(corpus, run), capsys)
    assert re.search(r"loss is nan .* norm nan at update 8 \(epoch 1, learning rate 0.01, ", error)
    assert re.search(r"batch of 16 reviews of up to \d+ tokens: training reviews \d+, \d+", error)
    assert "training.learning_rate" in error and "training.nonfinite skip" in error
    state = load_state(run)
    assert state.values["updates"]["update"] == 5
    assert all(value.isfinite().all() for value in state.section("model").values())
    monkeypatch.undo()
    assert cli.train([f"--resume={run}"]) == 0


@pytest.mark.parametrize("change", [infinite, without_first_class])
def test_non_finite_updates_can_be_skipped(change, corpus, tmp_path, monkeypatch):
    poison(monkeypatch, 8, 9, change)
    run = tmp_path / "run"
    updates: list[int] = []
    execute(parse(arguments(corpus, run, "--training.nonfinite=skip"), "train"), updates.append)
    assert len(updates) == 30, "skipped updates are counted too"
    assert all(parameter.isfinite().all() for parameter in load_run(run).model.parameters())
    assert all(math.isfinite(epoch["training"]["loss"]) for epoch in read_epochs(run))


def test_a_checkpoint_between_skipped_updates_continues_exactly(corpus, tmp_path, monkeypatch):
    """The first updates are skipped too, when the optimizer has no moments to save yet."""
    forward = SentimentClassifier.forward

    def poisoned(self, tokens, lengths):
        logits = forward(self, tokens, lengths)
        is_bad = self.training and int(tokens.sum()) % 3 != 0  # the same batches again
        return infinite(logits) if is_bad else logits

    monkeypatch.setattr(SentimentClassifier, "forward", poisoned)
    changes = ["--training.nonfinite=skip", "--training.checkpoint_updates=1",
               "--training.average_decay=0.9"]  # fmt: skip
    whole, broken = (arguments(corpus, tmp_path / name, *changes) for name in ("whole", "broken"))
    assert cli.train(whole) == 0
    stop_after(broken, 1)
    for update in (3, 8, 17, 22):
        stop_after([f"--resume={tmp_path / 'broken'}"], update)
    num_skipped = load_state(tmp_path / "broken").values["updates"]["num_skipped"]
    assert 5 < num_skipped < 22
    assert cli.train([f"--resume={tmp_path / 'broken'}"]) == 0
    difference = compare_runs(tmp_path / "whole", tmp_path / "broken")
    assert difference.is_equal, difference


def test_skipping_ends_after_fifty_updates_in_a_row(corpus, tmp_path, monkeypatch, capsys):
    poison(monkeypatch, 1, 10**9)
    settings = ["--training.nonfinite=skip", "--training.num_epochs=9"]
    message = refusal(arguments(corpus, tmp_path / "run", *settings), capsys)
    assert "not finite 51 times in a row" in message


def test_values_on_a_gpu_are_checked_late_but_before_anything_is_saved():
    # Tensors on the CPU will do.
    guard = NonFiniteGuard("stop", torch.device("cuda"), DistributedContext())
    step = StepInfo(3, 1, 0.1, [4, 5], 9)
    bad = torch.tensor(float("nan"))
    assert guard.allows(step, torch.tensor(1.0), torch.tensor(1.0))
    guard.check()
    assert guard.allows(step, torch.tensor(1.0), bad)
    assert guard.allows(StepInfo(4, 1, 0.1, [1], 9), bad, bad)
    with pytest.raises(ValueError, match=r"update 3 \(.*training reviews 5, 6\)"):
        guard.check()
    assert "batch of 3 reviews of up to 9 tokens: training reviews 7)" in str(
        StepInfo(5, 1, 0.1, [-1, 6, -1], 9)
    )
    assert "up to 9 tokens: contrast texts)" in str(StepInfo(5, 1, 0.1, [-1, -1], 9))


@pytest.mark.parametrize(
    "failure",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried ..."),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously ..."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    ],
)
def test_out_of_memory_names_the_batch(failure, corpus, tmp_path, monkeypatch, capsys):
    def fail(_: torch.Tensor) -> torch.Tensor:
        raise failure

    poison(monkeypatch, 7, 7, fail)
    run = tmp_path / "run"
    error = refusal(arguments(corpus, run), capsys)
    assert re.search(r"cpu has too little memory for a batch of 16 reviews of \d+ tokens", error)
    assert "lower training.batch_size (16 reviews;" in error and "data.max_length" in error
    assert load_state(run).values["updates"]["update"] == 5


def test_out_of_memory_names_the_setting_of_unlabelled_batches():
    batch = Batch(torch.zeros(128, 9, dtype=torch.int64), *[torch.zeros(128).long()] * 3)
    memory = explain_out_of_memory(batch, TrainingConfig(), torch.device("cpu"), is_labelled=False)
    with (
        pytest.raises(MemoryError, match="lower objectives.unlabelled_batch_size below 128"),
        memory,
    ):
        raise torch.OutOfMemoryError("CUDA out of memory.")
