"""Mutated files into every reader, in a process of their own: pyarrow could end it."""

from __future__ import annotations

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from helpers.corpus import ROOT

# The slower half of a run's targets, to be run beside the others.
SLOWER = ("token cache", "predict parquet", "settings", "run folder")


def fuzz(*arguments: str) -> int:
    """Run targets; returns the number of inputs, and fails with what failed."""
    command = [sys.executable, "-X", "faulthandler", "-m", "tests.fuzz.run", *arguments]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    print(result.stdout)
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr[-5_000:]}"
    (total,) = re.findall(r"^(\d+) inputs in", result.stdout, flags=re.MULTILINE)
    return int(total)


def test_some_thousand_files_end_in_a_result_or_one_line():
    assert fuzz("--inputs", "500", "--seed", "0") > 5_000


@pytest.mark.long
def test_a_hundred_thousand_files_end_in_a_result_or_one_line():
    options = ["--inputs", "12000", "--seed", "1"]
    slower = [part for name in SLOWER for part in ("--only", name)]
    others = [part for name in SLOWER for part in ("--except", name)]
    with ThreadPoolExecutor(2) as both:
        total = sum(both.map(lambda chosen: fuzz(*options, *chosen), (slower, others)))
    print(f"{total} inputs")
    assert total >= 100_000
