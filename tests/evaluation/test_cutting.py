"""What cutting costs, against a model whose every answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from sentiment.data.batches import encode
from sentiment.data.tokenizer import TokenizedTexts
from sentiment.evaluation.plots import draw_truncation
from sentiment.evaluation.report import truncation_table
from sentiment.evaluation.slices import KEEPS, Truncation, measure_truncation

DECISIVE = 2


class Finder(nn.Module):
    """Says class 1 where it sees the decisive word."""

    calls = 0

    def forward(self, tokens: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        found = (tokens == DECISIVE).any(dim=1)
        return torch.stack((~found, found), dim=1).float()


@pytest.fixture
def corpus():
    """Reviews of ten words of class 1 whose decisive word is the first, the last, the fifth."""
    reviews = np.full((3, 10), 3, dtype=np.int32)
    reviews[0, 0] = reviews[1, 9] = reviews[2, 4] = DECISIVE
    tokenized = TokenizedTexts(reviews.flatten(), np.array([0, 10, 20, 30]), list("abcd"))
    return encode(tokenized, np.arange(4, dtype=np.int32), np.ones(3), max_length=10)


def test_each_way_keeps_what_it_says(corpus):
    cuts = measure_truncation(Finder(), corpus, [8, 4, 2], device=torch.device("cpu"))
    found = {(cut.max_length, cut.keep): round(3 * cut.accuracy) for cut in cuts}
    assert found == {
        (2, "head"): 1, (2, "tail"): 1, (2, "head+tail"): 2,
        (4, "head"): 1, (4, "tail"): 1, (4, "head+tail"): 2,
        (8, "head"): 2, (8, "tail"): 2, (8, "head+tail"): 2,
    }  # fmt: skip
    assert all(cut.cut_share == 1 for cut in cuts)


def test_reviews_that_are_not_cut_are_read_once(corpus):
    model = Finder()
    cuts = measure_truncation(model, corpus, [10, 20, 4], device=torch.device("cpu"))
    assert model.calls == 3 + 1
    assert [cut.accuracy for cut in cuts if cut.max_length >= 10] == [1.0] * 6


def test_the_table_fits_a_terminal_and_the_figure_has_every_way(corpus):
    cuts = measure_truncation(Finder(), corpus, [100, 12_000, 4], device=torch.device("cpu"))
    table = truncation_table(cuts)
    assert max(map(len, table.splitlines())) <= 80
    assert [line.split()[0] for line in table.splitlines()[2:]] == ["4", "100", "12,000"]
    assert table.splitlines()[-1].count(" 100.0 (43.9-100.0)") == 3
    certain = [Truncation(100, keep, 0.0, 1.0, (1.0, 1.0)) for keep in KEEPS]
    assert truncation_table(certain).splitlines()[-1].count(" 100.0 (100.0-100.0)") == 3
    axes = draw_truncation(cuts).axes[0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == list(KEEPS)
