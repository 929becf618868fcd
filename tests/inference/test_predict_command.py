"""``sentiment predict`` as it is typed: texts, streams and files by a run."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import signal
import subprocess
import sys
import time

import pytest
import torch
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


def write_csv(path, count):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text"])
        writer.writerows([text] for text in texts(count))
    return path


def predict(*arguments):
    return cli.main(["predict", *map(str, arguments), "--device=cpu"])


def test_texts_are_answered_in_json_lines_where_there_is_no_terminal(run_path, capfdbinary):
    given = ["word1 word2", "", "word3 " * 40]
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


def test_raw_probabilities_are_those_at_temperature_1(run_path, capfdbinary):
    assert predict(run_path, "word1 word2", "--no-temperature") == 0
    row = json.loads(capfdbinary.readouterr().out)
    predictor = load(run_path, device="cpu", calibrated=False)
    batch = predictor.encode(["word1 word2"]).batch(torch.tensor([0]))
    expected = predictor.model(batch.tokens, batch.lengths).softmax(1)[0].tolist()
    assert [row[name] for name in PROBABILITIES] == pytest.approx(expected, abs=1e-6)


def test_a_file_is_its_texts_one_by_one(run_path, tmp_path, capsys):
    path, output = write_csv(tmp_path / "in.csv", 60), tmp_path / "out.csv"
    arguments = [run_path, "--file", path, "--output", output, "--window=25", "--batch-tokens=90"]
    assert predict(*arguments) == 0
    assert "60 rows in" in capsys.readouterr().out
    with output.open(newline="") as file:
        rows = list(csv.DictReader(file))
    predictor = load(run_path, device="cpu")
    for row, text in zip(rows, texts(60), strict=True):
        alone = predictor.predict([text])[0]
        assert row["text"] == text and row["predicted"] == alone.label
        assert float(row["probability"]) == pytest.approx(alone.probability, abs=2e-6)
    assert predict(*arguments) == 1
    assert "out.csv is there already" in capsys.readouterr().err
    assert predict(*arguments, "--overwrite") == 0


def test_standard_input_is_answered_line_by_line(run_path, tmp_path):
    """Each answer is there before the next line is sent."""
    with start(run_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        for text in ("word1", "", "wörd �"):
            process.stdin.write(f"{text}\n".encode())
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["text"] == text
        process.stdin.write(b"the last line has no end")
        process.stdin.close()
        assert json.loads(process.stdout.readline())["text"] == "the last line has no end"
        assert process.wait() == 0


def start(run_path, *arguments, **streams):
    """A process of its own."""
    code = "import sys; from sentiment.cli import main as cli; sys.exit(cli.main())"
    command = [sys.executable, "-c", code, "predict", str(run_path), "--device=cpu"]
    return subprocess.Popen([*command, *map(str, arguments)], **streams)


def test_a_terminal_gets_a_table_and_nobody_a_traceback(run_path, monkeypatch):
    """Texts cannot steer the terminal, and lines keep to its width."""
    monkeypatch.setenv("COLUMNS", "60")
    leader, follower = pty.openpty()
    given = ["word1 \x1b[31mred\a" + " long" * 30, "漢字" * 40]
    with start(run_path, *given, stdout=follower, stderr=subprocess.PIPE) as process:
        os.close(follower)
        out = b""
        try:
            while data := os.read(leader, 1000):
                out += data
        except OSError:  # how a terminal ends
            pass
        assert process.wait() == 0 and process.stderr.read() == b""
    os.close(leader)
    lines = out.decode().splitlines()
    assert len(lines) == 2 and " %  word1 ␛[31mred…  (read" in lines[0]
    assert len(lines[0]) <= 60 and len(lines[1]) == 39, "its characters are wide"
    assert all(line.endswith("…") or "(read 30 of" in line for line in lines)


def test_a_reader_that_has_seen_enough_is_no_error(run_path, tmp_path):
    path = write_csv(tmp_path / "in.csv", 5_000)
    arguments = ["--file", path, "--window=10"]
    with start(run_path, *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.wait() == 141
        assert process.stderr.read() == b""


def test_killed_and_resumed(run_path, tmp_path, capsys):
    path = write_csv(tmp_path / "in.csv", 3_000)
    output, progress = tmp_path / "out.jsonl", tmp_path / "out.jsonl.partial.json"
    options = ["--file", path, "--window=20"]
    with start(run_path, *options, "--output", output, stdout=subprocess.PIPE) as process:
        deadline = time.monotonic() + 60
        while '"num_rows": 0' in (progress.read_text() if progress.exists() else '"num_rows": 0'):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    done = json.loads(progress.read_text())["num_rows"]
    assert 0 < done < 3_000 and not output.exists()
    assert predict(run_path, *options, "--output", output, "--resume") == 0
    assert f"{3_000 - done:,} rows after {done:,} earlier" in capsys.readouterr().out
    assert predict(run_path, *options, "--output", tmp_path / "expected.jsonl") == 0
    assert output.read_bytes() == (tmp_path / "expected.jsonl").read_bytes()


def test_another_run_does_not_continue(run_path, tmp_path, capsys):
    (tmp_path / "in.csv").write_text("text\nword1\nword2\nbad,row\n")
    arguments = ["--file", tmp_path / "in.csv", "--output", tmp_path / "out.csv", "--window=1"]
    assert predict(run_path, *arguments) == 1
    assert "row 3: 2 values" in capsys.readouterr().err
    make_run(tmp_path / "other", cell="gru")
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
    assert b"in.csv, row 2: 2 values" in err and b"skipped 1 of 2 rows" in err


def test_standard_input_into_a_file(run_path, tmp_path, monkeypatch):
    (tmp_path / "in").write_bytes(b"word1\nword2\n")
    with (tmp_path / "in").open("rb") as file:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(file))
        assert predict(run_path, "-", "--output", tmp_path / "out.csv") == 0
    with (tmp_path / "out.csv").open() as file:
        assert [row["text"] for row in csv.DictReader(file)] == ["word1", "word2"]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["a text", "--file=x.csv"], 2, "texts or --file"),
        (["a text", "--resume"], 2, "--resume needs"),
        (["a text", "--overwrite"], 2, "--overwrite needs --output"),
        (["--file=x.csv", "--window=0"], 2, "at least 1"),
        (["--file=nowhere.csv"], 1, "there is no file nowhere.csv"),
        (["--file=."], 1, ". is a folder"),
        (["a text", "--output=x.html"], 1, "must end in .csv"),
    ],
)
def test_mistakes_are_one_line(run_path, capsys, arguments, status, message):
    try:
        assert predict(run_path, *arguments) == status
    except SystemExit as stopped:
        assert stopped.code == status
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_missing_run_is_told(tmp_path, capsys):
    assert predict(tmp_path / "nowhere", "a text") == 1
    assert "nowhere is not a run" in capsys.readouterr().err
