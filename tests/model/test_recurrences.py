"""LSTM, GRU and plain RNN on padded batches, against torch's own and the equations."""

import math
from dataclasses import fields

import pytest
import torch
from helpers.recurrences import make_classifier, run, run_with_gradients
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sentiment.model import PackedGRU, PackedLSTM, PackedRNN, ReferenceLSTM, packed_gru
from sentiment.model.reference_lstm import Gates
from sentiment.model.rnn_base import VariableLengthRNN

KINDS = {
    "lstm": (PackedLSTM, nn.LSTM),
    "gru": (PackedGRU, nn.GRU),
    "rnn": (PackedRNN, nn.RNN),
    "reference": (ReferenceLSTM, nn.LSTM),
}
PACKED = ("lstm", "gru", "rnn")
LENGTHS = torch.tensor([4, 9, 1, 6])
each_kind = pytest.mark.parametrize("kind", KINDS)
each_packed = pytest.mark.parametrize("kind", PACKED)


def make_pair(kind: str, input_size: int, hidden_size: int, **shape):
    ours, theirs = KINDS[kind]
    oracle = theirs(input_size, hidden_size, batch_first=True, **shape)
    model = ours(input_size, hidden_size, **shape)
    model.load_state_dict(oracle.state_dict())
    return oracle, model


def make_initial(kind: str, *shape: int, **options) -> list[torch.Tensor]:
    return [torch.randn(shape, **options) for _ in range(1 if kind in ("gru", "rnn") else 2)]


def assert_equal_to_oracle(oracle, model, x, lengths, initial=()):
    expected, expected_gradients = run_with_gradients(oracle, x, lengths, initial)
    results, gradients = run_with_gradients(model, x, lengths, initial)
    for actual, wanted in zip(results, expected, strict=True):
        assert actual.shape == wanted.shape
        assert (actual - wanted).abs().max() <= 1e-6
    for actual, wanted in zip(gradients, expected_gradients, strict=True):
        assert (actual - wanted).norm() <= 1e-5 * wanted.norm() + 1e-6
    padding = torch.arange(x.shape[1]) >= lengths.unsqueeze(1)
    assert results[0][padding].eq(0).all()
    assert gradients[0][padding].eq(0).all(), "no gradient may reach the padding"


@pytest.mark.parametrize(
    ("kind", "with_onednn"), [("lstm", False), *((kind, True) for kind in KINDS)]
)
@settings(max_examples=15)
@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=6),
    spare=st.integers(0, 2),
    num_layers=st.integers(1, 3),
    bidirectional=st.booleans(),
    with_initial=st.booleans(),
    rows_per_block=st.integers(1, 40),
    sizes=st.tuples(st.integers(1, 7), st.integers(1, 9)),
    seed=st.integers(0, 2**16),
)
def test_equals_the_packed_sequence(
    kind, with_onednn, lengths, spare, num_layers, bidirectional, with_initial, rows_per_block,
    sizes, seed,
):  # fmt: skip
    torch.manual_seed(seed)
    oracle, model = make_pair(kind, *sizes, num_layers=num_layers, bidirectional=bidirectional)
    x = torch.randn(len(lengths), max(lengths) + spare, sizes[0], requires_grad=True)
    shape = num_layers * model.directions, len(lengths), sizes[1]
    initial = make_initial(kind, *shape, requires_grad=True) if with_initial else []
    with pytest.MonkeyPatch.context() as patch, torch.backends.mkldnn.flags(enabled=with_onednn):
        patch.setattr(packed_gru, "_ROWS_PER_BLOCK", rows_per_block)
        assert_equal_to_oracle(oracle, model, x, torch.tensor(lengths), initial)


@each_packed
def test_equals_the_packed_sequence_at_the_size_it_is_used(kind):
    torch.manual_seed(0)
    oracle, model = make_pair(kind, 100, 256, bidirectional=True)
    lengths = torch.randint(1, 41, (16,))
    x = torch.randn(16, int(lengths.max()), 100, requires_grad=True)
    assert_equal_to_oracle(oracle, model, x, lengths)


def test_large_weights_do_not_wake_the_padding():
    """The padding is held by saturated gates; weights far beyond trained ones must not free it."""
    torch.manual_seed(0)
    oracle, model = make_pair("lstm", 20, 30, bidirectional=True)
    with torch.no_grad():
        for parameter in oracle.parameters():
            parameter.copy_(3 * torch.randn_like(parameter))
    model.load_state_dict(oracle.state_dict())
    x, lengths = torch.randn(4, 30, 20), torch.tensor([1, 5, 30, 17])
    ours, theirs = run(model, x, lengths), run(oracle, x, lengths)
    exact = run(oracle.double(), x.double(), lengths)
    for actual, rounded, wanted in zip(ours, theirs, exact, strict=True):
        # Such weights amplify rounding: nn.LSTM's own error is the scale.
        assert (actual - wanted).abs().max() <= 3 * (rounded - wanted).abs().max() + 1e-6


def test_the_lstm_computes_in_fp64_by_torch():
    torch.manual_seed(0)
    oracle, model = make_pair("lstm", 5, 7, num_layers=2, bidirectional=True)
    x = torch.randn(4, 9, 5, dtype=torch.float64)
    results, expected = (run(each.double(), x, LENGTHS) for each in (model, oracle))
    for actual, wanted in zip(results, expected, strict=True):
        assert torch.allclose(actual, wanted, atol=1e-12)


@each_kind
@pytest.mark.parametrize("content", [1e30, float("nan"), float("inf")])
def test_values_of_the_padding_are_not_read(kind, content):
    torch.manual_seed(0)
    _, model = make_pair(kind, 5, 8, num_layers=2, bidirectional=True)
    x = torch.randn(4, 9, 5)
    dirty = x.masked_fill((torch.arange(9) >= LENGTHS.unsqueeze(1)).unsqueeze(2), content)
    dirty.requires_grad_()
    results = run(model, dirty, LENGTHS)
    for actual, wanted in zip(results, run(model, x, LENGTHS), strict=True):
        assert torch.equal(actual, wanted)
    results[0].sum().backward()
    assert dirty.grad.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@each_packed
@pytest.mark.parametrize("with_initial", [False, True])
def test_errors_under_autocast_are_those_of_the_packed_sequence(kind, with_initial):
    """Of results, and of gradients, which stay in fp32."""
    torch.manual_seed(0)
    oracle, model = make_pair(kind, 50, 64, bidirectional=True)
    lengths = torch.randint(20, 41, (8,))
    x = torch.randn(8, 40, 50, requires_grad=True)
    initial = make_initial(kind, 2, 8, 64, requires_grad=True) if with_initial else []
    exact = run_with_gradients(oracle, x, lengths, initial)
    with torch.autocast("cpu", torch.bfloat16):
        theirs = run_with_gradients(oracle, x, lengths, initial)
        ours = run_with_gradients(model, x, lengths, initial)
        assert run(model, x, lengths)[0].dtype == torch.bfloat16
    assert all(gradient.dtype == torch.float32 for gradient in ours[1])

    @torch.no_grad()
    def error(parts):
        return [
            sum(float((a - b).norm() / b.norm()) for a, b in zip(part, exact_part, strict=True))
            for part, exact_part in zip(parts, exact, strict=True)
        ]

    for our_error, their_error in zip(error(ours), error(theirs), strict=True):
        assert our_error <= 1.5 * their_error + 1e-6


@each_packed
def test_a_retained_graph_can_be_used_again(kind):
    torch.manual_seed(0)
    _, model = make_pair(kind, 5, 7, bidirectional=True)
    total = run(model, torch.randn(4, 9, 5), LENGTHS)[0].sum()
    parameters = list(model.parameters())
    first = torch.autograd.grad(total, parameters, retain_graph=True)
    for one, other in zip(first, torch.autograd.grad(total, parameters), strict=True):
        assert torch.equal(one, other)


@each_packed
def test_frozen_weights_and_unused_results_do_not_change_other_gradients(kind):
    torch.manual_seed(0)
    oracle, model = make_pair(kind, 5, 7, bidirectional=True)
    x = torch.randn(4, 9, 5)
    for each in (oracle, model):
        each.weight_hh_l0.requires_grad_(False)
        for result in run(each, x, LENGTHS):
            result.sum().backward(retain_graph=True)
    assert model.weight_hh_l0.grad is None
    for one, other in zip(model.parameters(), oracle.parameters(), strict=True):
        if one.requires_grad:
            assert torch.allclose(one.grad, other.grad, atol=1e-5)


@each_packed
def test_results_are_the_same_without_gradients(kind):
    torch.manual_seed(0)
    _, model = make_pair(kind, 5, 7, num_layers=2, bidirectional=True)
    x = torch.randn(4, 9, 5)
    expected = run(model, x, LENGTHS)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            for actual, wanted in zip(run(model, x, LENGTHS), expected, strict=True):
                assert torch.equal(actual, wanted)


@each_kind
def test_dropout_between_layers_only_in_training(kind):
    torch.manual_seed(0)
    model = KINDS[kind][0](4, 16, 2, dropout=0.5)
    x = torch.randn(4, 9, 4)
    assert not torch.equal(run(model, x, LENGTHS)[0], run(model, x, LENGTHS)[0])
    model.eval()
    assert torch.equal(run(model, x, LENGTHS)[0], run(model, x, LENGTHS)[0])


@each_kind
@pytest.mark.parametrize(
    ("features", "lengths", "num_states", "message"),
    [
        (3, [0, 3], 2, r"lengths must be from 1 to 4, but are \[0, 3\]"),
        (3, [5, 3], 2, r"lengths must be from 1 to 4, but are \[5, 3\]"),
        (3, [3], 2, r"lengths are \(1,\), expected \(2,\)"),
        (5, [1, 2], 2, r"x is \(2, 4, 5\), expected \(batch, time, 3\)"),
        (3, [4, 3], 3, r"initial states are \(1, 3, 4\), expected \(1, 2, 4\)"),
    ],
)
def test_a_batch_that_does_not_fit_is_refused(kind, features, lengths, num_states, message):
    model = KINDS[kind][0](3, 4)
    initial = make_initial(kind, 1, num_states, 4)
    with pytest.raises(ValueError, match=message):
        run(model, torch.randn(2, 4, features), torch.tensor(lengths), initial)


@each_packed
@pytest.mark.parametrize("with_initial", [False, True])
def test_packed_by_index_equals_torchs_packing(kind, with_initial, monkeypatch):
    """What runs on a GPU, here by the CPU's kernel for a ``PackedSequence``."""
    torch.manual_seed(0)
    monkeypatch.setattr(KINDS[kind][0], "forward", VariableLengthRNN.run_cudnn)
    theirs, model = make_pair(kind, 5, 4, num_layers=2, bidirectional=True)
    x = torch.randn(4, 9, 5, requires_grad=True)
    initial = make_initial(kind, 4, 4, 4, requires_grad=True) if with_initial else []
    results = run(model, x, LENGTHS, initial), run(theirs, x, LENGTHS, initial)
    for actual, wanted in zip(*results, strict=True):
        assert torch.equal(actual, wanted)
    assert_equal_to_oracle(theirs, model, x, LENGTHS, initial)


@pytest.mark.cuda
@each_packed
@pytest.mark.parametrize("with_initial", [False, True])
def test_cuda_equals_the_cpu(kind, with_initial, monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    _, model = make_pair(kind, 20, 32, num_layers=2, bidirectional=True)
    x = torch.randn(4, 9, 20)
    initial = make_initial(kind, 4, 4, 32) if with_initial else []
    expected = run(model, x, LENGTHS, initial)
    results = run(model.cuda(), x.cuda(), LENGTHS, [state.cuda() for state in initial])
    for actual, wanted in zip(results, expected, strict=True):
        assert torch.allclose(actual.cpu(), wanted, atol=1e-5)


def test_the_cell_state_sums_small_parts_in_bf16():
    """1,000 parts of 0.001, where a sum in bf16 stops at 0.5."""
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


@each_packed
def test_learned_initial_states_start_at_zero_and_are_the_same_for_all(kind):
    plain = make_classifier(cell=kind, pooling="last").eval()
    model = make_classifier(cell=kind, pooling="last", learned_initial_state=True)
    missing = model.eval().load_state_dict(plain.state_dict(), strict=False).missing_keys
    names = ["h", "c"] if kind == "lstm" else ["h"]
    assert missing == [f"initial_states.{name}" for name in names]
    tokens = torch.randint(1, 9, (4, 9))
    expected = plain(tokens, LENGTHS)
    assert torch.allclose(model(tokens, LENGTHS), expected, atol=1e-6)
    model(tokens, LENGTHS).logsumexp(dim=1).sum().backward()
    with torch.no_grad():
        for parameter in model.initial_states.parameters():
            assert parameter.grad.abs().sum(dim=1).gt(0).all(), "each direction learns its own"
            parameter.normal_()
    changed = model(tokens, LENGTHS)
    assert not torch.allclose(changed, expected, atol=1e-3)
    assert torch.allclose(model(tokens[2:], LENGTHS[2:]), changed[2:], atol=1e-6)


TRACED = torch.tensor([3, 7, 1, 5])


def previous(states: torch.Tensor, initial: torch.Tensor, *, reverse: bool) -> torch.Tensor:
    """The state before each word: that of the previous word, or of the next one in reverse."""
    before = torch.empty_like(states)
    for row, length in enumerate(TRACED.tolist()):
        for t in range(states.shape[1]):
            t_before = t + 1 if reverse else t - 1
            is_word = 0 <= t_before < length
            before[row, t] = states[row, t_before] if is_word else initial[row]
    return before


@pytest.mark.parametrize("with_initial", [False, True])
def test_the_trace_holds_the_equations(with_initial):
    torch.manual_seed(0)
    lstm = ReferenceLSTM(5, 8, 2, bidirectional=True).double()
    x = torch.randn(4, 7, 5, dtype=torch.float64)
    draw = torch.randn if with_initial else torch.zeros
    initial = draw(4, 4, 8, dtype=torch.float64), draw(4, 4, 8, dtype=torch.float64)
    layers = lstm.trace(x, TRACED, initial)
    padding = torch.arange(7) >= TRACED.unsqueeze(1)
    for layer, directions in enumerate(layers):
        for direction, gates in enumerate(directions):
            number = 2 * layer + direction
            for field in fields(Gates):
                values = getattr(gates, field.name)
                assert values.shape == (4, 7, 8)
                assert values[padding].eq(0).all()
            c = previous(gates.cell, initial[1][number], reverse=direction == 1)
            cell = gates.forget * c + gates.input * gates.candidate
            assert torch.allclose(gates.cell[~padding], cell[~padding], atol=1e-12)
            assert torch.allclose(gates.hidden, gates.output * gates.cell.tanh(), atol=1e-12)
            h = previous(gates.hidden, initial[0][number], reverse=direction == 1)
            W, U, b, d = lstm.layer_weights(layer)[4 * direction : 4 * direction + 4]
            sums = x @ W.T + b + h @ U.T + d
            for name, part in zip(
                ("input", "forget", "candidate", "output"), sums.chunk(4, dim=2), strict=True
            ):
                wanted = part.tanh() if name == "candidate" else part.sigmoid()
                assert torch.allclose(getattr(gates, name)[~padding], wanted[~padding], atol=1e-12)
        x = torch.cat([gates.hidden for gates in directions], dim=2)
