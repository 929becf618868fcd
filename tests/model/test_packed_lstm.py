"""PackedLSTM against nn.LSTM on the PackedSequence, the oracle that defines it."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from sentiment.model import PackedLSTM


def run_oracle(lstm: nn.LSTM, x: torch.Tensor, lengths: torch.Tensor):
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    output, (h, c) = lstm(packed)
    output, _ = pad_packed_sequence(output, batch_first=True, total_length=x.shape[1])
    return output, h, c


def make_pair(input_size: int, hidden_size: int, **shape) -> tuple[nn.LSTM, PackedLSTM]:
    oracle = nn.LSTM(input_size, hidden_size, batch_first=True, **shape)
    packed = PackedLSTM(input_size, hidden_size, **shape)
    packed.load_state_dict(oracle.state_dict())
    return oracle, packed


def gradients(outputs, leaves, weights):
    total = sum((output * weight).sum() for output, weight in zip(outputs, weights, strict=True))
    return torch.autograd.grad(total, leaves)


def assert_equal_to_oracle(oracle, lstm, x, lengths):
    expected = run_oracle(oracle, x, lengths)
    output, (h, c) = lstm(x, lengths)
    for actual, wanted in zip((output, h, c), expected, strict=True):
        assert actual.shape == wanted.shape
        assert (actual - wanted).abs().max() <= 1e-6
    weights = [torch.randn_like(each) for each in expected]
    wanted = gradients(expected, [x, *oracle.parameters()], weights)
    actual = gradients((output, h, c), [x, *lstm.parameters()], weights)
    for one, other in zip(actual, wanted, strict=True):
        assert (one - other).norm() <= 1e-4 * other.norm() + 1e-12
    padding = torch.arange(x.shape[1]) >= lengths.unsqueeze(1)
    assert output[padding].eq(0).all()
    assert actual[0][padding].eq(0).all(), "no gradient may reach the padding"


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 14), min_size=1, max_size=7),
    spare=st.integers(0, 3),
    num_layers=st.integers(1, 3),
    bidirectional=st.booleans(),
    input_size=st.integers(1, 9),
    hidden_size=st.integers(1, 17),
    seed=st.integers(0, 2**16),
)
def test_equals_the_packed_sequence(
    lengths, spare, num_layers, bidirectional, input_size, hidden_size, seed
):
    torch.manual_seed(seed)
    shape = {"num_layers": num_layers, "bidirectional": bidirectional}
    oracle, lstm = make_pair(input_size, hidden_size, **shape)
    x = torch.randn(len(lengths), max(lengths) + spare, input_size, requires_grad=True)
    assert_equal_to_oracle(oracle, lstm, x, torch.tensor(lengths))


@pytest.mark.parametrize("bidirectional", [False, True])
def test_equals_the_packed_sequence_at_the_size_it_is_used(bidirectional):
    torch.manual_seed(0)
    oracle, lstm = make_pair(100, 256, bidirectional=bidirectional)
    lengths = torch.randint(1, 61, (16,))
    x = torch.randn(16, 60, 100, requires_grad=True)
    assert_equal_to_oracle(oracle, lstm, x, lengths)


def test_large_weights_do_not_wake_the_padding():
    """The padding is held by saturated gates; weights far beyond trained ones must not free it."""
    torch.manual_seed(0)
    oracle, lstm = make_pair(20, 30, bidirectional=True)
    for model in (oracle, lstm):
        torch.manual_seed(1)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(3 * torch.randn_like(parameter))
    lengths = torch.tensor([1, 5, 30, 17])
    x = torch.randn(4, 30, 20)
    ours, theirs = flatten(lstm(x, lengths)), run_oracle(oracle, x, lengths)
    exact = run_oracle(oracle.double(), x.double(), lengths)
    for actual, rounded, wanted in zip(ours, theirs, exact, strict=True):
        # Such weights amplify rounding: nn.LSTM's own distance from the exact answer is the scale.
        assert (actual - wanted).abs().max() <= 3 * (rounded - wanted).abs().max() + 1e-6


@pytest.mark.parametrize("content", [1e30, float("nan"), float("inf")])
def test_what_the_padding_holds_is_not_read(content):
    torch.manual_seed(0)
    lstm = PackedLSTM(5, 8, 2, bidirectional=True)
    lengths = torch.tensor([4, 2, 7])
    x = torch.randn(3, 7, 5)
    dirty = x.clone()
    dirty[torch.arange(7) >= lengths.unsqueeze(1)] = content
    dirty.requires_grad_()
    output, (h, c) = lstm(dirty, lengths)
    for actual, wanted in zip((output, h, c), flatten(lstm(x, lengths)), strict=True):
        assert torch.equal(actual, wanted)
    output.sum().backward()
    assert dirty.grad.isfinite().all()


def flatten(result):
    output, (h, c) = result
    return output, h, c


def test_order_and_company_do_not_matter():
    torch.manual_seed(0)
    lstm = PackedLSTM(6, 9, bidirectional=True)
    lengths = torch.tensor([3, 11, 1, 8])
    x = torch.randn(4, 11, 6)
    output, (h, c) = lstm(x, lengths)
    for permutation in itertools.permutations(range(4)):
        order = torch.tensor(permutation)
        shuffled, (h2, c2) = lstm(x[order], lengths[order])
        assert torch.allclose(shuffled, output[order], atol=1e-6)
        assert torch.allclose(h2, h[:, order], atol=1e-6)
        assert torch.allclose(c2, c[:, order], atol=1e-6)
    for row in range(4):
        length = int(lengths[row])
        alone, (h1, c1) = lstm(x[row : row + 1, :length], lengths[row : row + 1])
        assert torch.allclose(alone[0], output[row, :length], atol=1e-6)
        assert torch.allclose(h1[:, 0], h[:, row], atol=1e-6)
        assert torch.allclose(c1[:, 0], c[:, row], atol=1e-6)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_without_onednn_the_answer_is_the_same(bidirectional):
    """Other devices and double precision take PyTorch's own kernel."""
    torch.manual_seed(0)
    oracle, lstm = make_pair(5, 7, num_layers=2, bidirectional=bidirectional)
    lengths = torch.tensor([3, 9, 1, 6])
    x = torch.randn(4, 9, 5, requires_grad=True)
    with torch.backends.mkldnn.flags(enabled=False):
        assert_equal_to_oracle(oracle, lstm, x, lengths)
    wanted = run_oracle(oracle.double(), x.double(), lengths)
    for actual, expected in zip(flatten(lstm.double()(x.double(), lengths)), wanted, strict=True):
        assert torch.allclose(actual, expected, atol=1e-12)


def test_gradients_of_weights_stay_in_fp32_under_autocast():
    """In bf16 they are no farther from the fp32 answer than nn.LSTM's own."""
    torch.manual_seed(0)
    oracle, lstm = make_pair(50, 64, bidirectional=True)
    lengths = torch.randint(20, 41, (8,))
    x = torch.randn(8, 40, 50, requires_grad=True)
    weight = torch.randn(8, 40, 128)

    def leaf_gradients(model, run):
        output = run(model)
        return torch.autograd.grad((output.float() * weight).sum(), [x, *model.parameters()])

    exact = leaf_gradients(oracle, lambda model: run_oracle(model, x, lengths)[0])
    with torch.autocast("cpu", torch.bfloat16):
        rough = leaf_gradients(oracle, lambda model: run_oracle(model, x, lengths)[0])
        ours = leaf_gradients(lstm, lambda model: model(x, lengths)[0])
    assert all(each.dtype == torch.float32 for each in ours)

    def distance(found):
        return sum((a - b).norm() / b.norm() for a, b in zip(found, exact, strict=True))

    assert distance(ours) <= distance(rough)


def test_a_frozen_or_unused_part_costs_the_others_nothing():
    torch.manual_seed(0)
    oracle, lstm = make_pair(5, 7, bidirectional=True)
    for model in (oracle, lstm):
        model.weight_hh_l0.requires_grad_(False)
    lengths = torch.tensor([3, 9, 6])
    x = torch.randn(3, 9, 5)
    for used in range(3):  # the output, h or c alone
        wanted = run_oracle(oracle, x, lengths)[used].sum()
        flatten(lstm(x, lengths))[used].sum().backward()
        wanted.backward()
    assert lstm.weight_hh_l0.grad is None
    for one, other in zip(lstm.parameters(), oracle.parameters(), strict=True):
        if one.requires_grad:
            assert torch.allclose(one.grad, other.grad, atol=1e-5)


def test_a_retained_graph_can_be_used_again():
    torch.manual_seed(0)
    lstm = PackedLSTM(5, 7, bidirectional=True)
    output = lstm(torch.randn(3, 9, 5), torch.tensor([3, 9, 6]))[0].sum()
    parameters = list(lstm.parameters())
    first = torch.autograd.grad(output, parameters, retain_graph=True)
    for one, other in zip(first, torch.autograd.grad(output, parameters), strict=True):
        assert torch.equal(one, other)


def test_state_dicts_fit_both_ways():
    lstm = PackedLSTM(3, 4, 2, bidirectional=True)
    other = nn.LSTM(3, 4, 2, bidirectional=True)
    other.load_state_dict(lstm.state_dict())
    lstm.load_state_dict(other.state_dict())


def test_autocast_is_no_farther_off_than_the_packed_sequence():
    torch.manual_seed(0)
    oracle, lstm = make_pair(50, 64, bidirectional=True)
    lengths = torch.randint(20, 41, (8,))
    x = torch.randn(8, 40, 50)
    exact = run_oracle(oracle, x, lengths)
    with torch.autocast("cpu", torch.bfloat16):
        rough = run_oracle(oracle, x, lengths)
        ours = flatten(lstm(x, lengths))
    for wanted, theirs, actual in zip(exact, rough, ours, strict=True):
        assert (actual.float() - wanted).norm() <= 1.5 * (theirs.float() - wanted).norm()


def test_dropout_between_layers_only_in_training():
    torch.manual_seed(0)
    lstm = PackedLSTM(4, 16, 2, dropout=0.5)
    x, lengths = torch.randn(2, 5, 4), torch.tensor([5, 3])
    assert not torch.equal(lstm(x, lengths)[0], lstm(x, lengths)[0])
    lstm.eval()
    assert torch.equal(lstm(x, lengths)[0], lstm(x, lengths)[0])


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([0, 3], r"between 1 and 4, got \[0, 3\]"),
        ([5, 3], r"between 1 and 4, got \[5, 3\]"),
        ([3], r"lengths are \(1,\), expected \(2,\)"),
    ],
)
def test_wrong_lengths_are_refused(lengths, message):
    with pytest.raises(ValueError, match=message):
        PackedLSTM(3, 4)(torch.randn(2, 4, 3), torch.tensor(lengths))


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match=r"x is \(2, 4, 5\), expected \(batch, time, 3\)"):
        PackedLSTM(3, 4)(torch.randn(2, 4, 5), torch.tensor([1, 2]))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("bidirectional", [False, True])
def test_cuda_equals_the_cpu(bidirectional):
    torch.manual_seed(0)
    torch.backends.cudnn.allow_tf32 = False
    lstm = PackedLSTM(20, 32, 2, bidirectional=bidirectional)
    lengths = torch.tensor([4, 30, 1, 17])
    x = torch.randn(4, 30, 20)
    expected = flatten(lstm(x, lengths))
    actual = flatten(lstm.cuda()(x.cuda(), lengths))
    for one, other in zip(actual, expected, strict=True):
        assert torch.allclose(one.cpu(), other, atol=1e-5)


def test_the_cell_state_sums_small_parts_in_bf16():
    """1,000 parts of 0.001, where a sum in bf16 stands still at 0.5."""
    lstm = PackedLSTM(1, 16, bidirectional=True)
    gates = {"i": 20.0, "f": 20.0, "g": math.atanh(0.001), "o": 20.0}
    with torch.no_grad():
        for name, parameter in lstm.named_parameters():
            parameter.zero_()
            if name.startswith("bias_ih"):
                parameter.copy_(torch.tensor(list(gates.values())).repeat_interleave(16))
    with torch.autocast("cpu", torch.bfloat16):
        output, (_, c) = lstm(torch.zeros(2, 1000, 1), torch.tensor([1000, 500]))
    assert torch.allclose(c.float(), torch.tensor([1.0, 0.5]).view(1, 2, 1), rtol=0.01)
    assert torch.allclose(output[0, -1, :16].float(), torch.tensor(1.0).tanh(), rtol=0.01)
