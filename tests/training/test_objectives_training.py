"""Trainings with more terms than the labels' loss: what they read, log, and refuse."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from helpers.corpus import write_corpus
from helpers.trainings import arguments, read_epochs, read_events, refusal

from sentiment.cli import main as cli
from sentiment.diagnostics.run_diff import check_inputs, read_provenance
from sentiment.runs.manifest import read_manifest
from sentiment.runs.run import load_run

ALL = [
    "--objectives.adversarial=1", "--objectives.virtual_adversarial=0.7",
    "--objectives.entropy=0.5", "--objectives.perturbation_norm=2",
]  # fmt: skip
ONE_EPOCH = "--training.num_epochs=1"


@pytest.fixture(scope="module")
def run(reviews, tmp_path_factory) -> Path:
    """A run that learned from all terms."""
    run = tmp_path_factory.mktemp("run") / "run"
    assert cli.train(arguments(reviews, run, *ALL)) == 0
    return run


def term_curves(run: Path) -> dict[str, list[float]]:
    events = read_events(run, "train")
    return {
        tag.removeprefix("objectives/"): [point.value for point in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
        if tag.startswith("objectives/")
    }


def test_every_term_has_a_curve(run):
    curves = term_curves(run)
    assert curves.keys() == {"adversarial", "virtual_adversarial", "entropy"}
    for points in curves.values():
        assert len(points) == 4 and all(0 < value < 20 for value in points)
    assert max(curves["entropy"]) <= 0.6932


def test_the_logged_loss_is_that_of_the_labels(reviews, tmp_path):
    losses = []
    for name, settings in {"plain": [], "more": ["--objectives.entropy=100"]}.items():
        still = ["--training.learning_rate=1e-12", ONE_EPOCH]
        assert cli.train(arguments(reviews, tmp_path / name, *still, *settings)) == 0
        losses.append(read_epochs(tmp_path / name)[0]["training"]["loss"])
    assert losses[0] == pytest.approx(losses[1], abs=0.05)  # dropout differs
    assert term_curves(tmp_path / "more").keys() == {"entropy"}


def test_the_provenance_has_the_unlabelled_reviews(run):
    provenance, config = read_provenance(run), load_run(run).config
    unlabelled = provenance.data["unsupervised"]
    assert unlabelled["rows"] == 70
    check_inputs(provenance, config, run)
    data = {**provenance.data, "unsupervised": {**unlabelled, "sha256": "0" * 64}}
    with pytest.raises(ValueError, match="the unsupervised reviews are 70 with digest"):
        check_inputs(replace(provenance, data=data), config, run)


def test_a_source_without_unlabelled_reviews(tmp_path, capsys):
    folder = write_corpus(tmp_path / "reviews", splits={"train": 60, "validation": 30})
    for term in ("virtual_adversarial", "entropy"):
        command = arguments(folder, tmp_path / "run", f"--objectives.{term}=1", ONE_EPOCH)
        message = refusal(command, capsys)
        assert "has no unsupervised split" in message
        assert "set objectives.unlabelled to false to learn from the other reviews" in message
    assert cli.train([*command, "--objectives.unlabelled=false"]) == 0
    assert "unsupervised" not in read_manifest(tmp_path / "run")["data"]


def test_a_skipped_update_does_not_count(reviews, tmp_path):
    settings = [*ALL, "--training.nonfinite=skip", "--objectives.perturbation_norm=1e38", ONE_EPOCH]
    assert cli.train(arguments(reviews, tmp_path / "run", *settings)) == 0
    model = load_run(tmp_path / "run", checkpoint="last").model
    assert all(parameter.isfinite().all() for parameter in model.parameters())
