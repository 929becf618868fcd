"""``sentiment.load`` and ``sentiment predict``: texts, streams and files by a run."""

import io
import itertools
import json
import os
import pty
import re
import subprocess
import sys
import threading
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
from helpers.review_files import read_rows, write
from helpers.trainings import refusal
from helpers.untrained_run import make_run
from scipy.stats import ttest_rel

from sentiment import load
from sentiment.cli import main as cli
from sentiment.data.reviews import Reviews
from sentiment.evaluation.evaluate import Predictions
from sentiment.inference.predictor import Member, average_predictions
from sentiment.runtime.errors import UserError

TEXTS = ["a great film", "", "dull " * 50, "🎬🎬", "zzzz", "awful plot <br /> and lovely music"]


def test_a_batch_is_its_texts_one_by_one(trained_run):
    predictor = load(trained_run)
    together = predictor.predict(TEXTS)
    alone = [predictor.predict([text])[0] for text in TEXTS]
    assert [each.label for each in together] == [each.label for each in alone]
    for one, other in zip(together, alone, strict=True):
        assert one.probability == pytest.approx(other.probability, abs=1e-6)
        assert one.probability == max(one.probabilities)
        assert sum(one.probabilities) == pytest.approx(1)


def test_an_ensemble_averages_logarithms(trained_run, tmp_path):
    other = make_run(tmp_path / "other", load(trained_run).class_names).path
    parts = [load(run).predict(TEXTS) for run in (trained_run, other, other)]
    together = load(trained_run, ensemble=[other, str(other)]).predict(TEXTS)
    for prediction, *alone in zip(together, *parts, strict=True):
        mean = np.mean([np.log(each.probabilities) for each in alone], axis=0)
        expected = np.exp(mean) / np.exp(mean).sum()
        assert prediction.probabilities == pytest.approx(expected, abs=1e-6)
        assert prediction.num_tokens == alone[0].num_tokens
    make_run(tmp_path / "names", ("bad", "good"))
    with pytest.raises(UserError, match="has the classes bad, good, but .* has neg, pos"):
        load(trained_run, ensemble=[tmp_path / "names"])


def test_an_ensemble_is_compared_with_its_members():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 500)
    signal = np.where(labels == 1, 1.0, -1.0)
    logits = [signal + generator.normal(0, 1, 500) for _ in range(2)]
    one, other = (np.stack([-np.logaddexp(0, z), -np.logaddexp(0, -z)], axis=1) for z in logits)
    reviews = Reviews([""] * 500, labels, ("neg", "pos"), "origin")
    members = [Member(Path("runs/other"), lambda texts: other)]
    together, remark = average_predictions(
        Path("runs/one"), Predictions(one, labels), members, reviews
    )
    losses = np.logaddexp(0, -np.where(labels == 1, 1, -1) * np.mean(logits, axis=0))
    assert together.losses == pytest.approx(losses)
    for name, log_probabilities in (("one", one), ("other", other)):
        alone = -log_probabilities[np.arange(500), labels]
        p_value = ttest_rel(losses, alone).pvalue
        accuracy = 100 * (log_probabilities.argmax(axis=1) == labels).mean()
        shown = "< 0.001" if p_value < 0.001 else f"= {p_value:.3g}"
        assert f"runs/{name} {accuracy:.2f} % (+" in remark
        assert f"; NLL {losses.mean() - alone.mean():+.4f}, paired t p {shown})" in remark


def test_lengths_and_cutting_are_told(trained_run):
    predictions = load(trained_run).predict(TEXTS)
    assert [each.num_tokens for each in predictions][:3] == [3, 0, 50]
    assert [each.was_cut for each in predictions] == [False, False, True, False, False, False]


@pytest.mark.parametrize("calibrated", [True, False])
def test_probabilities_are_at_the_temperature_of_the_run_unless_told(trained_run, calibrated):
    predictor = load(trained_run, calibrated=calibrated, batch_tokens=1)
    temperature = predictor.run.checkpoint.temperature
    assert temperature != 1
    batch = predictor.encode(["a great film"]).batch(torch.tensor([0]))
    logits = predictor.model(batch.tokens, batch.lengths).double()
    expected = (logits / (temperature if calibrated else 1)).softmax(1)[0].tolist()
    counts = []
    found = predictor.predict(TEXTS, report=counts.append)
    assert found[0].probabilities == pytest.approx(expected, abs=1e-6)
    assert counts == [1] * len(TEXTS), "a text longer than a batch stands alone"


def test_any_iterable_of_strings_gives_the_predictions_of_a_list(trained_run):
    predictor = load(trained_run)
    expected = predictor.predict(TEXTS)
    shuffled = pd.Series(TEXTS, index=range(len(TEXTS), 0, -1))
    column = datasets.Dataset.from_dict({"text": TEXTS})["text"]
    for texts in (tuple(TEXTS), shuffled, np.array(TEXTS), np.array(TEXTS, object), column,
                  (text for text in TEXTS), dict.fromkeys(TEXTS).keys()):  # fmt: skip
        assert predictor.predict(texts) == expected, type(texts)
    assert predictor.predict([]) == predictor.predict(iter(())) == []


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("a great film", "several are expected: predict([text])"),
        (b"a great film", "several are expected: predict([text])"),
        (["a", "b", None], "item 2 (counted from 0) is None (NoneType), not a string: leave"),
        (pd.Series(["a", float("nan")], index=[7, 8]), "item 1 (counted from 0) is nan (float)"),
        (pd.Series(["a", pd.NA], dtype=object), "item 1 (counted from 0) is <NA> (NAType), not"),
        (np.array([["a", "b"]]), "item 0 (counted from 0) is array(['a', 'b']"),
        (("a", 5), "item 1 (counted from 0) is 5 (int), not a string"),
        (pd.DataFrame({"text": ["a"]}), 'one of them, as predict(table["text"])'),
        (datasets.Dataset.from_dict({"text": ["a"]}), "a Dataset has several columns"),
        ({"text": ["a"]}, "a dict has several columns"),
        (5, "an object of type int was given"),
    ],
)  # fmt: skip
def test_what_is_no_iterable_of_strings_is_refused(texts, message, trained_run):
    predictor = load(trained_run)
    with pytest.raises(TypeError, match=re.escape(message)):
        predictor.predict(texts)
    with pytest.raises(TypeError, match=re.escape(message)):
        list(predictor.predict_stream(texts))


def test_the_package_alone_does_not_load_torch():
    code = "import sys, sentiment; assert 'torch' not in sys.modules; sentiment.load"
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(ImportError):
        from sentiment import nothing_there  # noqa: F401


def test_a_stream_is_answered_in_order_window_by_window(trained_run):
    predictor = load(trained_run)
    taken = []

    def endless():
        for number in itertools.count():
            taken.append(number)
            yield TEXTS[number % len(TEXTS)]

    answers = predictor.predict_stream(endless(), window=4)
    first = list(itertools.islice(answers, 9))
    assert len(taken) == 12, "no more is read than the windows of what is asked for"
    expected = predictor.predict([TEXTS[number % len(TEXTS)] for number in range(9)])
    assert [each.label for each in first] == [each.label for each in expected]
    for one, other in zip(first, expected, strict=True):
        assert one.probability == pytest.approx(other.probability, abs=1e-6)
    with pytest.raises(ValueError, match="window is 0"):
        predictor.predict_stream(TEXTS, window=0)


def test_a_threshold_decides_for_the_positive_class(trained_run, tmp_path):
    texts = [*TEXTS, "a dull film", "lovely"]
    plain = load(trained_run).predict(texts)
    shares = [each.probabilities[1] for each in plain]
    for threshold in (0, sorted(shares)[3], 1):
        predictions = load(trained_run, threshold=threshold).predict(texts)
        for share, before, after in zip(shares, plain, predictions, strict=True):
            assert after.label == ("pos" if share >= threshold else "neg")
            assert after.probability == (share if after.label == "pos" else before.probabilities[0])
            assert after.probabilities == before.probabilities
    with pytest.raises(UserError, match=r"the threshold is 1\.5, but must be from 0 to 1"):
        load(trained_run, threshold=1.5)
    make_run(tmp_path / "three")
    with pytest.raises(UserError, match="decides between two classes, but .* has 3: leave it out"):
        load(tmp_path / "three", threshold=0.5)


pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

COLUMNS = ["text", "predicted", "probability"]
PROBABILITIES = ["probability_bad", "probability_so, so", "probability_good"]


@pytest.fixture(scope="module")
def run_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("predict") / "run"
    make_run(path)
    return path


def texts(count):
    return [" ".join(f"word{(n * k) % 45}" for k in range(n % 37)) for n in range(count)]


def predict(*arguments):
    return cli.main(["predict", *map(str, arguments), "--device=cpu"])


def test_texts_are_answered_in_json_lines_where_there_is_no_terminal(run_path, capfdbinary):
    given = ["word1 word2", "!", "word3 " * 40]
    assert predict(run_path, *given) == 0
    out, err = capfdbinary.readouterr()
    rows = [json.loads(line) for line in out.splitlines()]
    assert err == b""
    assert list(rows[0]) == [*COLUMNS, *PROBABILITIES, "was_cut"]
    assert [row["text"] for row in rows] == given
    assert [row["was_cut"] for row in rows] == [False, False, True]
    for row, expected in zip(rows, load(run_path, device="cpu").predict(given), strict=True):
        assert row["predicted"] == expected.label
        assert row["probability"] == pytest.approx(expected.probability, abs=1e-6)
        shares = [row[name] for name in PROBABILITIES]
        assert shares == pytest.approx(expected.probabilities, abs=1e-6)


def test_a_file_is_its_texts_one_by_one(run_path, tmp_path, capsys):
    path, output = write(tmp_path / "in.csv", {"text": texts(60)}), tmp_path / "out.csv"
    arguments = [run_path, "--file", path, "--output", output, "--window=25", "--batch-tokens=90"]
    assert predict(*arguments) == 0
    assert "60 rows in" in capsys.readouterr().out
    rows = read_rows(output)
    predictor = load(run_path, device="cpu")
    for row, text in zip(rows, texts(60), strict=True):
        if not text:
            assert row["predicted"] == row["probability"] == ""
            continue
        alone = predictor.predict([text])[0]
        assert row["text"] == text and row["predicted"] == alone.label
        assert float(row["probability"]) == pytest.approx(alone.probability, abs=2e-6)
    assert "out.csv exists already" in refusal(arguments, capsys, "predict")
    assert predict(*arguments, "--overwrite") == 0


def test_standard_input_is_answered_line_by_line(run_path, monkeypatch):
    """Each answer arrives before the next line is sent."""
    (to_read, to_write), (answers, to_answer) = os.pipe(), os.pipe()
    monkeypatch.setattr(sys, "stdin", os.fdopen(to_read))
    monkeypatch.setattr(sys, "stdout", os.fdopen(to_answer, "w"))
    command = threading.Thread(target=predict, args=[run_path], daemon=True)
    command.start()
    with open(to_write, "wb", buffering=0) as lines, open(answers, "rb") as answers:
        for text in ("word1", "", "wörd �"):
            lines.write(f"{text}\n".encode())
            assert json.loads(answers.readline())["text"] == text
        lines.write(b"no line end")
        lines.close()
        assert json.loads(answers.readline())["text"] == "no line end"
        command.join(60)
        assert not command.is_alive()


def test_texts_cannot_steer_a_terminal_and_lines_fit_its_width(run_path, monkeypatch, capfd):
    monkeypatch.setenv("COLUMNS", "60")
    leader, follower = pty.openpty()
    with open(follower, "w") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        assert predict(run_path, "word1 \x1b[31mred\a" + " long" * 30, "漢字" * 40) == 0
        terminal.flush()
        output = b""
        while output.count(b"\n") < 2:  # a terminal may give one line at a time
            output += os.read(leader, 4096)
    os.close(leader)
    lines = output.decode().splitlines()
    assert capfd.readouterr().err == ""
    assert len(lines) == 2 and " %  word1 ␛[31mred…  (read" in lines[0]
    assert len(lines[0]) <= 60 and len(lines[1]) == 39, "its characters are wide"
    assert all(line.endswith("…") or "(read 30 of" in line for line in lines)


def test_a_reader_that_stops_early_is_not_an_error(run_path, monkeypatch, capfd):
    read_end, write_end = os.pipe()
    os.close(read_end)
    with open(write_end, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        assert predict(run_path, "word1") == 141
    assert capfd.readouterr().err == ""


def test_an_interrupted_file_is_resumed(run_path, tmp_path, capsys):
    path = write(tmp_path / "in.csv", {"text": texts(110)})
    with path.open("a") as file:
        file.write("bad,row\nlast\n")
    output, expected = tmp_path / "out.jsonl", tmp_path / "expected.jsonl"
    options = [run_path, "--file", path, "--window=20"]
    assert "row 111: 2 values" in refusal([*options, "--output", output], capsys, "predict")
    assert not output.exists()
    assert predict(*options, "--output", output, "--on-error=skip", "--resume") == 0
    assert "12 rows after 100 earlier" in capsys.readouterr().out
    assert predict(*options, "--output", expected, "--on-error=skip") == 0
    assert output.read_bytes() == expected.read_bytes()


def test_another_run_does_not_continue(run_path, tmp_path, capsys):
    (tmp_path / "in.csv").write_text("text\nword1\nword2\nbad,row\n")
    arguments = ["--file", tmp_path / "in.csv", "--output", tmp_path / "out.csv", "--window=1"]
    assert "row 3: 2 values" in refusal([run_path, *arguments], capsys, "predict")
    other = make_run(tmp_path / "other", cell="gru").path
    for given, message in {
        (run_path, "--ensemble", other): "cannot resume: the ensemble has changed",
        (other,): "cannot resume: the run has changed",
        (run_path, "--no-temperature"): "the temperature was 1.25 and is now 1.0",
    }.items():
        assert message in refusal([*given, *arguments, "--resume"], capsys, "predict")
    (tmp_path / "in.csv").write_text("text\nword1\nword2\ngood row\n")
    message = refusal([run_path, *arguments, "--resume"], capsys, "predict")
    assert "cannot resume: the input has changed" in message
    assert predict(run_path, *arguments, "--overwrite", "--on-error=skip") == 0


def test_bad_rows_are_told_on_standard_error(run_path, tmp_path, capfdbinary):
    (tmp_path / "in.csv").write_text("text\nword1\nbad,row\n")
    assert predict(run_path, "--file", tmp_path / "in.csv", "--on-error=skip") == 0
    out, err = capfdbinary.readouterr()
    assert [json.loads(line)["predicted"] is None for line in out.splitlines()] == [False, True]
    assert b"in.csv, row 2: 2 values" in err and b"predictions are empty: 1 of 2" in err


def test_standard_input_into_a_file(run_path, tmp_path, monkeypatch):
    (tmp_path / "in").write_bytes(b"word1\nword2\n")
    with (tmp_path / "in").open("rb") as file:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(file))
        assert predict(run_path, "-", "--output", tmp_path / "out.csv") == 0
    assert [row["text"] for row in read_rows(tmp_path / "out.csv")] == ["word1", "word2"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--file=nowhere.csv"], "there is no file nowhere.csv"),
        (["--file=."], ". is a folder"),
        (["a text", "--output=x.html"], "must end in .csv"),
    ],
)
def test_mistakes_are_one_line(run_path, capsys, arguments, message):
    assert message in refusal([run_path, *arguments], capsys, "predict")
