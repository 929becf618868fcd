"""The arithmetic of the benchmarks, and the tables of their results on the pages."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.corpus import synthetic_corpus, synthetic_lengths
from benchmarks.kernels import find_kernels, parse_kernels
from benchmarks.machine import Processor, parse_processor, results_name
from benchmarks.measure import Row, faster, in_turns
from benchmarks.publish import (
    PAGES,
    load_results,
    machines_side_by_side,
    one_table_a_machine,
)
from benchmarks.recurrence import busy_core
from benchmarks.run import table
from benchmarks.step import Shape, step_seconds
from studies import fill


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_hold_the_figures_of_the_results_files(page):
    text = page.read_text(encoding="utf-8")
    assert fill(text, PAGES[page](load_results())) == text, "run python -m benchmarks.publish"


@pytest.fixture
def two_machines() -> list[dict[str, Any]]:
    """The published results, and a second machine with one row less and a goal missed."""
    old = load_results()[0]
    changed = [
        {**row, "ratio": 9.0, "low": 8.0, "kernel": "ref"} if row["goal"] == 60 else row
        for row in old["rows"][1:]
    ]
    processor = {"name": "AMD EPYC", "family": 25, "model": 1, "flags": ["avx2"]}
    return [old, {**old, "date": "2030-01-01", "processor": processor, "rows": changed}]


def test_machines_are_shown_side_by_side(two_machines):
    lines = machines_side_by_side(two_machines).splitlines()
    (heading,) = [line for line in lines if line.startswith("| comparison")]
    assert heading.endswith(
        f"2 threads, {two_machines[0]['date']} | "
        "AMD EPYC (family 25, model 1), 2 threads, 2030-01-01 | goal |"
    )
    (single,) = [
        line for line in lines if "fp32 in the default environment" in line and line[-5:] == " 30 |"
    ]
    assert "| – | 30 |" in single
    (missed,) = [line for line in lines if "(goal 60 missed)" in line]
    assert "| 9 (goal 60 missed) | 60 |" in missed
    assert {line.count("|") for line in lines if "|" in line} == {5}


def test_each_machine_has_a_table(two_machines):
    one, other = one_table_a_machine(two_machines).split("\n\nMeasured on 2030-01-01 ")
    assert other.startswith("on AMD EPYC (family 25, model 1), 2 threads with avx2; torch")
    assert "(goal 60 missed) | 8 to" in other and "| 60 | ref |" in other
    assert "(goal 60 missed)" not in one and "| 60 | ref |" not in one


def test_growth_misses_its_goal_above_it():
    assert Row("growth", "time", 1.2, goal=1.1).misses_goal
    assert not Row("growth", "time", 1.0, goal=1.1).misses_goal
    assert Row("recurrence", "step", 1.0, goal=1.1).misses_goal
    assert not Row("recurrence", "step", 1.0).misses_goal


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


def test_the_table_fits_a_terminal():
    rows = [faster("section", "n" * 200, [4.0], [1.0]), faster("other", "short", [4.0], [1.0], 3.0)]
    rows.append(replace(rows[1], kernel="brgemm:avx512_core_bf16 " * 9))
    assert max(map(len, table(rows).splitlines())) <= 120


def test_the_products_of_a_step_are_those_of_the_equations():
    """Forward W x and U h; backward takes twice as many operations."""
    shape = Shape(batch=3, time=7, input=5, hidden=4, layers=2, directions=2)
    forward = 2 * 2 * 3 * 7 * 16 * ((5 + 4) + (8 + 4))
    assert sum(2 * times * m * k * n for times, m, k, n in shape.products()) == 3 * forward


@pytest.mark.parametrize("kind", ["PackedLSTM", "packed nn.LSTM", "padded nn.LSTM"])
def test_every_contestant_runs(kind):
    assert step_seconds(kind, Shape(batch=2, time=6, input=3, hidden=4), torch.bfloat16) > 0


def test_synthetic_reviews_have_the_lengths_of_imdb():
    lengths = synthetic_lengths(50_000)
    assert abs(np.median(lengths) / 203 - 1) < 0.02
    assert abs(lengths.mean() / 272 - 1) < 0.03


def test_a_synthetic_corpus_is_the_same_in_memory_and_in_a_file(tmp_path):
    one, other = synthetic_corpus(50), synthetic_corpus(50, path=tmp_path / "tokens.npy")
    assert torch.equal(one.tokens, other.tokens)
    assert one.ids[one.tokens].min() >= 2


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


def test_the_kernels_of_a_step_are_found():
    kernels = find_kernels(Shape(batch=2, time=3, input=3, hidden=4), torch.float32)
    if torch.backends.mkldnn.is_available():
        assert set(kernels) == {"forward_training", "backward", "forward_inference"}
    else:
        assert kernels == {}


def test_a_core_is_busy_until_the_context_ends():
    with pytest.raises(ZeroDivisionError), busy_core() as process:
        assert process.is_alive()
        raise ZeroDivisionError
    assert not process.is_alive()


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


@pytest.mark.parametrize(
    ("name", "cores", "file"),
    [
        ("AMD EPYC", 2, "amd-epyc-2-cores.json"),
        ("AMD EPYC 7763 64-Core Processor", 1, "amd-epyc-7763-1-core.json"),
        ("Intel(R) Xeon(R) CPU E5-2686 v4 @ 2.30GHz", 4, "intel-xeon-e5-2686-v4-4-cores.json"),
    ],
)
def test_a_results_file_is_named_after_processor_and_cores(name, cores, file):
    assert results_name(Processor(name), cores) == file
