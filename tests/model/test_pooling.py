"""Attention over the words; the other kinds of pooling are in test_classifier.py."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sentiment.model.layers import AttentionPooling

LENGTHS = torch.tensor([4, 7, 1])


def make(features: int = 6, time: int = 7) -> tuple[AttentionPooling, torch.Tensor]:
    torch.manual_seed(0)
    return AttentionPooling(features), torch.randn(len(LENGTHS), time, features)


@settings(max_examples=30, deadline=None)
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


def test_weights_sum_to_one_and_are_zero_on_padding():
    attention, output = make()
    weights = attention.weigh(output, LENGTHS)
    padding = torch.arange(7) >= LENGTHS.unsqueeze(1)
    assert weights.shape == (3, 7)
    assert weights[padding].eq(0).all()
    assert weights[~padding].gt(0).all()
    assert torch.allclose(weights.sum(dim=1), torch.ones(3))
    assert weights[2, 0] == 1


@pytest.mark.parametrize("content", [0.0, -7.0, 1e30])
def test_what_the_padding_holds_does_not_matter(content):
    attention, output = make()
    padding = (torch.arange(7) >= LENGTHS.unsqueeze(1)).unsqueeze(2)
    other = output.masked_fill(padding, content)
    assert torch.equal(attention(output, LENGTHS), attention(other, LENGTHS))
    assert torch.allclose(attention(output[:1, :4], LENGTHS[:1]), attention(output, LENGTHS)[:1])


def test_gradients_reach_every_part_and_no_padding():
    attention, output = make()
    output.requires_grad_()
    attention(output, LENGTHS).square().sum().backward()
    padding = torch.arange(7) >= LENGTHS.unsqueeze(1)
    assert output.grad[padding].eq(0).all()
    assert output.grad[~padding].ne(0).all()
    for name, parameter in attention.named_parameters():
        assert parameter.grad.ne(0).all(), name


def test_it_works_under_autocast():
    attention, output = make(features=32)
    exact = attention(output, LENGTHS)
    with torch.autocast("cpu", torch.bfloat16):
        rough = attention(output.to(torch.bfloat16), LENGTHS)
        weights = attention.weigh(output.to(torch.bfloat16), LENGTHS)
    assert torch.allclose(rough.float(), exact, atol=0.03)
    assert weights.dtype == torch.float32
    assert torch.allclose(weights.sum(dim=1), torch.ones(3))
