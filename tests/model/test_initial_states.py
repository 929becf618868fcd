"""States before the first word: PackedLSTM's against nn.LSTM's, and learned ones of a classifier.

Those of the other cells and of the reference are held against torch in their own tests.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from sentiment.model import PackedLSTM, SentimentClassifier

LENGTHS = torch.tensor([4, 9, 1, 6])


def make_pair(input_size: int, hidden_size: int, **shape) -> tuple[nn.LSTM, PackedLSTM]:
    oracle = nn.LSTM(input_size, hidden_size, batch_first=True, **shape)
    packed = PackedLSTM(input_size, hidden_size, **shape)
    packed.load_state_dict(oracle.state_dict())
    return oracle, packed


def run(lstm: nn.LSTM, x, lengths, initial):
    if isinstance(lstm, PackedLSTM):
        output, (h, c) = lstm(x, lengths, initial)
        return output, h, c
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    output, (h, c) = lstm(packed, initial)
    return pad_packed_sequence(output, batch_first=True, total_length=x.shape[1])[0], h, c


def results_and_gradients(lstm, x, lengths, h, c):
    """With one learned state for all reviews, as the classifier has it."""
    expanded = tuple(each.unsqueeze(1).expand(-1, len(lengths), -1) for each in (h, c))
    results = run(lstm, x, lengths, expanded)
    generator = torch.Generator().manual_seed(3)
    total = sum((each * torch.randn(each.shape, generator=generator)).sum() for each in results)
    return [*results, *torch.autograd.grad(total, [x, h, c, *lstm.parameters()])]


@settings(max_examples=20, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=6),
    spare=st.integers(0, 2),
    num_layers=st.integers(1, 3),
    bidirectional=st.booleans(),
    with_onednn=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_equals_the_packed_sequence(lengths, spare, num_layers, bidirectional, with_onednn, seed):
    torch.manual_seed(seed)
    oracle, packed = make_pair(5, 7, num_layers=num_layers, bidirectional=bidirectional)
    x = torch.randn(len(lengths), max(lengths) + spare, 5, requires_grad=True)
    h, c = (torch.randn(num_layers * packed.directions, 7, requires_grad=True) for _ in range(2))
    wanted = results_and_gradients(oracle, x, torch.tensor(lengths), h, c)
    with torch.backends.mkldnn.flags(enabled=with_onednn):
        actual = results_and_gradients(packed, x, torch.tensor(lengths), h, c)
    for one, other in zip(actual, wanted, strict=True):
        assert one.shape == other.shape
        assert (one - other).abs().max() <= 1e-5 * max(1, other.abs().max())


def test_zeros_are_as_none():
    torch.manual_seed(0)
    _, lstm = make_pair(5, 7, num_layers=2, bidirectional=True)
    x, zeros = torch.randn(4, 9, 5), torch.zeros(4, 4, 7)
    for one, other in zip(
        run(lstm, x, LENGTHS, (zeros, zeros)), run(lstm, x, LENGTHS, None), strict=True
    ):
        assert torch.allclose(one, other, atol=1e-6)


def test_autocast_is_no_farther_off_than_the_packed_sequence():
    torch.manual_seed(0)
    oracle, packed = make_pair(50, 64, bidirectional=True)
    lengths = torch.randint(20, 41, (8,))
    x = torch.randn(8, 40, 50, requires_grad=True)
    h, c = (torch.randn(2, 64, requires_grad=True) for _ in range(2))
    exact = results_and_gradients(oracle, x, lengths, h, c)
    with torch.autocast("cpu", torch.bfloat16):
        rough = results_and_gradients(oracle, x, lengths, h, c)
        ours = results_and_gradients(packed, x, lengths, h, c)

    def distance(found):
        return sum((a - b).norm() / b.norm() for a, b in zip(found, exact, strict=True))

    assert distance(ours) <= 1.1 * distance(rough)


def test_states_that_do_not_fit_are_refused():
    lstm = PackedLSTM(3, 4)
    good, bad = torch.zeros(1, 2, 4), torch.zeros(1, 3, 4)
    for initial in ((bad, good), (good, bad)):
        with pytest.raises(ValueError, match=r"states are \(1, 3, 4\), expected \(1, 2, 4\)"):
            lstm(torch.randn(2, 5, 3), torch.tensor([5, 2]), initial)


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_learned_states_start_at_zero_and_are_the_same_for_all(cell):
    shape = {"vocabulary_size": 9, "num_classes": 2, "embedding_size": 4, "hidden_size": 5}
    torch.manual_seed(0)
    plain = SentimentClassifier(**shape, cell=cell, pooling="last").eval()
    model = SentimentClassifier(**shape, cell=cell, pooling="last", learned_initial_state=True)
    missing = model.eval().load_state_dict(plain.state_dict(), strict=False).missing_keys
    names = ["h", "c"] if cell == "lstm" else ["h"]
    assert missing == [f"initial_states.{name}" for name in names]
    tokens = torch.randint(1, 9, (4, 9))
    wanted = plain(tokens, LENGTHS)
    assert torch.allclose(model(tokens, LENGTHS), wanted, atol=1e-6)
    model(tokens, LENGTHS).logsumexp(dim=1).sum().backward()
    with torch.no_grad():
        for parameter in model.initial_states.parameters():
            assert parameter.grad.abs().sum(dim=1).gt(0).all(), "each direction's is learned"
            parameter.normal_()
    changed = model(tokens, LENGTHS)
    assert not torch.allclose(changed, wanted, atol=1e-3)
    assert torch.allclose(model(tokens[2:], LENGTHS[2:]), changed[2:], atol=1e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_cuda_equals_the_cpu():
    torch.manual_seed(0)
    torch.backends.cudnn.allow_tf32 = False
    _, lstm = make_pair(20, 32, num_layers=2, bidirectional=True)
    x, h, c = torch.randn(4, 9, 20), torch.randn(4, 4, 32), torch.randn(4, 4, 32)
    expected = run(lstm, x, LENGTHS, (h, c))
    actual = run(lstm.cuda(), x.cuda(), LENGTHS, (h.cuda(), c.cuda()))
    for one, other in zip(actual, expected, strict=True):
        assert torch.allclose(one.cpu(), other, atol=1e-5)
