"""Trainings that learn from more than the labels: what they read, tell, and take up again."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.corpus import write_corpus
from helpers.trainings import arguments
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sentiment.cli import main as cli
from sentiment.cli.train import execute, parse
from sentiment.diagnostics.receipt import check_inputs, read_receipt
from sentiment.diagnostics.run_diff import compare_runs
from sentiment.runs.manifest import read_manifest
from sentiment.runs.run import load_run

ALL = [
    "--objectives.adversarial=1", "--objectives.virtual_adversarial=0.7",
    "--objectives.entropy=0.5", "--objectives.perturbation_norm=2",
]  # fmt: skip


@pytest.fixture(scope="module")
def reviews(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("reviews")
    return write_corpus(folder, splits={"train": 120, "validation": 30, "unsupervised": 70})


def weights(run: Path) -> torch.Tensor:
    model = load_run(run, checkpoint="last").model
    return torch.cat([each.detach().flatten() for each in model.parameters()])


@pytest.fixture(scope="module")
def whole(reviews, tmp_path_factory) -> Path:
    """A run that learns from all terms."""
    run = tmp_path_factory.mktemp("whole") / "run"
    assert cli.train(arguments(reviews, run, *ALL)) == 0
    return run


def test_each_setting_changes_what_is_learned(whole, reviews, tmp_path):
    learned = weights(whole)
    assert learned.isfinite().all()
    changes = {
        "weight": ["--objectives.adversarial=0.5"],
        "norm": ["--objectives.perturbation_norm=3"],
        "power": ["--objectives.power_iterations=1"],
        "step": ["--objectives.power_iterations=1", "--objectives.finite_difference=5"],
        "alone": ["--objectives.unlabelled=false"],
        "fewer": ["--objectives.unlabelled_batch_size=5"],
    }
    found = [learned]
    for name, change in changes.items():
        assert cli.train(arguments(reviews, tmp_path / name, *ALL, *change)) == 0
        found.append(weights(tmp_path / name))
        assert not any(torch.equal(found[-1], each) for each in found[:-1]), name


def test_every_term_has_a_curve(whole):
    events = EventAccumulator(str(whole / "tensorboard" / "train")).Reload()
    for name in ("adversarial", "virtual_adversarial", "entropy"):
        points = [each.value for each in events.Scalars(f"objectives/{name}")]
        assert len(points) == len(events.Scalars("loss/by_update")) > 2
        assert all(0 < each < 20 for each in points)
    assert max(each.value for each in events.Scalars("objectives/entropy")) <= 0.6932


def test_one_term_has_one_curve(reviews, tmp_path):
    assert cli.train(arguments(reviews, tmp_path / "run", "--objectives.adversarial=1")) == 0
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard" / "train")).Reload()
    tags = [each for each in events.Tags()["scalars"] if each.startswith("objectives/")]
    assert tags == ["objectives/adversarial"]
    assert "unsupervised" not in read_manifest(tmp_path / "run")["data"], "it is not read"


def test_the_loss_that_is_told_is_that_of_the_labels(reviews, tmp_path):
    """The first point is of the fresh weights' first updates: no term is in it."""
    points = []
    for name, settings in {"plain": [], "mixed": ["--objectives.entropy=100"]}.items():
        still = ["--training.learning_rate=1e-12", "--training.num_epochs=1"]
        assert cli.train(arguments(reviews, tmp_path / name, *still, *settings)) == 0
        epochs = json.loads((tmp_path / name / "metrics.json").read_text())["epochs"]
        points.append(epochs[0]["training"]["loss"])
    assert points[0] == pytest.approx(points[1], abs=0.05)  # other units are dropped


def test_reviews_without_labels_are_in_the_receipt(whole, reviews, tmp_path, capsys):
    receipt = read_receipt(whole)
    unlabelled = receipt.data["unsupervised"]
    assert unlabelled["rows"] == 70
    config = load_run(whole).config
    check_inputs(receipt, config, whole)
    data = {**receipt.data, "unsupervised": {**unlabelled, "sha256": "0" * 64}}
    with pytest.raises(ValueError, match="the unsupervised reviews are 70 with digest"):
        check_inputs(replace(receipt, data=data), config, whole)


def test_a_run_is_resumed_with_the_reviews_it_began_with(reviews, tmp_path, capsys):
    run = tmp_path / "run"

    class PowerCutError(BaseException):
        pass

    def cut(update: int) -> None:
        if update == 7:
            raise PowerCutError

    with pytest.raises(PowerCutError):
        execute(parse(arguments(reviews, run, *ALL), "train"), cut)
    other = write_corpus(
        tmp_path / "other", splits={"train": 120, "validation": 30, "unsupervised": 71}
    )
    assert cli.train([f"--resume={run}", f"--data.path={other}"]) == 1
    error = capsys.readouterr().err
    assert "the unsupervised reviews are 71 with digest" in error and error.count("\n") == 1
    assert cli.train([f"--resume={run}"]) == 0


@pytest.mark.parametrize("term", ["virtual_adversarial", "entropy"])
def test_a_source_without_such_reviews_says_what_to_do(term, tmp_path, capsys):
    folder = write_corpus(tmp_path / "reviews", splits={"train": 120, "validation": 30})
    command = arguments(folder, tmp_path / "run", f"--objectives.{term}=1")
    assert cli.train(command) == 1
    error = capsys.readouterr().err
    assert "has no unsupervised split" in error and error.count("\n") == 1
    assert "set objectives.unlabelled to false to learn from the other reviews alone" in error
    assert cli.train([*command, "--objectives.unlabelled=false"]) == 0


def test_an_update_that_is_skipped_does_not_count(reviews, tmp_path):
    settings = [*ALL, "--training.nonfinite=skip", "--objectives.perturbation_norm=1e38"]
    assert cli.train(arguments(reviews, tmp_path / "run", *settings)) == 0
    assert weights(tmp_path / "run").isfinite().all()


def test_three_classes_are_learned_from_too(tmp_path):
    folder = write_corpus(tmp_path / "reviews", splits={"train": 90, "validation": 30,
                                                       "unsupervised": 40})  # fmt: skip
    for split in ("train", "validation"):
        path = folder / f"{split}.csv"
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "label"])
            for number, row in enumerate(rows):
                writer.writerow([row["text"], "odd" if number % 5 == 0 else row["label"]])
    for name in ("one", "two"):
        assert cli.train(arguments(folder, tmp_path / name, *ALL)) == 0
    assert compare_runs(tmp_path / "one", tmp_path / "two").is_equal
