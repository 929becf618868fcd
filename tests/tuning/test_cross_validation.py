"""``sentiment cross-validate``: every review by a model that had not seen it."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from sentiment.cli import main as cli
from sentiment.data.reviews import load_training_splits
from sentiment.evaluation.evaluate import Predictions
from sentiment.runs.run import load_run, load_settings
from sentiment.tuning.cross_validation import (
    OutOfFold,
    collect,
    plan_folds,
    read_predictions,
    write_predictions,
)
from sentiment.tuning.folds_report import compare_out_of_fold, summarize

TINY = [
    "--model.embedding_size=4", "--model.hidden_size=4", "--training.num_epochs=1",
    "--device=cpu", "--data.max_length=10", "--data.num_processes=1",
]  # fmt: skip


def write_reviews(folder: Path, num_groups: int = 9) -> Path:
    """Reviews of two classes, four of each film."""
    folder.mkdir(exist_ok=True)
    with (folder / "train.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label", "film"])
        for number in range(4 * num_groups):
            film, label = number // 4, ("neg", "pos")[number % 2]
            writer.writerow([f"{label} film{film} number {number}", label, f"film {film}"])
    return folder


def make_predictions(seed: int, size: int = 40, repeats: int = 1) -> OutOfFold:
    generator = np.random.default_rng(seed)
    log_probabilities = np.log(generator.dirichlet([1, 1], size * repeats))
    labels = np.tile(np.arange(size) % 2, repeats)
    rows = np.tile(np.arange(size), repeats)
    numbers = np.repeat(np.arange(1, repeats + 1), size)
    return OutOfFold(
        ("neg", "pos"),
        numbers,
        rows % 4 + 1,
        rows,
        rows.astype(str),
        Predictions(log_probabilities, labels),
    )


@pytest.fixture(scope="module")
def validated(tmp_path_factory) -> Path:
    """Three folds by film, trained."""
    folder = tmp_path_factory.mktemp("folds")
    data = write_reviews(folder / "data")
    arguments = [
        "cross-validate", "--folds=3", f"--output_dir={folder / 'cv'}", f"--data.path={data}",
        "--data.validation=groups", "--data.group_column=film", *TINY,
    ]  # fmt: skip
    assert cli.main(arguments) == 0
    return folder / "cv"


def test_every_review_is_predicted_once_by_a_model_that_knew_no_review_of_its_film(validated):
    found = read_predictions(validated)
    assert found.rows.tolist() == list(range(36))
    assert len(np.unique(found.folds)) == 3
    for fold in np.unique(found.folds):
        run = load_run(validated / "folds" / f"repeat1-fold{fold}")
        train, validation = load_training_splits(run.config.data)
        assert validation.rows.tolist() == found.rows[found.folds == fold].tolist()
        assert {row // 4 for row in train.rows}.isdisjoint(row // 4 for row in validation.rows)
        metrics = json.loads((run.path / "metrics.json").read_text())["epochs"][0]["validation"]
        own = found.is_right[found.folds == fold]
        assert metrics["accuracy"] == pytest.approx(own.mean())


def test_a_finished_one_trains_nothing_again(validated, capsys):
    before = (validated / "predictions.csv").read_bytes()
    data = validated.parent / "data"
    arguments = [
        "cross-validate", "--folds=3", f"--output_dir={validated}", f"--data.path={data}",
        "--data.validation=groups", "--data.group_column=film", *TINY,
    ]  # fmt: skip
    assert cli.main(arguments) == 0
    output = capsys.readouterr().out
    assert "training" not in output
    assert "3 folds held out by groups of film" in output
    assert "mean over folds" in output
    assert max(map(len, output.splitlines())) <= max(80, len(str(validated)) + 60)
    assert (validated / "predictions.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--folds=4"], "was begun with --folds 3, not 4"),
        (["--folds=3", "--seed=5"], "was begun with seed 0, not 5"),
    ],
)
def test_another_one_in_its_folder_is_refused(validated, changes, message, capsys):
    data = validated.parent / "data"
    arguments = [
        "cross-validate", *changes, f"--output_dir={validated}", f"--data.path={data}",
        "--data.validation=groups", "--data.group_column=film", *TINY,
    ]  # fmt: skip
    assert cli.main(arguments) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--folds=10"], "has 9 groups among 18 reviews, too few to make 10 folds"),
        (["--data.group_column=director"], "columns text and label and director needed, but found"),
        (["--data.group_column=null"], "to hold out whole groups, set data.validation to groups"),
        (["--folds=1"], "there must be 2 or more"),
        (["--data.num_folds=3"], "data.num_folds is set by --folds"),
        (["--overwrite"], "resumes by itself"),
    ],
)
def test_wrong_input_is_told_in_one_line(tmp_path, changes, message, capsys):
    data = write_reviews(tmp_path / "data")
    arguments = [
        "cross-validate", "--folds=3", f"--output_dir={tmp_path / 'cv'}", f"--data.path={data}",
        "--data.validation=groups", "--data.group_column=film", *TINY, *changes,
    ]  # fmt: skip
    try:
        status = cli.main(arguments)
    except SystemExit as end:
        status = end.code
    error = capsys.readouterr().err
    assert status in (1, 2)
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "cv").exists()


def test_a_group_left_empty_is_told_with_its_row(tmp_path, capsys):
    data = write_reviews(tmp_path / "data")
    text = (data / "train.csv").read_text().replace("film 3", "")
    (data / "train.csv").write_text(text)
    arguments = ["cross-validate", f"--output_dir={tmp_path / 'cv'}", f"--data.path={data}"]
    arguments += ["--data.validation=groups", "--data.group_column=film", *TINY]
    assert cli.main(arguments) == 1
    assert "train.csv, row 13: no film: fill it in or delete the row" in capsys.readouterr().err


def test_a_class_in_one_group_alone_is_refused(tmp_path, capsys):
    data = write_reviews(tmp_path / "data", num_groups=1)
    arguments = ["cross-validate", f"--output_dir={tmp_path / 'cv'}", f"--data.path={data}"]
    arguments += ["--data.validation=groups", "--data.group_column=film", *TINY]
    assert cli.main(arguments) == 1
    assert "class 'neg' has 1 group among 2 reviews" in capsys.readouterr().err


def test_repeats_divide_by_other_seeds():
    from sentiment.config.config import Config

    folds = plan_folds(Config(), Path("x"), 2, 3)
    assert [each.name for each in folds][:3] == ["repeat1-fold1", "repeat1-fold2", "repeat2-fold1"]
    assert [each.config.data.validation_seed for each in folds] == [0, 0, 1, 1, 2, 2]
    assert [each.config.data.fold for each in folds] == [1, 2] * 3


@pytest.mark.parametrize("repeats", [1, 3])
def test_written_predictions_are_read_again(tmp_path, repeats):
    found = make_predictions(0, repeats=repeats)
    write_predictions(tmp_path, found)
    again = read_predictions(tmp_path)
    assert summarize(again) == summarize(found)
    assert np.array_equal(again.is_right, found.is_right)
    (tmp_path / "predictions.csv").write_text("repeat,fold\n1,x\n")
    with pytest.raises(ValueError, match="is damaged"):
        read_predictions(tmp_path)


def test_figures_are_those_of_the_predictions():
    found = make_predictions(1)
    summary = summarize(found)
    assert summary.num_reviews == 40
    assert summary.accuracy == pytest.approx(found.is_right.mean())
    by_fold = [found.is_right[found.folds == fold].mean() for fold in (1, 2, 3, 4)]
    assert summary.accuracies == pytest.approx(by_fold)
    assert summary.mean == pytest.approx(np.mean(by_fold))
    assert summary.deviation == pytest.approx(np.std(by_fold, ddof=1))
    nll = -found.predictions.log_probabilities[np.arange(40), found.predictions.labels].mean()
    assert summary.nll == pytest.approx(nll)


def test_repeats_of_a_review_do_not_narrow_the_interval():
    """The same predictions three times over say no more of other reviews than once."""
    once = make_predictions(2, size=400)
    thrice = OutOfFold(
        once.class_names, np.repeat([1, 2, 3], 400), np.tile(once.folds, 3),
        np.tile(once.rows, 3), np.tile(once.keys, 3),
        Predictions(
            np.tile(once.predictions.log_probabilities, (3, 1)), np.tile(once.predictions.labels, 3)
        ),
    )  # fmt: skip
    one, other = summarize(once), summarize(thrice)
    assert other.accuracy == pytest.approx(one.accuracy)
    assert other.accuracy_ci95 == pytest.approx(one.accuracy_ci95, abs=0.005)


@pytest.mark.parametrize("repeats", [(1, 1), (1, 2)])
def test_two_are_compared_review_by_review(repeats):
    one, other = (make_predictions(seed, repeats=each) for seed, each in enumerate(repeats))
    found = compare_out_of_fold(one, other)
    right = [[each.is_right[each.rows == row].mean() for row in range(40)] for each in (one, other)]
    assert found.difference == pytest.approx(np.mean(right[1]) - np.mean(right[0]))
    low, high = found.difference_ci95
    assert low < found.difference < high
    assert (found.mcnemar_p is None) == (repeats != (1, 1))
    assert compare_out_of_fold(one, one).difference == 0


def test_rows_of_other_reviews_are_not_compared():
    one = make_predictions(0)
    other = replace(one, keys=one.keys[::-1])
    with pytest.raises(ValueError, match="the cross-validations are of other reviews"):
        compare_out_of_fold(one, other)


def test_reviews_that_have_changed_are_refused(tmp_path, capsys):
    """Divided anew, folds would be measured on reviews that their models were trained on."""
    data = write_reviews(tmp_path / "data")
    arguments = [
        "cross-validate", "--folds=2", f"--output_dir={tmp_path / 'cv'}", f"--data.path={data}",
        "--data.validation=groups", "--data.group_column=film", *TINY,
    ]  # fmt: skip
    assert cli.main(arguments) == 0
    write_reviews(data, num_groups=10)
    assert cli.main(arguments) == 1
    assert "was begun with other reviews" in capsys.readouterr().err
    folds = plan_folds(load_settings(tmp_path / "cv/folds/repeat1-fold1"), tmp_path / "cv", 2, 1)
    with pytest.raises(ValueError, match="the reviews that .* held out are others now"):
        collect(folds, torch.device("cpu"))


def test_the_embedded_corpus_has_nothing_to_hold_out(tmp_path, capsys):
    assert cli.main(["cross-validate", f"--output_dir={tmp_path / 'cv'}"]) == 1
    error = capsys.readouterr().err
    assert "the source mini brings a validation split of its own" in error
    assert "give reviews without one by --data.path" in error


def test_compare_takes_cross_validations(validated, capsys):
    assert cli.main(["compare", str(validated), str(validated)]) == 0
    assert "B less A: +0.00 points on 36 reviews" in capsys.readouterr().out
    assert cli.main(["compare", str(validated)]) == 1
    assert "is one cross-validation: give another one's folder too" in capsys.readouterr().err
