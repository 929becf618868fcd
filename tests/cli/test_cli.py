"""The commands as a user meets them: what they print, write, and say of mistakes."""

import json
import runpy
import shlex
import shutil
import subprocess
import sys
from html import escape
from pathlib import Path

import pytest
import torch
from helpers.corpus import ROOT, write_corpus
from helpers.review_files import read_rows, write
from helpers.trainings import arguments, read_events, refusal, train
from helpers.untrained_run import make_run

from sentiment import load
from sentiment.cli import doctor
from sentiment.cli import main as cli
from sentiment.config.config import DataConfig
from sentiment.runs.run import load_run
from sentiment.runs.weights import save_weights
from sentiment.runtime.errors import UserError

QUICK = "--training.num_epochs=1"
PICTURES = "--training.pictures=true"


@pytest.fixture(scope="module")
def run_path(corpus, tmp_path_factory) -> Path:
    return train(corpus, tmp_path_factory.mktemp("cli") / "run", QUICK, PICTURES)


def test_evaluation_writes_a_report_and_the_predictions_of_predict(run_path, corpus, capsys):
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
    rows, reviews = read_rows(output / "predictions.csv"), read_rows(corpus / "test.csv")
    assert [row["label"] for row in rows] == [row["label"] for row in reviews]
    assert [row["row"] for row in rows] == [str(row) for row in range(1, 61)]
    hits = sum(row["label"] == row["predicted"] for row in rows)
    assert report["accuracy"] == pytest.approx(hits / 60)
    predictor = load(run_path)
    assert predictor.run.checkpoint.temperature != 1
    predictions = predictor.predict([row["text"] for row in reviews])
    for row, expected in zip(rows, predictions, strict=True):
        found = float(row["probability_neg"]), float(row["probability_pos"])
        assert found == pytest.approx(expected.probabilities, abs=2e-6)


def test_evaluation_needs_no_split_but_the_one_asked_for(run_path, tmp_path, capsys):
    """Another folder with a test split alone, of a mark alone and an unknown word."""
    (tmp_path / "test.csv").write_text("text,label\n?,pos\nzzzz,pos\n")
    output = tmp_path / "out"
    options = ["--run", str(run_path), "--data.path", str(tmp_path), "--output", str(output)]
    assert cli.evaluate(options) == 0
    report = json.loads((output / "report.json").read_text())
    assert report["num_reviews"] == 2
    assert report["auroc"] is None, "one class alone has no ROC curve"
    assert "undefined" in capsys.readouterr().out
    assert "undefined" in (output / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(("name", "split"), [("", "test"), ("train.csv", "validation")])
def test_training_names_an_evaluation_that_works(name, split, corpus, tmp_path, capsys):
    train(corpus / name, tmp_path / "run", QUICK)
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("next: "))
    assert cli.evaluate(shlex.split(line.removeprefix("next: python evaluate.py "))) == 0
    assert (tmp_path / "run" / "evaluation" / split / "report.json").exists()


def test_validation_is_not_flattered(run_path, tmp_path, capsys):
    """The reviews that chose the temperature are said to have, in all three places."""
    output = tmp_path / "out"
    assert cli.evaluate([str(run_path), "--split=validation", f"--output={output}"]) == 0
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
    assert cli.evaluate([str(run_path), "--split=train", f"--output={tmp_path}"]) == 0
    assert "trained on these reviews" in capsys.readouterr().out
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "but the model was trained on the reviews used" in page and "unbiased" not in page


def test_the_runs_own_reviews_are_known_by_any_path(run_path, corpus, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(corpus.parent))
    monkeypatch.chdir(corpus)
    for path in (f"~/{corpus.name}", ".", str(corpus / ".." / corpus.name)):
        options = ["--split=validation", f"--data.path={path}", f"--output={tmp_path}"]
        assert cli.evaluate([str(run_path), *options]) == 0
        report = json.loads((tmp_path / "report.json").read_text())
        assert report["calibration"]["fitted_here"] is True, path


def test_weights_that_are_no_numbers_are_refused(run_path, corpus, tmp_path, capsys):
    broken = tmp_path / "broken"
    shutil.copytree(run_path, broken, ignore=shutil.ignore_patterns("evaluation"))
    run = load_run(run_path)
    with torch.no_grad():
        next(iter(run.model.parameters())).fill_(float("nan"))
    save_weights(broken, "best", run.model, run.checkpoint)
    with pytest.raises(ValueError, match="logits are not finite"):
        load(broken).predict(["a great film"])
    error = refusal([broken], capsys, "evaluate")
    assert error.startswith("error: the model's logits are not finite")
    assert "lower training.learning_rate" in error
    assert not (broken / "evaluation").exists(), "nothing is written"
    error = refusal([run_path, broken, "--output", tmp_path / "out"], capsys, "compare")
    assert error.startswith(f"error: {broken}: the model's logits are not")


def test_tensorboard_shows_pictures_of_training_and_of_the_last_evaluation(run_path):
    pictures = {"confusion", "precision_recall", "reliability", "roc", "scores"}
    for _ in range(2):
        assert cli.evaluate(["--run", str(run_path)]) == 0
    for name in ("validation", "evaluation-test"):
        folder = run_path / "tensorboard" / name
        assert len(list(folder.iterdir())) == 1, "another evaluation takes the place of the first"
        events = read_events(run_path, name)
        assert {f"pictures/{each}" for each in pictures} <= set(events.Tags()["images"])
        for each in pictures:
            image = events.Images(f"pictures/{each}")[-1]
            assert image.step == 1 and min(image.width, image.height) >= 400
            assert image.encoded_image_string.startswith(b"\x89PNG")
    report = json.loads((run_path / "evaluation" / "test" / "report.json").read_text())
    shown = events.Scalars("accuracy/by_epoch")
    assert [(each.step, each.value) for each in shown] == [(1, pytest.approx(report["accuracy"]))]


HOSTILE_TESTS = """
capability: "評価 \\e[2J"
tests:
  - {name: "\\e[1ma", kind: minimum, expect: positive, templates: ["word1 <img src=x> \\e[2J"]}
  - {name: "\\e[1mb", kind: minimum, expect: negative, templates: ["word1 <img src=x> \\e[2J"]}
"""


@pytest.mark.filterwarnings("error:Glyph")
@pytest.mark.parametrize("command", ["evaluate", "compare", "check", "explain"])
def test_hostile_names_texts_and_paths_are_shown_only(command, tmp_path, capsys):
    """Classes, reviews, tests and folders hold what could run in a page or move a cursor."""
    names, data = ("<script>alert(1)</script>\x1b[31m", "$良い\x08_{"), tmp_path / "data\x1b[2J"
    text = "word{} \x1b[2J\x1b]0;title\x07 <img src=x onerror=alert(1)> 🎬"
    reviews = {"text": [text.format(n) for n in range(24)], "label": names * 12}
    splits = ("train", "test", "rows\x1b[2J")  # the last one is a file to explain
    *_, file = (write(data / f"{split}.csv", reviews) for split in splits)
    (tmp_path / "tests.yaml").write_text(HOSTILE_TESTS, encoding="utf-8")
    settings = DataConfig(path=str(data), class_names=names)
    one, other = (
        make_run(tmp_path / f"run{seed}\x1b[1m", names, data=settings, seed=seed).path
        for seed in (1, 2)
    )
    options = {
        "evaluate": [], "compare": [other, "--split=test"],
        "check": ["--tests", tmp_path / "tests.yaml", "--pairs", file, file],
        "explain": ["--file", file, "--row", 1],
    }[command]  # fmt: skip
    output = tmp_path / "out\x1b[3m"
    assert cli.main([command, *map(str, [one, *options]), f"--output={output}"]) == 0
    printed = capsys.readouterr()
    page = next(output.glob("*.html")).read_text(encoding="utf-8")
    assert not set("\x1b\x07\x08") & set(printed.out + printed.err + page)
    assert "<script>alert" not in page and "<img src=x" not in page
    assert "out␛[3m" in printed.out and "␛[2J" in page and "run1␛[1m" in printed.out + page
    for name in ("<script>alert(1)</script>␛[31m", "$良い␈_{"):
        assert escape(name) in page and (name in printed.out or command == "compare")


@pytest.mark.parametrize(
    ("given", "answer"), [("pretrian", "did you mean pretrain?"), ("xyz", "(one of audit, ")]
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
    ("options", "message"),
    [
        (["--data.path", "EMPTY"], "no test split"),
        (["--split", "validation", "--data.path", "TEST_ONLY"], "train"),
        (["--device", "cuda:77"], "device is 'cuda:77', but"),
        (["--data.path", "WRONG_LABEL"], "good"),
    ],
)
def test_mistakes_in_evaluation_are_one_line(options, message, run_path, tmp_path, capsys):
    (tmp_path / "EMPTY").mkdir()
    write_corpus(tmp_path / "TEST_ONLY", splits={"test": 4})
    (tmp_path / "WRONG_LABEL").mkdir()
    (tmp_path / "WRONG_LABEL" / "test.csv").write_text("text,label\nx,good\n")
    named = [str(tmp_path / each) if each.isupper() else each for each in options]
    command = ["--run", run_path, "--output", tmp_path / "out", *named]
    assert message in refusal(command, capsys, "evaluate")
    assert not (tmp_path / "out").exists(), "nothing is written"


def test_a_run_is_overwritten_when_told(run_path, corpus, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(run_path, copy)
    (copy / "evaluation").mkdir(exist_ok=True)
    before = (copy / "metrics.json").read_text()
    command = arguments(corpus, copy, QUICK, "--seed=3")
    assert "--overwrite" in refusal(command, capsys)
    assert (copy / "metrics.json").read_text() == before
    assert cli.train([*command, "--overwrite"]) == 0
    assert "seed: 3" in (copy / "config.yaml").read_text()
    assert not (copy / "evaluation").exists(), "an old evaluation is not of the new run"


def test_vectors_and_their_coverage_are_kept_in_the_run(corpus, tmp_path):
    vectors = tmp_path / "vectors.txt"
    words = ("the", "film", "great", "awful")
    vectors.write_text("".join(f"{word}{' 0.25' * 8}\n" for word in words))
    options = [f"--vectors.path={vectors}", "--vectors.freeze=true"]
    run = train(corpus, tmp_path / "run", QUICK, *options)
    coverage = json.loads((run / "run.json").read_text())["vectors_coverage"]
    assert coverage["types_found"] == 4
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


SEARCH = "space: {model.hidden_size: {choices: [8, 16]}, model.cell: {choices: [lstm, gru]}}\n"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("train --modl.hidden_size=3", "sentiment train: error"),
        ("sweep --trials=3", "give the search file first"),
        ("sweep nowhere.yaml", "there is no file nowhere.yaml"),
        ("sweep search.yaml --trials 0", "an integer, at least 1"),
        ("sweep search.yaml --model.hidden_size 8", "model.hidden_size is searched"),
        ("sweep search.yaml --config=x.yaml", "--config cannot be given to a sweep"),
        ("sweep search.yaml --auto_resume", "a sweep resumes by itself"),
        ("sweep search.yaml --training.num_epoch=3", "did you mean training.num_epochs?"),
        ("sweep search.yaml --model.implementation=reference", "model.cell is 'gru'"),
        ("audit a.csv b.csv", "a.csv and b.csv are named, but one file or folder is audited"),
        ("evaluate runs/a --data.missing eror", "choose from"),
        ("compare runs/a --data.quoting doubel", "choose from"),
        ("find-lr --lowest 0", "'0': give a number, above 0"),
        ("find-lr --highest inf", "'inf': give a number, above 0"),
        ("find-lr --lowest 2", "--lowest is 2, but must be below --highest"),
        ("find-lr --num_update 20", "(did you mean num_updates?)"),
        ("find-lr --num_updates 0", "give an integer, at least 1"),
        ("find-lr --training.batch_sise 3", "did you mean training.batch_size?"),
        ("find-lr --overwrite", "give settings only"),
        ("find-lr --config nowhere.yaml", "nowhere.yaml"),
        ("cross-validate --folds=1", "give an integer, at least 2"),
        ("cross-validate --data.num_folds=3", "data.num_folds is set by --folds"),
        ("cross-validate --overwrite", "resumes by itself"),
        ("evaluate", "RUN or --run RUN"),
        ("evaluate run --run run", "RUN or --run RUN"),
        ("compare", "required"),
        ("compare run --split=tset", "tset"),
        ("check run --roles positive=a positive=b", "argument --roles: positive is given twice"),
        ("check run --roles good=a bad=b", "'good=a': give negative=NAME positive=NAME"),
        ("check run --max-failure-rate 50", "'50': give a number, from 0 to 1"),
        ("check run --max-failure-rate nan", "'nan': give a number, from 0 to 1"),
        ("check run --seed -1", "'-1': give an integer, from 0"),
        ("check run --pairs a.tsv", "--pairs: expected 2 arguments"),
        ("check run --pairs a b --max-failure-rate 0", "--max-failure-rate is for behaviour"),
        ("predict run text --file=x.csv", "texts or --file"),
        ("predict run text --resume", "--resume needs"),
        ("predict run text --overwrite", "--overwrite needs --output"),
        ("predict run --file=x.csv --window=0", "at least 1"),
        ("explain run", "give either the text"),
        ("explain run great --file x.csv --row 1", "give either the text"),
        ("explain run --file x.csv", "--file and --row belong together"),
        ("explain run great --row 1", "--file and --row belong together"),
        ("explain run great --steps 0", "at least 1"),
        ("explain run great --device tpu", "tpu"),
        ("export run", "--format"),
        ("export run --format=tflite", "invalid choice"),
        ("export run --format=onnx --output=model.pt", "must end in .onnx"),
        ("reproduce run --device gpu", "gpu"),
    ],
)
def test_options(command, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "search.yaml").write_text(SEARCH)
    name, *options = command.split()
    assert message in refusal(options, capsys, name, status=2)
    assert [path.name for path in tmp_path.iterdir()] == ["search.yaml"]


@pytest.mark.parametrize(
    "command",
    [
        "evaluate FOLDER", "check FOLDER", "predict FOLDER text", "explain FOLDER text",
        "export FOLDER --format=torch", "reproduce FOLDER",
    ],
)  # fmt: skip
def test_what_is_not_a_run(command, tmp_path, capsys):
    folder = tmp_path / "a\x1b[2J\x08b"
    folder.mkdir()
    assert cli.main([str(folder) if each == "FOLDER" else each for each in command.split()]) == 1
    error = capsys.readouterr().err
    assert "is not a run" in error and error.count("\n") == 1
    assert "a␛[2J␈b" in error and not set("\x1b\x08") & set(error)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("before", ["pretraining", "baseline", "teacher-1"])
def test_a_run_whose_training_still_makes_other_models(before, tmp_path, capsys):
    run = tmp_path / "run"
    (tmp_path / f"run-{before}").mkdir()
    for command in ("evaluate", "predict"):
        assert cli.main([command, str(run), *["text"] * (command == "predict")]) == 1
        error = capsys.readouterr().err
        assert f"{run} is not a run yet" in error and f"beyond {run}-{before}" in error


@pytest.mark.long
def test_quickstart_learns_what_counting_words_cannot(tmp_path, monkeypatch, capfd):
    """tests/data/test_mini_corpus.py holds the bag of words at or under 85 % on the same split."""
    monkeypatch.chdir(ROOT)
    run = tmp_path / "quickstart"
    assert cli.train(["--config=configs/quickstart.yaml", f"--output_dir={run}"]) == 0
    out, error = capfd.readouterr()
    assert f"next: python evaluate.py --run {run}" in out
    assert error == "", "no bars where the output is not a terminal"
    assert cli.evaluate(["--run", str(run)]) == 0
    report = json.loads((run / "evaluation" / "test" / "report.json").read_text())
    assert report["num_reviews"] == 1_000
    assert report["accuracy"] >= 0.95
    coverage = json.loads((run / "run.json").read_text())["vectors_coverage"]
    assert 0.9 < coverage["types_found"] / coverage["num_types"] < 1
