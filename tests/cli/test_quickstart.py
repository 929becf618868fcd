"""The first run of a newcomer, end to end: the commands of ``make train``."""

from __future__ import annotations

import json
import subprocess
import sys

from helpers.corpus import ROOT


def test_quickstart_learns_what_counting_words_cannot(tmp_path):
    """tests/test_mini_corpus.py holds the bag of words at or under 85 % on the same split."""
    run = tmp_path / "quickstart"
    train = [sys.executable, "train.py", "--config", "configs/quickstart.yaml"]
    command = [*train, f"--output_dir={run}"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert f"next: python evaluate.py --run {run}" in result.stdout
    assert result.stderr == "", "no bars where the output is not a terminal"
    subprocess.run([sys.executable, "evaluate.py", "--run", str(run)], cwd=ROOT, check=True)
    report = json.loads((run / "evaluation" / "test" / "report.json").read_text())
    assert report["num_reviews"] == 1_000
    assert report["accuracy"] >= 0.95
    coverage = json.loads((run / "run.json").read_text())["vectors_coverage"]
    assert 0.9 < coverage["types_found"] / coverage["num_types"] < 1
