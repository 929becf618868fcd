"""The suite's own arithmetic, and that the pages say what its results file says."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from benchmarks.corpus import synthetic_corpus, synthetic_lengths
from benchmarks.measure import faster, in_turns
from benchmarks.publish import PAGES, PUBLISHED, filled
from benchmarks.recurrence import Shape, step_seconds
from benchmarks.run import table


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_hold_the_figures_of_the_results_file(page):
    text = page.read_text(encoding="utf-8")
    result = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    assert filled(text, result, PAGES[page]) == text, "run python -m benchmarks.publish"


def test_a_ratio_is_of_medians_and_its_spread_of_rounds():
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
    assert max(map(len, table(rows).splitlines())) <= 120


def test_the_products_of_a_step_are_those_of_the_equations():
    """Forward W x and U h; backward twice as many operations again."""
    shape = Shape(batch=3, time=7, input=5, hidden=4, layers=2, directions=2)
    forward = 2 * 2 * 3 * 7 * 16 * ((5 + 4) + (8 + 4))
    assert sum(2 * times * m * k * n for times, m, k, n in shape.products()) == 3 * forward


@pytest.mark.parametrize("kind", ["PackedLSTM", "packed nn.LSTM", "padded nn.LSTM"])
def test_every_contestant_runs(kind):
    assert step_seconds(kind, Shape(batch=2, time=6, input=3, hidden=4), torch.bfloat16) > 0


def test_synthetic_reviews_have_imdbs_lengths():
    lengths = synthetic_lengths(50_000)
    assert abs(np.median(lengths) / 203 - 1) < 0.02
    assert abs(lengths.mean() / 272 - 1) < 0.03


def test_a_synthetic_corpus_is_the_same_in_a_file(tmp_path):
    one, other = synthetic_corpus(50), synthetic_corpus(50, path=tmp_path / "tokens.npy")
    assert torch.equal(one.tokens, other.tokens)
    assert one.ids[one.tokens].min() >= 2
