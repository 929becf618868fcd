"""The first commands of a newcomer, ``make train``."""

from __future__ import annotations

import json

import pytest
from helpers.corpus import ROOT

from sentiment.cli import main as cli


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
