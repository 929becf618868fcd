"""Attention over the words; the other kinds of pooling are in test_classifier.py."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sentiment.model.layers import AttentionPooling

LENGTHS = torch.tensor([4, 7, 1])


@settings(max_examples=30)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    spare=st.integers(0, 3),
    seed=st.integers(0, 2**16),
)
def test_it_is_the_equations_one_review_at_a_time(lengths, spare, seed):
    torch.manual_seed(seed)
    attention = AttentionPooling(5)
    torch.nn.init.normal_(attention.projection.bias)
    output = torch.randn(len(lengths), max(lengths) + spare, 5)
    pooled = attention(output, torch.tensor(lengths))
    W, b, v = attention.projection.weight, attention.projection.bias, attention.context
    for row, length in enumerate(lengths):
        words = output[row, :length]
        grown = torch.exp(torch.tanh(words @ W.T + b) @ v)  # (length,)
        wanted = sum(share * word for share, word in zip(grown / grown.sum(), words, strict=True))
        assert torch.allclose(pooled[row], wanted, atol=1e-5)


def test_it_works_under_autocast():
    torch.manual_seed(0)
    attention, output = AttentionPooling(32), torch.randn(len(LENGTHS), 7, 32)
    exact = attention(output, LENGTHS)
    with torch.autocast("cpu", torch.bfloat16):
        rough = attention(output.to(torch.bfloat16), LENGTHS)
        weights = attention.weigh(output.to(torch.bfloat16), LENGTHS)
    assert torch.allclose(rough.float(), exact, atol=0.03)
    assert weights.dtype == torch.float32
    assert torch.allclose(weights.sum(dim=1), torch.ones(3))
    assert weights[torch.arange(7) >= LENGTHS.unsqueeze(1)].eq(0).all(), "none on padding"
