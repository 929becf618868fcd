"""The classifier against its parts, and each choice of them; pooling by attention."""

import math

import pytest
import torch
from helpers.recurrences import make_classifier
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sentiment.model.layers import AttentionPooling, pool

LENGTHS = torch.tensor([5, 2, 7, 1])


def make_tokens() -> torch.Tensor:
    tokens = torch.randint(2, 30, (4, 7), generator=torch.Generator().manual_seed(1))
    return tokens.masked_fill(torch.arange(7) >= LENGTHS.unsqueeze(1), 0)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(
    "pooling", ["last", "mean", "max", "last+max+mean", "mean+last", "attention+max"]
)
def test_logits_are_those_of_the_parts_one_review_at_a_time(pooling, bidirectional):
    model = make_classifier(pooling=pooling, bidirectional=bidirectional, num_layers=2).eval()
    tokens = make_tokens()
    oracle = nn.LSTM(6, 8, 2, batch_first=True, bidirectional=bidirectional)
    oracle.load_state_dict(model.recurrence.state_dict())
    logits = model(tokens, LENGTHS)
    for row, length in enumerate(LENGTHS.tolist()):
        output, (h, _) = oracle(model.embedding(tokens[row : row + 1, :length]))
        parts = {
            "last": torch.cat(list(h[-(2 if bidirectional else 1) :, 0])),
            "mean": output[0].mean(dim=0),
            "max": output[0].amax(dim=0),
        }
        if model.attention is not None:
            scores = model.attention.projection(output[0]).tanh() @ model.attention.context
            parts["attention"] = scores.softmax(dim=0) @ output[0]
        pooled = torch.cat([parts[kind] for kind in pooling.split("+")])
        assert torch.allclose(logits[row], model.output(pooled), atol=1e-5)


@pytest.mark.parametrize("has_states", [False, True])
@pytest.mark.parametrize("pooling", ["last", "mean", "max", "attention", "last+max+mean"])
@pytest.mark.parametrize("kind", ["lstm packed", "gru packed", "rnn packed", "lstm reference"])
def test_a_batch_is_its_reviews_one_by_one(kind, pooling, has_states):
    cell, implementation = kind.split()
    model = make_classifier(
        num_layers=2, cell=cell, implementation=implementation, pooling=pooling,
        learned_initial_state=has_states,
    ).eval()  # fmt: skip
    if has_states:
        for parameter in model.initial_states.parameters():
            nn.init.normal_(parameter)
    tokens = make_tokens()
    with torch.no_grad():
        logits = model(tokens, LENGTHS)
        for row, length in enumerate(LENGTHS.tolist()):
            alone = model(tokens[row : row + 1, :length], LENGTHS[row : row + 1])
            assert torch.allclose(logits[row], alone[0], atol=1e-5)


def test_parameters_are_named_as_ever():
    """Weights saved before there was a choice of cells must still fit."""
    names = ["weight_ih", "weight_hh", "bias_ih", "bias_hh"]
    recurrent = [f"recurrence.{name}_l0{end}" for end in ("", "_reverse") for name in names]
    for choice in ({}, {"implementation": "reference"}, {"cell": "gru"}):
        wanted = ["embedding.weight", *recurrent, "output.weight", "output.bias"]
        assert list(make_classifier(**choice).state_dict()) == wanted
    reference = make_classifier(implementation="reference").eval()
    packed = make_classifier().eval()
    reference.load_state_dict(packed.state_dict())
    tokens = make_tokens()
    assert torch.allclose(reference(tokens, LENGTHS), packed(tokens, LENGTHS), atol=1e-5)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"cell": "elman"}, "cell 'elman' has no implementation 'packed'"),
        ({"implementation": "slow"}, "'lstm' has no implementation 'slow'"),
        ({"implementation": "reference", "cell": "gru"}, "'gru' has no implementation"),
        ({"pooling": "sum"}, "pooling is 'sum'"),
        ({"pooling": "last+sum"}, "must be one of last, mean, max, attention, or different ones"),
        ({"pooling": "max+last+max"}, r"pooling is 'max\+last\+max'"),
        ({"pooling": "max+"}, r"pooling is 'max\+'"),
        ({"pooling": ""}, "pooling is ''"),
        ({"vectors": torch.zeros(30, 5)}, r"vectors are \(30, 5\), expected \(30, 6\)"),
    ],
)
def test_an_unknown_choice_is_refused(choice, message):
    with pytest.raises(ValueError, match=message):
        make_classifier(**choice)


def test_padding_row_is_zero_and_stays_zero():
    vectors = torch.randn(30, 6)
    model = make_classifier(vectors=vectors)
    assert model.embedding.weight[0].eq(0).all()
    assert torch.equal(model.embedding.weight[1:], vectors[1:])
    optimizer = torch.optim.Adam(model.parameters(), 0.1)
    model(make_tokens(), LENGTHS).sum().backward()
    optimizer.step()
    assert model.embedding.weight[0].eq(0).all()
    assert not torch.equal(model.embedding.weight[1:], vectors[1:])


@pytest.mark.parametrize(("cell", "forget_bias"), [("lstm", 1.5), ("gru", 0.0), ("rnn", 0.0)])
def test_initialization_follows_the_settings(cell, forget_bias):
    """Cells without a forget gate have no bias of it."""
    model = make_classifier(cell=cell, hidden_size=16, forget_bias=1.5, num_layers=2)
    for name, parameter in model.recurrence.named_parameters():
        if name.startswith("weight_hh"):
            for gate in parameter.detach().split(16):
                assert torch.allclose(gate @ gate.T, torch.eye(16), atol=1e-5)
        elif name.startswith("weight_ih"):
            for gate in parameter.detach().split(16):
                bound = math.sqrt(6 / sum(gate.shape))
                assert 0.7 * bound < gate.abs().max() <= bound
    for layer, suffix in ((0, ""), (0, "_reverse"), (1, ""), (1, "_reverse")):
        bias = sum(
            getattr(model.recurrence, f"bias_{part}_l{layer}{suffix}").detach()
            for part in ("ih", "hh")
        )
        expected = torch.zeros_like(bias)
        expected[16:32] = forget_bias  # PyTorch's order of gates: input, forget, cell, output
        assert torch.equal(bias, expected)


def test_uniform_initialization_is_pytorchs_bound():
    model = make_classifier(hidden_size=16, input_init="uniform", recurrent_init="uniform")
    for name, parameter in model.recurrence.named_parameters():
        if name.startswith("weight"):
            assert 0.2 < parameter.abs().max() <= 0.25


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("steps", [7, 300])
def test_the_maximum_over_time_is_torchs(dtype, steps):
    """Values and gradients, those of ties included; 300 equal steps overflow a byte's count."""
    torch.manual_seed(0)
    lengths = torch.tensor([steps, 2, 5, 1])
    output = torch.randint(-3, 3, (4, steps, 6)).to(dtype)
    output[0, :, 0] = 2
    leaves = [output.clone().requires_grad_() for _ in range(2)]
    padding = (torch.arange(steps) >= lengths.unsqueeze(1)).unsqueeze(2)
    ours = pool("max", leaves[0], torch.empty(0), lengths)
    theirs = leaves[1].masked_fill(padding, float("-inf")).amax(dim=1)
    assert torch.equal(ours, theirs)
    weight = torch.randn(4, 6).to(dtype)
    for pooled in (ours, theirs):
        pooled.backward(weight)
    assert torch.allclose(leaves[0].grad.float(), leaves[1].grad.float(), rtol=1e-2, atol=1e-6)


@settings(max_examples=30)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    spare=st.integers(0, 3),
    seed=st.integers(0, 2**16),
)
def test_attention_is_the_equations_one_review_at_a_time(lengths, spare, seed):
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


def test_attention_works_under_autocast():
    torch.manual_seed(0)
    attention, output = AttentionPooling(32), torch.randn(len(LENGTHS), 7, 32)
    exact = attention(output, LENGTHS)
    with torch.autocast("cpu", torch.bfloat16):
        rough = attention(output.to(torch.bfloat16), LENGTHS)
        weights = attention.weigh(output.to(torch.bfloat16), LENGTHS)
    assert torch.allclose(rough.float(), exact, atol=0.03)
    assert weights.dtype == torch.float32
    assert torch.allclose(weights.sum(dim=1), torch.ones(4))
    assert weights[torch.arange(7) >= LENGTHS.unsqueeze(1)].eq(0).all(), "none on padding"
