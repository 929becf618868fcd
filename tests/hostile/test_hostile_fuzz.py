"""Mutated files into every reader, in other processes: a crash of pyarrow would end this one."""

from __future__ import annotations

import re

import pytest
from helpers.processes import Processes
from helpers.trainings import ended

from tests.fuzz import run


def num_inputs(*options: str) -> int:
    """The number of inputs that ended in a result or in one line, if all of them did."""
    out, _ = ended(Processes(run.main, options), seconds=3_600)
    return int(re.findall(r"^(\d+) inputs in", out, flags=re.MULTILINE)[0])


def test_two_thousand_files_end_in_a_result_or_one_line():
    assert num_inputs("--inputs", "230", "--seed", "0") > 2_000


@pytest.mark.long
def test_a_hundred_thousand_files_end_in_a_result_or_one_line():
    assert num_inputs("--inputs", "12000", "--seed", "1") >= 100_000
