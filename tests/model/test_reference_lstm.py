"""ReferenceLSTM against nn.LSTM on the PackedSequence, PackedLSTM and the equations by hand."""

from __future__ import annotations

import math
from dataclasses import fields

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from sentiment.model import PackedLSTM
from sentiment.model.reference_lstm import Gates, ReferenceLSTM, lstm_cell

LENGTHS = torch.tensor([3, 7, 1, 5])


def run_oracle(lstm: nn.LSTM, x: torch.Tensor, lengths: torch.Tensor, initial=None):
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    output, states = lstm(packed, initial)
    return pad_packed_sequence(output, batch_first=True, total_length=x.shape[1])[0], states


def flatten(result):
    output, (h, c) = result
    return output, h, c


def results_and_gradients(result, leaves):
    """What came out, and the gradients of a fixed weighing of all of it."""
    generator = torch.Generator().manual_seed(7)
    weights = [torch.randn(each.shape, generator=generator).to(each) for each in flatten(result)]
    total = sum((a * b).sum() for a, b in zip(flatten(result), weights, strict=True))
    return [*flatten(result), *torch.autograd.grad(total, leaves)]


@settings(max_examples=15, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    spare=st.integers(0, 2),
    num_layers=st.integers(1, 3),
    bidirectional=st.booleans(),
    with_initial=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_equals_torch_and_the_packed_lstm(
    lengths, spare, num_layers, bidirectional, with_initial, seed
):
    torch.manual_seed(seed)
    theirs = nn.LSTM(4, 6, num_layers, batch_first=True, bidirectional=bidirectional)
    ours = ReferenceLSTM(4, 6, num_layers, bidirectional=bidirectional)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(len(lengths), max(lengths) + spare, 4, requires_grad=True)
    shape = (num_layers * ours.directions, len(lengths), 6)
    initial = [torch.randn(shape, requires_grad=True) for _ in range(2)] if with_initial else []
    lengths = torch.tensor(lengths)
    start = tuple(initial) or None
    actual = results_and_gradients(ours(x, lengths, start), [x, *initial, *ours.parameters()])
    wanted = results_and_gradients(
        run_oracle(theirs, x, lengths, start), [x, *initial, *theirs.parameters()]
    )
    for one, other in zip(actual, wanted, strict=True):
        assert torch.allclose(one, other, atol=1e-5, rtol=1e-4)


def test_equals_the_packed_lstm_with_its_weights():
    torch.manual_seed(0)
    packed = PackedLSTM(5, 8, 2, bidirectional=True)
    reference = ReferenceLSTM(5, 8, 2, bidirectional=True)
    reference.load_state_dict(packed.state_dict())
    packed.load_state_dict(reference.state_dict())
    x = torch.randn(4, 7, 5, requires_grad=True)
    ours = results_and_gradients(reference(x, LENGTHS), [x, *reference.parameters()])
    theirs = results_and_gradients(packed(x, LENGTHS), [x, *packed.parameters()])
    for one, other in zip(ours, theirs, strict=True):
        assert torch.allclose(one, other, atol=1e-5, rtol=1e-4)


def test_a_step_by_pencil():
    """One unit, one input, all in Python's own arithmetic."""

    def sigmoid(value: float) -> float:
        return 1 / (1 + math.exp(-value))

    x, h, c = 0.7, -0.2, 0.5
    W, U, b, d = [0.1, -0.3, 0.8, 0.4], [0.6, 0.2, -0.5, 0.9], [0.0, 1.0, 0.1, -0.1], [0.2] * 4
    sums = [W[k] * x + b[k] + U[k] * h + d[k] for k in range(4)]
    i, f, g, o = sigmoid(sums[0]), sigmoid(sums[1]), math.tanh(sums[2]), sigmoid(sums[3])
    cell = f * c + i * g
    wanted = {
        "forget": f, "input": i, "candidate": g, "output": o,
        "cell": cell, "hidden": o * math.tanh(cell),
    }  # fmt: skip
    column = [torch.tensor(each, dtype=torch.float64).unsqueeze(1) for each in (W, U)]
    row = [torch.tensor(each, dtype=torch.float64) for each in (b, d)]
    start = [torch.full((1, 1), each, dtype=torch.float64) for each in (x, h, c)]
    gates = lstm_cell(*start, [*column, *row])
    for name, value in wanted.items():
        assert getattr(gates, name).item() == pytest.approx(value, abs=1e-15)


def test_gradients_are_those_of_finite_differences():
    torch.manual_seed(0)
    lstm = ReferenceLSTM(2, 3, 2, bidirectional=True).double()
    lengths = torch.tensor([1, 3])
    x = torch.randn(2, 3, 2, dtype=torch.float64, requires_grad=True)
    h, c = (torch.randn(4, 2, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    parameters = list(lstm.parameters())
    assert torch.autograd.gradcheck(
        lambda x, h, c, *_: flatten(lstm(x, lengths, (h, c))), (x, h, c, *parameters)
    )


def previous(states: torch.Tensor, initial: torch.Tensor, *, reverse: bool) -> torch.Tensor:
    """What each word meets: the state of the word before, or after in reverse."""
    met = torch.empty_like(states)
    for row, length in enumerate(LENGTHS.tolist()):
        for t in range(states.shape[1]):
            t_before = t + 1 if reverse else t - 1
            is_main = not 0 <= t_before < length
            met[row, t] = initial[row] if is_main else states[row, t_before]
    return met


@pytest.mark.parametrize("with_initial", [False, True])
def test_the_trace_holds_the_equations(with_initial):
    torch.manual_seed(0)
    lstm = ReferenceLSTM(5, 8, 2, bidirectional=True).double()
    x = torch.randn(4, 7, 5, dtype=torch.float64)
    draw = torch.randn if with_initial else torch.zeros
    initial = draw(4, 4, 8, dtype=torch.float64), draw(4, 4, 8, dtype=torch.float64)
    layers = lstm.trace(x, LENGTHS, initial)
    padding = torch.arange(7) >= LENGTHS.unsqueeze(1)
    for layer, of_layer in enumerate(layers):
        for direction, gates in enumerate(of_layer):
            number = 2 * layer + direction
            for each in fields(Gates):
                values = getattr(gates, each.name)
                assert values.shape == (4, 7, 8)
                assert values[padding].eq(0).all()
            before = previous(gates.cell, initial[1][number], reverse=direction == 1)
            cell = gates.forget * before + gates.input * gates.candidate
            assert torch.allclose(gates.cell[~padding], cell[~padding], atol=1e-12)
            assert torch.allclose(gates.hidden, gates.output * gates.cell.tanh(), atol=1e-12)
            met = previous(gates.hidden, initial[0][number], reverse=direction == 1)
            W, U, b, d = lstm.layer_weights(layer)[4 * direction : 4 * direction + 4]
            sums = x @ W.T + b + met @ U.T + d
            for name, part in zip(
                ("input", "forget", "candidate", "output"), sums.chunk(4, dim=2), strict=True
            ):
                wanted = part.tanh() if name == "candidate" else part.sigmoid()
                assert torch.allclose(getattr(gates, name)[~padding], wanted[~padding], atol=1e-12)
        x = torch.cat([gates.hidden for gates in of_layer], dim=2)
    output, (h, c) = lstm(torch.zeros_like(x[..., :5]), LENGTHS)
    assert output.shape == (4, 7, 16)
    assert h.shape == c.shape == (4, 4, 8)


def test_the_trace_ends_in_the_final_states():
    torch.manual_seed(0)
    lstm = ReferenceLSTM(5, 8, bidirectional=True)
    x = torch.randn(4, 7, 5)
    output, (h, c) = lstm(x, LENGTHS)
    ((forward, reverse),) = lstm.trace(x, LENGTHS)
    assert torch.equal(output, torch.cat((forward.hidden, reverse.hidden), dim=2))
    last = torch.arange(4), LENGTHS - 1
    assert torch.equal(h, torch.stack((forward.hidden[last], reverse.hidden[:, 0])))
    assert torch.equal(c, torch.stack((forward.cell[last], reverse.cell[:, 0])))


@pytest.mark.parametrize("content", [1e30, float("nan"), float("inf")])
def test_what_the_padding_holds_is_not_read(content):
    torch.manual_seed(0)
    lstm = ReferenceLSTM(5, 8, 2, bidirectional=True)
    x = torch.randn(4, 7, 5)
    dirty = x.masked_fill((torch.arange(7) >= LENGTHS.unsqueeze(1)).unsqueeze(2), content)
    dirty.requires_grad_()
    output, _ = lstm(dirty, LENGTHS)
    assert torch.equal(output, lstm(x, LENGTHS)[0])
    output.sum().backward()
    assert dirty.grad.isfinite().all()
    assert all(each.grad.isfinite().all() for each in lstm.parameters())


def test_dropout_between_layers_only_in_training():
    torch.manual_seed(0)
    lstm = ReferenceLSTM(4, 16, 2, dropout=0.5)
    x = torch.randn(4, 7, 4)
    assert not torch.equal(lstm(x, LENGTHS)[0], lstm(x, LENGTHS)[0])
    lstm.eval()
    assert torch.equal(lstm(x, LENGTHS)[0], lstm(x, LENGTHS)[0])


def test_a_batch_that_does_not_fit_is_refused():
    lstm = ReferenceLSTM(3, 4)
    with pytest.raises(ValueError, match=r"x is \(2, 4, 5\), expected \(batch, time, 3\)"):
        lstm(torch.randn(2, 4, 5), torch.tensor([1, 2]))
    with pytest.raises(ValueError, match=r"between 1 and 4, got \[5, 3\]"):
        lstm.trace(torch.randn(2, 4, 3), torch.tensor([5, 3]))
