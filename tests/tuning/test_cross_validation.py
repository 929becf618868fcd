"""``sentiment cross-validate``: every review by a model that had not seen it."""

import json
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from helpers.review_files import write
from helpers.trainings import arguments, refusal
from sklearn.metrics import f1_score

from sentiment.cli import main as cli
from sentiment.config.config import Config, DataConfig
from sentiment.config.parser import save_config
from sentiment.data.reviews import load_training_splits
from sentiment.evaluation.evaluate import Predictions
from sentiment.runs.run import HALF_MADE, load_run, load_settings
from sentiment.runs.weights import BASELINE_WEIGHTS
from sentiment.runtime.errors import UserError
from sentiment.tuning import cross_validation
from sentiment.tuning.cross_validation import (
    Fold,
    OutOfFoldPredictions,
    compare_out_of_fold,
    plan_folds,
    predict_out_of_fold,
    read_predictions,
    summarize,
    summary_table,
    train_folds,
    write_predictions,
)
from sentiment.tuning.trainings import TrainingOutcome


def write_reviews(folder: Path, num_groups: int = 9) -> Path:
    """Reviews of two classes, four of each film."""
    labels = ["neg", "pos"] * 2 * num_groups
    texts = [f"{label} film{n // 4} number {n}" for n, label in enumerate(labels)]
    films = [f"film {n // 4}" for n in range(4 * num_groups)]
    return write(folder / "train.csv", {"text": texts, "label": labels, "film": films}).parent


def make_predictions(seed: int, size: int = 40, repeats: int = 1) -> OutOfFoldPredictions:
    generator = np.random.default_rng(seed)
    log_probabilities = np.log(generator.dirichlet([1, 1], size * repeats))
    labels = np.tile(np.arange(size) % 2, repeats)
    rows = np.tile(np.arange(size), repeats)
    numbers = np.repeat(np.arange(1, repeats + 1), size)
    return OutOfFoldPredictions(
        ("neg", "pos"),
        numbers,
        rows % 4 + 1,
        rows,
        rows.astype(str),
        Predictions(log_probabilities, labels),
    )


def command(data: Path, folder: Path, *options: str) -> list[str]:
    groups = "--data.validation=groups", "--data.group_column=film", "--training.num_epochs=1"
    return ["cross-validate", "--folds=2", *arguments(data, folder, *groups, *options)]


@pytest.fixture(scope="module")
def validated(tmp_path_factory) -> Path:
    """Two folds by film, trained in this process."""

    def train(config, files, *, forwarder) -> TrainingOutcome:
        save_config(config, files)
        assert cli.main(["train", f"--config={files}"]) == 0
        return TrainingOutcome("complete")

    folder = tmp_path_factory.mktemp("folds")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cross_validation, "run_training", train)
        assert cli.main(command(write_reviews(folder / "data"), folder / "cv")) == 0
    return folder / "cv"


def test_every_review_is_predicted_once_by_a_model_that_knew_no_review_of_its_film(validated):
    found = read_predictions(validated)
    assert found.rows.tolist() == list(range(36))
    assert set(found.folds) == {1, 2}
    for fold in (1, 2):
        run = load_run(validated / "folds" / f"repeat1-fold{fold}")
        train, validation = load_training_splits(run.config.data)
        assert validation.rows.tolist() == found.rows[found.folds == fold].tolist()
        assert {row // 4 for row in train.rows}.isdisjoint(row // 4 for row in validation.rows)
        metrics = json.loads((run.path / "metrics.json").read_text())["epochs"][0]["validation"]
        assert metrics["accuracy"] == pytest.approx(
            found.predictions.is_right[found.folds == fold].mean()
        )


def test_a_finished_one_trains_nothing_again(validated, capsys):
    before = (validated / "predictions.csv").read_bytes()
    assert cli.main(command(validated.parent / "data", validated)) == 0
    output = capsys.readouterr().out
    assert "training" not in output
    assert "2 folds held out by groups of film" in output
    assert "mean over folds" in output
    table = [line for line in output.splitlines() if str(validated) not in line]
    assert max(map(len, table)) <= 80
    assert (validated / "predictions.csv").read_bytes() == before
    again = command(validated.parent / "data", validated, "--folds=4")[1:]
    assert "was started with --folds 2, not 4" in refusal(again, capsys, "cross-validate")


def test_the_linear_model_of_the_same_folds_stands_beside(validated, capsys):
    assert cli.main(command(validated.parent / "data", validated)) == 0
    accuracies = []
    for fold in (1, 2):
        baseline = validated / "folds" / f"repeat1-fold{fold}-baseline"
        assert load_settings(baseline).data.fold == fold
        report = json.loads((baseline / "evaluation" / "validation" / "report.json").read_text())
        accuracies.append((report["accuracy"], report["num_reviews"]))
    rates, sizes = zip(*accuracies, strict=True)
    pooled = np.average(rates, weights=sizes)
    found = json.loads((validated / "report.json").read_text())
    assert found["linear_model"]["first"] == pytest.approx(pooled)
    assert found["linear_model"]["difference"] == pytest.approx(found["accuracy"] - pooled)
    assert f"linear model     {100 * pooled:.2f} %" in capsys.readouterr().out


def test_a_linear_model_that_was_not_finished_is_trained_again(validated):
    path = validated / "folds" / "repeat1-fold2-baseline"
    weights = path / BASELINE_WEIGHTS
    before = weights.read_bytes()
    weights.unlink()
    (path / HALF_MADE).touch()
    assert cli.main(command(validated.parent / "data", validated)) == 0
    assert weights.read_bytes() == before


def test_a_signal_while_a_fold_trains_leaves_its_linear_model_for_later(tmp_path, monkeypatch):
    trained = []

    def train(work, fold, forwarder) -> str:
        trained.append(fold)
        signal.raise_signal(signal.SIGTERM)  # when it is almost done
        return "90.00 % after epoch 1"

    monkeypatch.setattr(cross_validation, "_train", train)
    monkeypatch.setattr(Fold, "is_trained", property(trained.__contains__))
    monkeypatch.setattr(cross_validation, "train_baseline", None)  # calling it would fail
    folds = plan_folds(Config(), tmp_path, 2, 1)
    assert train_folds(tmp_path, folds, lambda line: None) == signal.SIGTERM
    assert trained == folds[:1]


def test_the_result_announced_is_that_of_the_best_epoch(tmp_path, monkeypatch):
    """By training.monitor, which may be the loss: so the epoch is not the most accurate one."""
    epochs = [
        {"training": {"epoch": epoch}, "validation": {"accuracy": accuracy}, "is_best": epoch < 3}
        for epoch, accuracy in ((1, 0.75), (2, 0.5), (3, 1.0))
    ]
    fold = plan_folds(Config(), tmp_path, 2, 1)[0]
    fold.run.mkdir(parents=True)
    (fold.run / "metrics.json").write_text(json.dumps({"epochs": epochs}))
    complete = TrainingOutcome("complete")
    monkeypatch.setattr(cross_validation, "run_training", lambda *_, **__: complete)
    assert cross_validation._train(tmp_path, fold, None) == "50.00 % after epoch 2"


def test_a_linear_model_that_another_process_trains_is_waited_for(validated, capsys):
    baseline = validated / "folds" / "repeat1-fold2-baseline"
    hidden = baseline.rename(baseline.with_name("hidden"))
    try:
        with FileLock(validated / "work" / "repeat1-fold2.claim"):
            assert cli.main(command(validated.parent / "data", validated)) == 0
    finally:
        hidden.rename(baseline)
    output = capsys.readouterr().out
    assert "1 of 2 folds are being trained by other processes" in output
    assert "mean over" not in output


@pytest.mark.parametrize(
    ("changes", "status", "message"),
    [
        (["--folds=10"], 1, "has 9 groups among 18 reviews, too few to make 10 folds"),
        (["--data.group_column=director"], 1, "no column 'director'"),
        (
            ["--data.group_column=null"],
            2,
            "data.validation is groups, but data.group_column is not set",
        ),
    ],
)
def test_wrong_input_is_told_in_one_line(tmp_path, changes, status, message, capsys):
    given = command(write_reviews(tmp_path / "data"), tmp_path / "cv", *changes)[1:]
    assert message in refusal(given, capsys, "cross-validate", status)
    assert not (tmp_path / "cv").exists()


def test_a_later_fold_without_a_class_is_told_before_anything_is_trained(tmp_path, capsys):
    labels = ["neg"] * 201 + ["pos"] * 247
    texts = [f"{label} number {number}" for number, label in enumerate(labels)]
    data = write(tmp_path / "data" / "train.csv", {"text": texts, "label": labels}).parent
    given = arguments(data, tmp_path / "cv", "--data.validation=stretches")
    first = DataConfig(path=str(data), validation="stretches", num_folds=5)
    assert all(len(split) for split in load_training_splits(first))
    message = refusal(["--folds=5", *given], capsys, "cross-validate")
    assert "class 'neg' has 5 groups among 201 reviews, too few to make 5 folds" in message
    assert not (tmp_path / "cv").exists()


def test_what_a_training_refuses_is_told_before_the_folder_is_made(tmp_path, capsys):
    labels = ["neg", "mixed", "pos"] * 20
    texts = [f"{label} number {number}" for number, label in enumerate(labels)]
    data = write(tmp_path / "data" / "train.csv", {"text": texts, "label": labels}).parent
    given = ["--folds=2", *arguments(data, tmp_path / "cv", "--training.contrasts=1")]
    message = refusal(given, capsys, "cross-validate")
    assert "set training.contrasts to 0" in message
    assert not (tmp_path / "cv").exists()


def test_repeats_divide_by_other_seeds():
    folds = plan_folds(Config(), Path("x"), 2, 3)
    assert [fold.name for fold in folds][:3] == ["repeat1-fold1", "repeat1-fold2", "repeat2-fold1"]
    assert [fold.config.data.validation_seed for fold in folds] == [0, 0, 1, 1, 2, 2]
    assert [fold.config.data.fold for fold in folds] == [1, 2] * 3


@pytest.mark.parametrize("repeats", [1, 3])
def test_written_predictions_are_read_again_also_with_rows_from_0_as_earlier(tmp_path, repeats):
    found = make_predictions(0, repeats=repeats)
    write_predictions(tmp_path, found)
    path = tmp_path / "predictions.csv"
    header, *lines = (line.split(",") for line in path.read_text().splitlines())
    assert [int(cells[2]) for cells in lines] == [*range(1, 41)] * repeats
    earlier = [[*cells[:2], str(int(cells[2]) - 1), *cells[3:]] for cells in lines]
    for rows in (lines, earlier):
        path.write_text("\n".join(map(",".join, [header, *rows])))
        again = read_predictions(tmp_path)
        assert summarize(again) == summarize(found)
        assert np.array_equal(again.predictions.is_right, found.predictions.is_right)
        assert np.array_equal(again.rows, found.rows)
    path.write_text("repeat,fold\n1,x\n")
    with pytest.raises(UserError, match="is damaged"):
        read_predictions(tmp_path)


def test_figures_are_those_of_the_predictions():
    found = make_predictions(1)
    summary = summarize(found)
    assert summary.num_reviews == 40
    assert summary.accuracy == pytest.approx(found.predictions.is_right.mean())
    by_fold = [found.predictions.is_right[found.folds == fold].mean() for fold in (1, 2, 3, 4)]
    assert summary.accuracies == pytest.approx(by_fold)
    assert summary.mean == pytest.approx(np.mean(by_fold))
    assert summary.deviation == pytest.approx(np.std(by_fold, ddof=1))
    nll = -found.predictions.log_probabilities[np.arange(40), found.predictions.labels].mean()
    assert summary.nll == pytest.approx(nll)
    labels, predicted = found.predictions.labels, found.predictions.predicted
    f1 = f1_score(labels, predicted, average=None)
    assert [scores.f1 for scores in summary.by_class] == pytest.approx(f1.tolist())
    table = summary_table(found, summary, "title")
    assert all(f"{value:.4f}" in table for value in (*f1, summary.macro_f1))


def test_repeats_of_a_review_do_not_narrow_the_interval():
    """The same predictions three times over say no more of other reviews than once."""
    once = make_predictions(2, size=400)
    thrice = OutOfFoldPredictions(
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
    one, other = (make_predictions(seed, repeats=number) for seed, number in enumerate(repeats))
    found = compare_out_of_fold(one, other)
    shares = [
        np.mean(
            [predictions.predictions.is_right[predictions.rows == row].mean() for row in range(40)]
        )
        for predictions in (one, other)
    ]
    assert found.difference == pytest.approx(shares[1] - shares[0])
    low, high = found.difference_ci95
    assert low < found.difference < high
    assert (found.mcnemar_p is None) == (repeats != (1, 1))
    assert compare_out_of_fold(one, one).difference == 0


def test_rows_of_other_reviews_are_not_compared():
    one = make_predictions(0)
    other = replace(one, keys=one.keys[::-1])
    with pytest.raises(UserError, match="the cross-validations are of different reviews"):
        compare_out_of_fold(one, other)


def test_reviews_that_have_changed_are_refused(validated, capsys):
    """Divided anew, folds would be measured on reviews that their models were trained on."""
    data = write_reviews(validated.parent / "data", num_groups=10)
    try:
        error = refusal(command(data, validated)[1:], capsys, "cross-validate")
        assert "was started with other reviews" in error
        config = load_settings(validated / "folds" / "repeat1-fold1")
        with pytest.raises(UserError, match="the reviews that .* held out have changed"):
            folds = plan_folds(config, validated, 2, 1)
            predict_out_of_fold(folds, [fold.run for fold in folds], torch.device("cpu"))
    finally:
        write_reviews(data)


def test_the_embedded_corpus_has_nothing_to_hold_out(tmp_path, capsys):
    error = refusal([f"--output_dir={tmp_path / 'cv'}"], capsys, "cross-validate")
    assert "the source mini has its own validation split" in error
    assert "give reviews without one with --data.path" in error


def test_compare_takes_cross_validations(validated, capsys):
    assert cli.main(["compare", str(validated), str(validated)]) == 0
    assert "B minus A: +0.00 points on 36 reviews" in capsys.readouterr().out
    error = refusal([validated], capsys, "compare")
    assert "is one cross-validation: give another one too" in error
