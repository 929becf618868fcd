"""kill -9 at any moment, those inside a checkpoint's write among them: nothing is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from faults.trainings import arguments, killed_by_seed, train
from sentiment.description import read_description
from sentiment.reproducing.equality import compare_runs
from sentiment.training.checkpoint import load_state, state_path


def survive(num_kills: int, most: int, corpus: Path, folder: Path, *settings: str) -> int:
    """Kill and resume one training again and again, then compare; returns kills inside it."""
    whole, broken = folder / "whole", folder / "broken"
    status, _, error = train(*arguments(corpus, whole, *settings))
    assert status == 0, error
    command = [*arguments(corpus, broken, *settings), "--auto_resume"]
    num_inside = num_finished = 0
    for seed in range(num_kills):
        if killed_by_seed(seed, most, *command) == 0:
            num_finished += 1
        elif (broken / "run.json").exists():
            num_inside += 1
            if state_path(broken).exists():
                load_state(broken)  # checked to the bit
    status, _, error = train(*command)
    assert status == 0, error
    assert num_finished == 0, "all kills were inside the training"
    likeness = compare_runs(whole, broken)
    assert likeness.is_equal, likeness
    assert not list(broken.rglob("*.new")) and not state_path(broken).exists()
    assert read_description(broken)["result"]["num_resumed"] > 0
    return num_inside


def test_a_training_survives_kills(corpus, tmp_path):
    settings = ["--training.num_epochs=3", "--training.checkpoint_updates=3"]
    assert survive(3, 60, corpus, tmp_path, *settings) >= 1


@pytest.mark.long
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_training_survives_fifty_kills(precision, corpus, tmp_path):
    settings = [
        "--training.num_epochs=60", "--training.checkpoint_updates=3",
        "--training.accumulation_steps=2", "--training.schedule=cosine", "--training.patience=60",
        f"--training.precision={precision}",
    ]  # fmt: skip
    num_inside = survive(50, 60, corpus, tmp_path, *settings)
    print(f"{num_inside} of 50 kills inside a {precision} training survived")
    assert num_inside >= 40
