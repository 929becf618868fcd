"""A linear model that other models teach on the unlabelled reviews."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.corpus import write_corpus
from helpers.review_files import read_rows
from helpers.trainings import SPLITS, refusal, rewrite, train

import sentiment
from sentiment.baseline.folder import load_baseline
from sentiment.baseline.linear import find_ngrams, fit_linear
from sentiment.baseline.train import MIN_REVIEWS
from sentiment.cli import main as cli
from sentiment.data.pipeline import tokenize_reviews
from sentiment.data.reviews import load_training_splits, load_unlabelled
from sentiment.runs.manifest import read_manifest

EVALUATION = Path("evaluation") / "validation"


@pytest.fixture(scope="module")
def reviews(tmp_path_factory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("taught") / "data", splits=SPLITS)


@pytest.fixture(scope="module")
def run(reviews, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("taught") / "run"
    train(reviews, path, "--training.num_epochs=4", "--training.learning_rate=0.03")
    assert cli.main(["baseline", f"--config={path}/config.yaml"]) == 0
    return path


def teach(run: Path, *arguments: object) -> int:
    return cli.main(["baseline", f"--config={run}/config.yaml", *map(str, arguments)])


@pytest.fixture(scope="module")
def student(run) -> Path:
    assert teach(run, "--teachers", run, f"{run}-baseline") == 0
    return Path(f"{run}-student")


def test_it_learns_the_mean_of_its_teachers_probabilities(reviews, run, student):
    config = load_baseline(student).config
    learned, validation = load_training_splits(config.data)
    unlabelled = load_unlabelled(config.data, learned, validation)
    lstm = sentiment.load(run, device="cpu", calibrated=False)
    mean = np.array([prediction.probabilities for prediction in lstm.predict(unlabelled.texts)])
    mean += np.exp(load_baseline(Path(f"{run}-baseline")).predict_texts(unlabelled.texts))
    tokens = [tokenize_reviews(each, config.data) for each in (learned, unlabelled)]
    ngrams = find_ngrams(tokens[0], min_texts=MIN_REVIEWS)
    matrix = np.concatenate([ngrams.matrix(each).toarray() for each in tokens])
    loaded = load_baseline(student)
    assert loaded.ngrams.texts() == ngrams.texts()
    expected = fit_linear(type(ngrams.matrix(tokens[0]))(matrix), learned.labels, 2, mean / 2)
    np.testing.assert_allclose(loaded.model.weights, expected.weights, atol=2e-3)
    alone = load_baseline(Path(f"{run}-baseline")).model
    assert np.abs(loaded.model.weights - alone.weights).max() > 0.1, "the labels alone teach less"


def test_its_folder_names_its_teachers_and_what_it_read(run, student):
    manifest = read_manifest(student)
    baseline = Path(f"{run}-baseline")
    folders = [run, baseline]
    assert [each["path"] for each in manifest["teachers"]] == list(map(str, folders))
    identities = [read_manifest(folder)["identity"] for folder in folders]
    assert [each["identity"] for each in manifest["teachers"]] == identities
    assert manifest["data"]["unsupervised"]["rows"] == SPLITS["unsupervised"]
    assert "teachers" not in read_manifest(baseline)
    rows = {name: data["rows"] for name, data in manifest["data"].items()}
    share = rows["train"] / (rows["train"] + rows["unsupervised"])
    assert manifest["regularization"] == share * read_manifest(baseline)["regularization"]
    assert list(read_manifest(baseline)["data"]) == ["train", "validation"]
    report = json.loads((student / EVALUATION / "report.json").read_text())
    assert any(f"{run} and {baseline}" in note for note in report["notes"])


def test_it_is_said_what_taught_it_and_it_joins_ensembles(run, student, capsys):
    assert teach(run, "--teachers", run, f"{run}-baseline", "--overwrite") == 0
    printed = capsys.readouterr().out
    assert "70 reviews without labels, by the" in printed
    short = [line for line in printed.splitlines() if str(run.parent.parent) not in line]
    assert max(map(len, short)) <= 80
    assert f"next: sentiment compare {run} {student}" in printed
    together = sentiment.evaluate(run, "validation", ensemble=[student])
    assert together.metrics["accuracy"] > 0.9
    rows = read_rows(student / EVALUATION / "predictions.csv")
    assert len(rows) == SPLITS["validation"]
    # It teaches an LSTM too, as a baseline does.
    options = [f"--config={run}/config.yaml", f"--output_dir={run}-2"]
    options += [f"--distillation.teachers=[{student}]", "--training.num_epochs=1"]
    assert cli.train(options) == 0
    assert read_manifest(Path(f"{run}-2"))["teachers"][0]["path"] == str(student)


def test_teachers_that_cannot_be_trusted_are_refused(reviews, run, student, tmp_path, capsys):
    def refuse(*teachers: object, status: int = 1) -> str:
        command = [f"--config={run}/config.yaml", f"--output_dir={tmp_path / 'new'}"]
        message = refusal([*command, "--teachers", *teachers], capsys, "baseline", status=status)
        assert not (tmp_path / "new").exists()
        return message

    assert "is not a run" in refuse(tmp_path / "nowhere")
    assert "different folders" in refuse(run, run, status=1)
    other = tmp_path / "other"
    train(reviews, other, "--training.num_epochs=1")
    data = read_manifest(other)["data"]
    rewrite(other, data={**data, "validation": {**data["validation"], "sha256": "0" * 64}})
    assert "which it may have learned from" in refuse(other)
    own = [f"--config={run}/config.yaml", "--teachers", student, f"--output_dir={student}"]
    message = refusal([*own, "--overwrite"], capsys, "baseline")
    assert "is also the student's output_dir" in message


def test_settings_of_a_classifiers_objectives_have_no_effect(run, student, tmp_path):
    other = [f"--output_dir={tmp_path / 'new'}", "--objectives.unlabelled=false"]
    assert teach(run, "--teachers", run, f"{run}-baseline", *other) == 0
    weights = [load_baseline(path).model.weights for path in (student, tmp_path / "new")]
    np.testing.assert_array_equal(*weights)


def test_without_unlabelled_reviews_there_is_nothing_to_teach(tmp_path, capsys):
    data = write_corpus(tmp_path / "data", splits={"train": 60, "validation": 20})
    run = tmp_path / "run"
    train(data, run, "--training.num_epochs=1")
    message = refusal([f"--config={run}/config.yaml", "--teachers", run], capsys, "baseline")
    assert "unsupervised" in message
    assert not Path(f"{run}-student").exists()
