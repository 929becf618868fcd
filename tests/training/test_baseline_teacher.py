"""A linear model as a teacher: trained before the student, or named like a run."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.corpus import write_corpus
from helpers.distilling import SPLITS, learn_from
from helpers.trainings import arguments, refusal
from scipy.special import softmax

from sentiment.baseline.folder import load_baseline
from sentiment.cli import main as cli
from sentiment.config.parser import load_config
from sentiment.data.reviews import load_split
from sentiment.diagnostics.run_diff import compare_runs
from sentiment.runs.manifest import read_manifest
from sentiment.runs.weights import read_tensors
from sentiment.training.distillation import soft_labels_path

SHORT = ["--training.num_epochs=1", "--training.log_every=1", "--distillation.temperature=2"]
BASELINE = "--distillation.baseline=true"


@pytest.fixture(scope="module")
def student(reviews: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("student") / "run"
    assert cli.train(arguments(reviews, run, *SHORT, BASELINE)) == 0
    return run


@pytest.fixture
def copied(student: Path, tmp_path: Path) -> Path:
    """A copy of the baseline, next to ``tmp_path / "run"``."""
    return Path(shutil.copytree(f"{student}-baseline", tmp_path / "run-baseline"))


def test_the_soft_labels_are_the_baselines_calibrated_probabilities(student):
    baseline = load_baseline(Path(f"{student}-baseline"))
    reviews = load_split(load_config(student / "config.yaml").data, "unsupervised")
    logs = baseline.predict(reviews).log_probabilities
    tensors, _ = read_tensors(soft_labels_path(student), read_manifest(student)["identity"])
    expected = softmax(logs / (2 * baseline.temperature), axis=1)
    np.testing.assert_allclose(tensors["soft_labels"].numpy(), expected, atol=1e-6)
    (teacher,) = read_manifest(student)["teachers"]
    assert teacher["path"] == f"{student}-baseline"
    assert "baseline: " in (student / "train.log").read_text(), "the run ends with the comparison"


def test_a_named_baseline_teaches_the_same(student, reviews, copied, tmp_path):
    assert cli.train(arguments(reviews, tmp_path / "named", *SHORT, learn_from(copied))) == 0
    assert compare_runs(student, tmp_path / "named").is_equal


def test_a_baseline_of_the_same_reviews_is_kept(student, reviews, copied, tmp_path):
    before = (copied / "run.json").stat().st_mtime_ns
    assert cli.train(arguments(reviews, tmp_path / "run", *SHORT, BASELINE)) == 0
    assert (copied / "run.json").stat().st_mtime_ns == before
    assert compare_runs(student, tmp_path / "run").is_equal


def test_a_baseline_of_other_reviews_is_refused_or_replaced(copied, tmp_path, capsys):
    others = write_corpus(tmp_path / "others", splits=SPLITS, seed=5)
    command = arguments(others, tmp_path / "run", *SHORT, BASELINE)
    assert f"{copied} holds a baseline: replace it with --overwrite" in refusal(command, capsys)
    named = arguments(others, tmp_path / "named", *SHORT, learn_from(copied))
    assert f"the teacher {copied} held out 30 validation reviews" in refusal(named, capsys)
    assert cli.train([*command, "--overwrite"]) == 0
    with (copied / "evaluation" / "validation" / "predictions.csv").open() as file:
        assert len(list(csv.DictReader(file))) == SPLITS["validation"]
    assert read_manifest(copied)["data"] == {
        split: read_manifest(tmp_path / "run")["data"][split] for split in ("train", "validation")
    }


def test_a_baseline_that_was_not_finished_is_refused(reviews, copied, tmp_path, capsys):
    (copied / ".begun").touch()
    command = arguments(reviews, tmp_path / "named", *SHORT, learn_from(copied))
    assert "is not finished: train it again with sentiment baseline" in refusal(command, capsys)
