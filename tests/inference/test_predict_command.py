"""``sentiment predict`` as it is typed: texts, streams and files by a run."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import sys
import threading

import pytest
from helpers.review_files import write
from helpers.untrained_run import make_run

from sentiment import load
from sentiment.cli import main as cli

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
    with output.open(newline="") as file:
        rows = list(csv.DictReader(file))
    predictor = load(run_path, device="cpu")
    for row, text in zip(rows, texts(60), strict=True):
        if not text:
            assert row["predicted"] == row["probability"] == ""
            continue
        alone = predictor.predict([text])[0]
        assert row["text"] == text and row["predicted"] == alone.label
        assert float(row["probability"]) == pytest.approx(alone.probability, abs=2e-6)
    assert predict(*arguments) == 1
    assert "out.csv exists already" in capsys.readouterr().err
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
    assert predict(*options, "--output", output) == 1
    assert "row 111: 2 values" in capsys.readouterr().err and not output.exists()
    assert predict(*options, "--output", output, "--on-error=skip", "--resume") == 0
    assert "12 rows after 100 earlier" in capsys.readouterr().out
    assert predict(*options, "--output", expected, "--on-error=skip") == 0
    assert output.read_bytes() == expected.read_bytes()


def test_another_run_does_not_continue(run_path, tmp_path, capsys):
    (tmp_path / "in.csv").write_text("text\nword1\nword2\nbad,row\n")
    arguments = ["--file", tmp_path / "in.csv", "--output", tmp_path / "out.csv", "--window=1"]
    assert predict(run_path, *arguments) == 1
    assert "row 3: 2 values" in capsys.readouterr().err
    make_run(tmp_path / "other", cell="gru")
    assert predict(run_path, *arguments, "--resume", "--ensemble", tmp_path / "other") == 1
    assert "cannot resume: the ensemble has changed" in capsys.readouterr().err
    assert predict(tmp_path / "other", *arguments, "--resume") == 1
    assert "cannot resume: the run has changed" in capsys.readouterr().err
    assert predict(run_path, *arguments, "--resume", "--no-temperature") == 1
    assert "the temperature was 1.25 and is now 1.0" in capsys.readouterr().err
    (tmp_path / "in.csv").write_text("text\nword1\nword2\ngood row\n")
    assert predict(run_path, *arguments, "--resume") == 1
    assert "cannot resume: the input has changed" in capsys.readouterr().err
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
    with (tmp_path / "out.csv").open() as file:
        assert [row["text"] for row in csv.DictReader(file)] == ["word1", "word2"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--file=nowhere.csv"], "there is no file nowhere.csv"),
        (["--file=."], ". is a folder"),
        (["a text", "--output=x.html"], "must end in .csv"),
    ],
)
def test_mistakes_are_one_line(run_path, capsys, arguments, message):
    assert predict(run_path, *arguments) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
