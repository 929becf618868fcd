"""The arithmetic of the benchmarks, and the tables of their results on the pages."""

from __future__ import annotations

import pytest

from benchmarks.kernels import parse_kernels
from benchmarks.machine import Processor, parse_processor, results_name
from benchmarks.measure import faster, in_turns
from benchmarks.publish import (
    PAGES,
    load_results,
    machines_side_by_side,
)
from benchmarks.step import Shape
from studies import fill


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_hold_the_figures_of_the_results_files(page):
    text = page.read_text(encoding="utf-8")
    assert fill(text, PAGES[page](load_results())) == text, "run python -m benchmarks.publish"


def test_machines_are_shown_side_by_side():
    """The published results, and a second machine with one row less and a goal missed."""
    old = load_results()[0]
    changed = [
        {**row, "ratio": 9.0, "low": 8.0, "kernel": "ref"} if row["goal"] == 60 else row
        for row in old["rows"][1:]
    ]
    processor = {"name": "AMD EPYC", "family": 25, "model": 1, "flags": ["avx2"]}
    new = {**old, "date": "2030-01-01", "processor": processor, "rows": changed}
    lines = machines_side_by_side([old, new]).splitlines()
    (heading,) = [line for line in lines if line.startswith("| comparison")]
    assert heading.endswith(
        f"2 threads, {old['date']} | AMD EPYC (family 25, model 1), 2 threads, 2030-01-01 | goal |"
    )
    (single,) = [
        line for line in lines if "fp32 in the default environment" in line and line[-5:] == " 30 |"
    ]
    assert "| – | 30 |" in single
    (missed,) = [line for line in lines if "(goal 60 missed)" in line]
    assert "| 9 (goal 60 missed) | 60 |" in missed
    assert {line.count("|") for line in lines if "|" in line} == {5}


def test_a_ratio_is_of_medians_and_its_range_of_rounds():
    row = faster("section", "name", [4.0, 6.0, 5.0], [1.0, 3.0, 2.0], goal=2)
    assert (row.ratio, row.low, row.high) == (2.5, 2.0, 4.0)
    assert faster("section", "name", [6.0], [1.0, 3.0, 2.0]).ratio == 3.0


def test_contestants_take_turns():
    calls: list[str] = []
    seconds = in_turns(
        {name: lambda name=name: calls.append(name) or float(len(calls)) for name in "ab"},
        2,
        warm_up=1,
    )
    assert calls == list("ababab")
    assert seconds == {"a": [3.0, 5.0], "b": [4.0, 6.0]}


def test_the_products_of_a_step_are_those_of_the_equations():
    """Forward W x and U h; backward takes twice as many operations."""
    shape = Shape(batch=3, time=7, input=5, hidden=4, layers=2, directions=2)
    forward = 2 * 2 * 3 * 7 * 16 * ((5 + 4) + (8 + 4))
    assert sum(2 * times * m * k * n for times, m, k, n in shape.products()) == 3 * forward


VERBOSE = """\
onednn_verbose,v1,info,cpu,runtime:OpenMP,nthr:1
onednn_verbose,v1,primitive,exec,cpu,rnn,tried,forward_training,src:f32,,,l1t1mb2sic2slc2dhc2dic2,1
onednn_verbose,v1,primitive,exec,cpu,rnn,brgemm:avx2,forward_training,src:f32,,,t9dhc16dic16,1
onednn_verbose,v1,primitive,exec,cpu,rnn,ref,forward_training,src:f32,,,t9dhc16dic16,0.1
onednn_verbose,v1,primitive,exec,cpu,reorder,jit:uni,undef,src_f32,,,4x4,0.01
onednn_verbose,v1,primitive,exec,cpu,rnn,ref,backward,src:f32,,,t9dhc16dic16,0.1
onednn_verbose,exec,cpu,rnn,ref,forward_inference,src:f32,,,t9dhc16dic16,0.1
"""


def test_kernels_are_parsed_from_the_lines_of_the_recurrence():
    assert parse_kernels(VERBOSE, 16) == {
        "forward_training": "brgemm:avx2 and ref",
        "backward": "ref",
        "forward_inference": "ref",
    }
    assert parse_kernels("", 16) == {}


CPUINFO = """\
processor	: 0
vendor_id	: AuthenticAMD
cpu family	: 26
model		: 2
model name	: AMD EPYC
flags		: fpu avx2 avx512f avx512bw avx512_bf16

processor	: 1
model name	: another
"""


def test_a_processor_is_described_by_family_model_and_flags():
    flags = ("avx2", "avx512f", "avx512_bf16")
    assert parse_processor(CPUINFO) == Processor("AMD EPYC", 26, 2, flags)
    assert parse_processor("").flags == ()


def test_processors_of_one_name_have_files_of_their_own():
    assert (
        results_name(Processor("AMD EPYC", 25, 17), 2) == "amd-epyc-family-25-model-17-2-cores.json"
    )
    assert results_name(Processor("AMD EPYC 7763 64-Core Processor", 25, 1), 1) == (
        "amd-epyc-7763-1-core.json"
    )
