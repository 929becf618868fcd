"""``sentiment check`` as a user meets it."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers.corpus import BAD, GOOD

from sentiment import load
from sentiment.behaviour import suite as behaviour
from sentiment.cli import main as cli
from sentiment.config.config import Config, DataConfig
from sentiment.inference.predictor import Prediction

TESTS = """
capability: verdicts <b>
about: Words & signs.
lexicon:
  praise: [great, lovely, moving, funny]
  blame: [dull, awful, clumsy, flat]
tests:
  - name: praise
    kind: minimum
    expect: positive
    templates: ["the plot was {praise} <script> alert(1)"]
  - name: blame taken for praise
    kind: minimum
    expect: positive
    templates: ["the plot was {blame} <script> alert(1)"]
  - name: blame for praise
    kind: invariance
    templates: ["the plot was {praise}"]
    changed: ["the plot was {blame} !"]
  - name: blame for praise, directed
    kind: direction
    must_not_lower: positive
    templates: ["the plot was {praise}"]
    changed: ["the plot was {blame} !"]
"""


class FakePredictor:
    """Of classes of any names: what counting good and bad words says."""

    def __init__(self, class_names=("neg", "pos"), positive=1, negative=0, language="en"):
        self.class_names = class_names
        self.places = positive, negative
        self.device = torch.device("cpu")
        config = Config(data=DataConfig(language=language))
        self.run = SimpleNamespace(path="run", config=config, checkpoint=SimpleNamespace(epoch=3))

    def predict(self, texts):
        return [self.classify(text) for text in texts]

    def classify(self, text):
        words = text.split()
        score = sum((word in GOOD) - (word in BAD) for word in words)
        rows = [0.1] * len(self.class_names)
        for place, sign in zip(self.places, (1, -1), strict=True):
            rows[place] += sign * score / 20
        rows = [row / sum(rows) for row in rows]
        best = rows.index(max(rows))
        return Prediction(self.class_names[best], rows[best], tuple(rows), len(words), False)


@pytest.fixture
def fake(monkeypatch):
    """Stands in for the run, whose folder is then not looked at."""

    def put(predictor):
        monkeypatch.setattr("sentiment.inference.predictor.load", lambda *_, **__: predictor)

    put(FakePredictor())
    return put


@pytest.fixture
def tests(tmp_path) -> Path:
    (tmp_path / "tests.yaml").write_text(TESTS)
    return tmp_path / "tests.yaml"


@pytest.fixture
def pairs(tmp_path) -> list[str]:
    header = "Sentiment\tText\n"
    (tmp_path / "original.tsv").write_text(
        header + "Positive\tthe plot was lovely\nNegative\t<i> the plot was funny \x1b[31m\n"
    )
    (tmp_path / "contrast.tsv").write_text(
        header + "Negative\tthe plot was awful\nPositive\tthe plot was great\n"
    )
    return [str(tmp_path / "original.tsv"), str(tmp_path / "contrast.tsv")]


def run_check(tmp_path, *arguments, status=0):
    output = tmp_path / "out"
    arguments = ["check", "runs/imdb", "--output", output, *arguments]
    assert cli.main([str(each) for each in arguments]) == status
    return json.loads((output / "check.json").read_text())


def test_tests_and_pairs_are_reported(fake, tests, pairs, tmp_path, capsys):
    report = run_check(tmp_path, "--tests", tests, "--pairs", *pairs)
    printed = capsys.readouterr().out
    assert max(len(line) for line in printed.splitlines() if "check.html" not in line) <= 80
    assert "\x1b" not in printed
    assert report["epoch"] == 3 and report["run"] == "runs/imdb"
    found = report["behaviours"]
    assert (found["num_cases"], found["num_failures"]) == (40, 36)
    assert found["failure_rate"] == 0.9
    (capability,) = found["capabilities"]
    assert [test["failure_rate"] for test in capability["tests"]] == [0, 1, 1, 1]
    failure = capability["tests"][1]["failures"][0]
    assert (failure["expected"], failure["got"]) == ("pos", "neg")
    assert failure["probability"] == pytest.approx(0.75)
    for test in capability["tests"][2:]:
        assert all(each["distance"] == pytest.approx(0.5) for each in test["failures"])
        assert "!" in test["failures"][0]["changed"]
    assert report["pairs"]["original"]["count"] == 1
    assert report["pairs"]["contrast"]["share"] == 1
    assert report["pairs"]["consistent"]["count"] == 1
    assert [pair["row"] for pair in report["pairs"]["broken"]] == [2]
    squeezed = " ".join(printed.split())
    assert "both right (consistency) 2 1 50.0 %" in squeezed
    assert "all 40 36 90.0 %" in squeezed
    assert "neg (0.75), not pos" in printed and "must not fall, 0.75 → 0.25" in printed


def test_the_page_stands_alone_and_escapes_every_text(fake, tests, pairs, tmp_path):
    run_check(tmp_path, "--tests", tests, "--pairs", *pairs)
    page = (tmp_path / "out" / "check.html").read_text(encoding="utf-8")
    assert "<script" not in page and "<i>" not in page and "http" not in page
    assert "verdicts &lt;b&gt;" in page and "Words &amp; signs." in page
    assert page.count("&lt;script&gt; alert(1)") == 4
    assert page.count("<details>") == 3 + 1 == page.count("</details>")
    assert "praise: none of 4 cases fails." in page
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["check.html", "check.json"]


def test_pairs_alone_run_no_tests(fake, pairs, tmp_path, capsys):
    report = run_check(tmp_path, "--pairs", *pairs)
    assert "failures" not in capsys.readouterr().out
    assert report["behaviours"] is None and report["pairs"]["consistent"]["total"] == 2


def test_too_many_failures_are_an_error_when_asked_for(fake, tests, tmp_path, capsys):
    run_check(tmp_path, "--tests", tests, "--max-failure-rate", "0.9")
    assert not capsys.readouterr().err
    run_check(tmp_path, "--tests", tests, "--max-failure-rate", "0.89", status=1)
    message = "error: 36 of 40 cases fail, 90.00 %: more than --max-failure-rate 0.89\n"
    assert capsys.readouterr().err == message


def test_roles_turn_the_expectations(fake, tests, tmp_path):
    roles = ["--roles", "positive=neg", "negative=pos"]
    (capability,) = run_check(tmp_path, "--tests", tests, *roles)["behaviours"]["capabilities"]
    assert [test["failure_rate"] for test in capability["tests"]] == [1, 0, 1, 0]


def test_of_three_classes_two_have_roles(fake, tests, pairs, tmp_path, capsys):
    fake(FakePredictor(("positive", "neutral", "negative"), 0, 2))
    (capability,) = run_check(tmp_path, "--tests", tests)["behaviours"]["capabilities"]
    assert [test["failure_rate"] for test in capability["tests"]] == [0, 1, 1, 1]
    fake(FakePredictor(("1", "2", "3"), 2, 0))
    arguments = ["check", "run", "--tests", str(tests), "--output", str(tmp_path / "none")]
    assert cli.main(arguments) == 1
    assert "the classes are 1, 2, 3, whose names do not tell" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
    run_check(tmp_path, "--tests", tests, "--roles", "negative=1", "positive=3")
    Path(pairs[0]).write_text("label\ttext\n3\tgreat\n")
    Path(pairs[1]).write_text("label\ttext\n1\tdull\n")
    assert run_check(tmp_path, "--pairs", *pairs)["pairs"]["flipped"]["count"] == 1


def test_a_trained_run_by_the_shipped_tests(trained_run, tmp_path, capsys):
    """The whole command, against the run's own predictions."""
    reports = []
    for seed in ("1", "1", "2"):
        assert cli.main(["check", str(trained_run), "--seed", seed, "--output", str(tmp_path)]) == 0
        reports.append(json.loads((tmp_path / "check.json").read_text()))
    assert 600 <= reports[0]["behaviours"]["num_cases"] <= 2000
    assert reports[0] == reports[1] and reports[0]["behaviours"] != reports[2]["behaviours"]
    printed = capsys.readouterr().out
    assert max(len(line) for line in printed.splitlines() if "check.html" not in line) <= 80
    tests = [test for each in reports[0]["behaviours"]["capabilities"] for test in each["tests"]]
    failures = [each for test in tests for each in test["failures"] if test["kind"] == "minimum"]
    assert failures
    for failure, found in zip(
        failures, load(trained_run).predict([each["text"] for each in failures]), strict=True
    ):
        assert failure["got"] == found.label != failure["expected"]
        assert failure["probability"] == pytest.approx(found.probability, abs=1e-5)


def test_wrong_places_are_said(fake, tests, tmp_path, capsys, monkeypatch):
    def error(*arguments) -> str:
        assert cli.main(["check", "run", *map(str, arguments)]) == 1
        printed = capsys.readouterr()
        assert not printed.out and printed.err.count("\n") == 1
        return printed.err

    assert "there is no file" in error("--tests", tmp_path / "absent.yaml")
    assert "is a file: choose another folder" in error("--output", tests)
    fake(FakePredictor(language="zh"))
    assert "'zh': give tests in its language with --tests or" in error()
    assert cli.main(["check", "run", "--tests", str(tests), "--output", str(tmp_path / "o")]) == 0
    capsys.readouterr()
    fake(FakePredictor())
    roles = ["--roles", "negative=neg", "positive=nice"]
    assert "--roles positive=nice: the classes are neg, pos" in error(*roles)
    monkeypatch.setattr(behaviour, "_SHIPPED", tmp_path / "lib" / "tests" / "behaviour")
    assert "give tests of your own with --tests FILE_OR_FOLDER" in error()
