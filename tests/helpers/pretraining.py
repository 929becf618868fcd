"""Pre-trainings that take a second."""

import os
import signal
from pathlib import Path

import pytest

from helpers.trainings import read_events
from sentiment.cli import main as cli
from sentiment.pretraining.pretrainer import Pretrainer


def options(reviews: Path, run: Path, *more: str) -> list[str]:
    return [
        f"--data.path={reviews}", f"--output_dir={run}", "--model.embedding_size=8",
        "--model.hidden_size=8", "--vocabulary.min_frequency=1", "--training.num_epochs=1",
        "--training.precision=fp32", "--training.pictures=false", "--training.log_every=5",
        "--pretraining.num_epochs=1", "--pretraining.batch_size=16", "--pretraining.window=8",
        *more,
    ]  # fmt: skip


def pretrain(*arguments: str) -> int:
    return cli.main(["pretrain", *arguments])


def curves(path: Path) -> dict[str, list[tuple[int, float]]]:
    """Steps and values of each logged scalar but those of speed, which vary."""
    events = read_events(path, "pretraining")
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
        if "second" not in tag
    }


def stop_before_batch(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Send SIGTERM before one batch of the next pre-training, counted from 1."""
    train_batch, count = Pretrainer._train_batch, 0

    def stopped(self, batch):
        nonlocal count
        count += 1
        if count == number:
            os.kill(os.getpid(), signal.SIGTERM)
        train_batch(self, batch)

    monkeypatch.setattr(Pretrainer, "_train_batch", stopped)
