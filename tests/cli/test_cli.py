"""The commands as a user meets them: what they print, write, and say of mistakes."""

from __future__ import annotations

import csv
import json
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.corpus import ROOT, write_corpus
from helpers.review_files import write
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sentiment.cli import doctor
from sentiment.cli import main as cli
from sentiment.runtime.errors import UserError

QUICK = [
    "--model.embedding_size=8", "--model.hidden_size=8", "--training.num_epochs=1",
    "--training.precision=fp32", "--training.pictures=false",
]  # fmt: skip
PICTURES = ["--training.pictures=true"]


@pytest.fixture(scope="module")
def run_path(corpus, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("cli") / "run"
    assert cli.train([f"--data.path={corpus}", f"--output_dir={path}", *QUICK, *PICTURES]) == 0
    return path


def test_evaluation_writes_a_report_and_predictions(run_path, corpus, capsys):
    assert cli.evaluate(["--run", str(run_path)]) == 0
    printed = capsys.readouterr().out
    assert "accuracy" in printed and "right class" in printed
    output = run_path / "evaluation" / "test"
    report = json.loads((output / "report.json").read_text())
    assert report.keys() >= {
        "accuracy", "accuracy_ci95", "f1", "auroc", "nll", "confusion", "num_reviews", "split",
    }  # fmt: skip
    assert report["split"] == "test" and report["data"].endswith("test.csv")
    assert (report["run"], report["checkpoint"], report["epoch"]) == (str(run_path), "best", 1)
    page = (output / "report.html").read_text(encoding="utf-8")
    for text in (report["date"], report["data"], f"{100 * report['accuracy']:.2f} %", "<svg"):
        assert text in page
    assert report["num_reviews"] == 60 == sum(map(sum, report["confusion"]))
    with (output / "predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    with (corpus / "test.csv").open(encoding="utf-8", newline="") as file:
        labels = [row["label"] for row in csv.DictReader(file)]
    assert [row["label"] for row in rows] == labels
    assert [row["row"] for row in rows] == [str(row) for row in range(1, 61)]
    hits = sum(row["label"] == row["predicted"] for row in rows)
    assert report["accuracy"] == pytest.approx(hits / 60)
    for row in rows:
        total = float(row["probability_neg"]) + float(row["probability_pos"])
        assert total == pytest.approx(1, abs=2e-6)


def test_evaluation_needs_no_split_but_the_one_asked_for(run_path, tmp_path, capsys):
    """Another folder with a test split alone, of a mark alone and an unknown word."""
    (tmp_path / "test.csv").write_text("text,label\n?,pos\nzzzz,pos\n")
    output = tmp_path / "out"
    arguments = ["--run", str(run_path), "--data.path", str(tmp_path), "--output", str(output)]
    assert cli.evaluate(arguments) == 0
    report = json.loads((output / "report.json").read_text())
    assert report["num_reviews"] == 2
    assert report["auroc"] is None, "one class alone has no ROC curve"
    assert "undefined" in capsys.readouterr().out
    assert "undefined" in (output / "report.html").read_text(encoding="utf-8")


def test_probabilities_are_those_of_predict(run_path, corpus, tmp_path):
    from sentiment import load

    assert cli.evaluate([str(run_path), "--output", str(tmp_path)]) == 0
    with (corpus / "test.csv").open(encoding="utf-8", newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    with (tmp_path / "predictions.csv").open(encoding="utf-8", newline="") as file:
        found = [float(row["probability_pos"]) for row in csv.DictReader(file)]
    predictor = load(run_path)
    assert predictor.run.checkpoint.temperature != 1
    expected = [each.probabilities[1] for each in predictor.predict(texts)]
    assert found == pytest.approx(expected, abs=2e-6)


def test_validation_is_not_flattered(run_path, tmp_path, capsys):
    """The reviews that chose the temperature are said to have, in all three places."""
    output = tmp_path / "out"
    arguments = [str(run_path), "--split", "validation", "--output", str(output)]
    assert cli.evaluate(arguments) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "cross-fitted" in printed and "metrics are slightly optimistic" in printed
    report = json.loads((output / "report.json").read_text())
    assert report["calibration"]["fitted_here"] is True
    assert report["calibration"]["cross_fitted"]["ece"] >= 0
    assert "cross-fitted" in (output / "report.html").read_text(encoding="utf-8")
    training = json.loads((run_path / "metrics.json").read_text())["epochs"][0]["validation"]
    for name in ("accuracy", "nll", "brier", "ece", "average_precision"):
        assert report[name] == pytest.approx(training[name]), "as in training"
    assert cli.evaluate([str(run_path), "--output", str(output)]) == 0
    assert "cross-fitted" not in capsys.readouterr().out
    report = json.loads((output / "report.json").read_text())
    assert report["calibration"]["cross_fitted"] is None and report["notes"] == []


def test_training_reviews_are_said_to_be_such(run_path, tmp_path, capsys):
    arguments = [str(run_path), "--split", "train", "--output", str(tmp_path)]
    assert cli.evaluate(arguments) == 0
    assert "trained on these reviews" in capsys.readouterr().out
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "but the model was trained on the reviews used" in page and "unbiased" not in page


def test_the_runs_own_reviews_are_known_by_any_path(run_path, corpus, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(corpus.parent))
    monkeypatch.chdir(corpus)
    for path in (f"~/{corpus.name}", ".", str(corpus / ".." / corpus.name)):
        arguments = ["--split=validation", f"--data.path={path}", f"--output={tmp_path}"]
        assert cli.evaluate([str(run_path), *arguments]) == 0
        report = json.loads((tmp_path / "report.json").read_text())
        assert report["calibration"]["fitted_here"] is True, path


def test_weights_that_are_no_numbers_are_refused(run_path, corpus, tmp_path, capsys):
    import torch

    from sentiment import load
    from sentiment.runs.run import load_run
    from sentiment.runs.weights import save_weights

    broken = tmp_path / "broken"
    shutil.copytree(run_path, broken, ignore=shutil.ignore_patterns("evaluation"))
    run = load_run(run_path)
    with torch.no_grad():
        next(iter(run.model.parameters())).fill_(float("nan"))
    save_weights(broken, "best", run.model, run.checkpoint)
    with pytest.raises(ValueError, match="logits are not finite"):
        load(broken).predict(["a great film"])
    capsys.readouterr()
    assert cli.evaluate([str(broken)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: the model's logits are not finite") and error.count("\n") == 1
    assert "lower training.learning_rate" in error
    assert not (broken / "evaluation").exists(), "nothing is written"
    assert cli.main(["compare", str(run_path), str(broken), f"--output={tmp_path / 'out'}"]) == 1
    assert capsys.readouterr().err.startswith(f"error: {broken}: the model's logits are not")


def test_tensorboard_shows_pictures_of_training_and_of_the_last_evaluation(run_path):
    pictures = {"confusion", "precision_recall", "reliability", "roc", "scores"}
    for _ in range(2):
        assert cli.evaluate(["--run", str(run_path)]) == 0
    for name in ("validation", "evaluation-test"):
        folder = run_path / "tensorboard" / name
        assert len(list(folder.iterdir())) == 1, "another evaluation takes the place of the first"
        events = EventAccumulator(str(folder))
        events.Reload()
        assert {f"pictures/{each}" for each in pictures} <= set(events.Tags()["images"])
        for each in pictures:
            image = events.Images(f"pictures/{each}")[-1]
            assert image.step == 1 and min(image.width, image.height) >= 400
            assert image.encoded_image_string.startswith(b"\x89PNG")
    report = json.loads((run_path / "evaluation" / "test" / "report.json").read_text())
    shown = events.Scalars("accuracy/by_epoch")
    assert [(each.step, each.value) for each in shown] == [(1, pytest.approx(report["accuracy"]))]


@pytest.mark.filterwarnings("error:Glyph")
def test_hostile_names_and_texts_are_shown_only(tmp_path, capsys):
    """Classes and reviews hold what could run in a page or move a cursor."""
    names = ["<script>alert(1)</script>", "\x1b[31mred", "$良い_{"]
    text = "word{} \x1b[2J\x1b]0;title\x07 <img src=x onerror=alert(1)> 🎬 {}"
    for split, count in (("train", 60), ("test", 12)):
        texts = [text.format(n % 3, n) for n in range(count)]
        write(tmp_path / f"{split}.csv", {"text": texts, "label": names * (count // 3)})
    run = tmp_path / "run"
    assert cli.train([f"--data.path={tmp_path}", f"--output_dir={run}", *QUICK, *PICTURES]) == 0
    capsys.readouterr()
    assert cli.evaluate([str(run)]) == 0
    printed = capsys.readouterr()
    assert "\x1b" not in printed.out + printed.err
    assert "␛[31mred" in printed.out and "<script>" in printed.out
    page = (run / "evaluation" / "test" / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page and "<img" not in page and "\x1b" not in page
    assert "&lt;script&gt;" in page and "&lt;img src=x" in page and "🎬" in page


@pytest.mark.parametrize(
    ("given", "answer"),
    [("pretrian", "did you mean pretrain?"), ("xyz", "(one of audit, ")],
)
def test_an_unknown_command_is_told_its_nearest(given, answer, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main([given])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert f"unknown command '{given}'" in error and answer in error


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (UserError("seed is -1"), "error: seed is -1\n"),
        (FileNotFoundError("no such file"), "error: no such file\n"),
        (MemoryError(), "error: MemoryError: use a smaller model or batch\n"),
        (
            RuntimeError("can't allocate memory: you tried to allocate 8 bytes"),
            "error: can't allocate memory: you tried to allocate 8 bytes: use a smaller model or "
            "batch\n",
        ),
    ],
)
def test_a_users_mistake_is_one_line(error, message, monkeypatch, capsys):
    monkeypatch.setattr(doctor, "execute", lambda options: (_ for _ in ()).throw(error))
    assert cli.main(["doctor"]) == 1
    assert capsys.readouterr().err == message


@pytest.mark.parametrize("error", [ValueError, KeyError, RuntimeError, AssertionError])
def test_a_bug_keeps_its_traceback(error, monkeypatch):
    monkeypatch.setattr(doctor, "execute", lambda options: (_ for _ in ()).throw(error("a bug")))
    with pytest.raises(error, match="a bug"):
        cli.main(["doctor"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data.path", "EMPTY"], "no test split"),
        (["--split", "validation", "--data.path", "TEST_ONLY"], "train"),
        (["--device", "cuda:77"], "device is 'cuda:77', but"),
        (["--data.path", "WRONG_LABEL"], "good"),
    ],
)
def test_mistakes_in_evaluation_are_one_line(arguments, message, run_path, tmp_path, capsys):
    (tmp_path / "EMPTY").mkdir()
    write_corpus(tmp_path / "TEST_ONLY", splits={"test": 4})
    (tmp_path / "WRONG_LABEL").mkdir()
    (tmp_path / "WRONG_LABEL" / "test.csv").write_text("text,label\nx,good\n")
    named = [str(tmp_path / each) if each.isupper() else each for each in arguments]
    assert cli.evaluate(["--run", str(run_path), "--output", str(tmp_path / "out"), *named]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert message in error
    assert not (tmp_path / "out").exists(), "nothing is written"


def test_a_mistake_in_training_data_is_one_line_and_nothing_is_written(tmp_path, capsys):
    (tmp_path / "train.csv").write_text("text,label\na b c,neg\na b d,neg\n")
    assert cli.train([f"--data.path={tmp_path}", f"--output_dir={tmp_path / 'run'}"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "class" in error and error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_training_does_not_overwrite_a_run(run_path, corpus, capsys):
    before = (run_path / "metrics.json").read_text()
    arguments = [f"--data.path={corpus}", f"--output_dir={run_path}", *QUICK]
    assert cli.train(arguments) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert (run_path / "metrics.json").read_text() == before


def test_overwriting_is_done_when_told(run_path, corpus, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(run_path, copy)
    (copy / "evaluation").mkdir(exist_ok=True)
    arguments = [f"--data.path={corpus}", f"--output_dir={copy}", "--overwrite", *QUICK]
    assert cli.train([*arguments, "--seed=3"]) == 0
    assert "seed: 3" in (copy / "config.yaml").read_text()
    assert not (copy / "evaluation").exists(), "an old evaluation is not of the new run"


def test_vectors_and_their_coverage_are_kept_in_the_run(corpus, tmp_path):
    vectors = tmp_path / "vectors.txt"
    words = ("the", "film", "great", "awful")
    vectors.write_text("".join(f"{word}{' 0.25' * 8}\n" for word in words))
    arguments = [f"--data.path={corpus}", f"--vectors.path={vectors}", "--vectors.freeze=true"]
    run = tmp_path / "run"
    assert cli.train([*arguments, *QUICK, f"--output_dir={run}"]) == 0
    coverage = json.loads((run / "run.json").read_text())["vectors_coverage"]
    assert coverage["types_found"] == 4

    from sentiment.runs.run import load_run

    loaded = load_run(run)
    row = loaded.vocabulary.stoi["great"]
    assert loaded.model.embedding.weight[row].eq(0.25).all(), "frozen, so still as in the file"


@pytest.mark.parametrize("script", ["train.py", "evaluate.py"])
def test_the_scripts_answer(script, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [script, "--help"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(ROOT / script), run_name="__main__")
    assert stopped.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: {script}")


def test_help_of_every_command_is_quick():
    """It loads none of the libraries that take seconds."""
    code = (
        "import sys\n"
        "from sentiment.cli.main import COMMANDS, main\n"
        "for command in COMMANDS:\n"
        "    try: main([command, '--help'])\n"
        "    except SystemExit: pass\n"
        "heavy = ('torch', 'numpy', 'optuna', 'spacy')\n"
        "print([name for name in heavy if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")
    assert done.stdout.count("usage: sentiment ") == len(cli.COMMANDS)
