"""What truncation costs, with a model whose every answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from sentiment.data.batches import encode
from sentiment.data.tokenizer import TokenizedTexts
from sentiment.evaluation.plots import draw_truncation
from sentiment.evaluation.report import truncation_table
from sentiment.evaluation.slices import KEEPS, measure_truncation

DECISIVE = 2
CPU = torch.device("cpu")


class Finder(nn.Module):
    """Predicts class 1 if it sees the decisive word."""

    calls = 0

    def forward(self, tokens: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        is_found = (tokens == DECISIVE).any(dim=1)
        return torch.stack((~is_found, is_found), dim=1).float()


@pytest.fixture
def corpus():
    """Three reviews of ten words of class 1, with the decisive word first, last and fifth."""
    reviews = np.full((3, 10), 3, dtype=np.int32)
    reviews[0, 0] = reviews[1, 9] = reviews[2, 4] = DECISIVE
    tokenized = TokenizedTexts(reviews.flatten(), np.array([0, 10, 20, 30]), list("abcd"))
    return encode(tokenized, np.arange(4, dtype=np.int32), np.ones(3), max_length=10)


def test_each_way_keeps_its_tokens(corpus):
    results = measure_truncation(Finder(), corpus, [8, 4, 2], device=CPU)
    assert {(each.max_length, each.keep): round(3 * each.accuracy) for each in results} == {
        (2, "head"): 1, (2, "tail"): 1, (2, "head+tail"): 2,
        (4, "head"): 1, (4, "tail"): 1, (4, "head+tail"): 2,
        (8, "head"): 2, (8, "tail"): 2, (8, "head+tail"): 2,
    }  # fmt: skip
    assert all(result.cut_share == 1 for result in results)


def test_whole_reviews_are_read_once(corpus):
    model = Finder()
    results = measure_truncation(model, corpus, [10, 20, 4], device=CPU)
    assert model.calls == 3 + 1
    assert [result.accuracy for result in results if result.max_length >= 10] == [1.0] * 6


def test_the_table_fits_a_terminal_and_the_figure_has_every_way(corpus):
    results = measure_truncation(Finder(), corpus, [100, 12_000, 4], device=CPU)
    lines = truncation_table(results).splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines[2:]] == ["4", "100", "12,000"]
    assert lines[-1].count(" 100.0 (43.9-100.0)") == 3
    axes = draw_truncation(results).axes[0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == list(KEEPS)
