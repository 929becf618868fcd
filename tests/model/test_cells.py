"""PackedGRU and PackedRNN against nn.GRU and nn.RNN on the PackedSequence."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from sentiment.model import PackedGRU, PackedRNN, SentimentClassifier
from sentiment.model import packed_gru as cell_loops

KINDS = {"gru": (PackedGRU, nn.GRU), "rnn": (PackedRNN, nn.RNN)}
LENGTHS = torch.tensor([4, 9, 1, 6])
each_kind = pytest.mark.parametrize("kind", KINDS)


def make_pair(kind: str, input_size: int, hidden_size: int, **shape):
    ours, theirs = KINDS[kind]
    oracle = theirs(input_size, hidden_size, batch_first=True, **shape)
    packed = ours(input_size, hidden_size, **shape)
    packed.load_state_dict(oracle.state_dict())
    return oracle, packed


def run_oracle(oracle, x: torch.Tensor, lengths: torch.Tensor, initial=None):
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    output, h = oracle(packed, initial)
    return pad_packed_sequence(output, batch_first=True, total_length=x.shape[1])[0], h


def gradients(results, leaves, weights):
    total = sum((result * weight).sum() for result, weight in zip(results, weights, strict=True))
    return torch.autograd.grad(total, leaves)


def assert_equal_to_oracle(oracle, packed, x, lengths, initial=None):
    expected, found = run_oracle(oracle, x, lengths, initial), packed(x, lengths, initial)
    for actual, wanted in zip(found, expected, strict=True):
        assert actual.shape == wanted.shape
        assert (actual - wanted).abs().max() <= 1e-6
    weights = [torch.randn_like(each) for each in expected]
    inputs = [x] if initial is None else [x, initial]
    wanted = gradients(expected, [*inputs, *oracle.parameters()], weights)
    actual = gradients(found, [*inputs, *packed.parameters()], weights)
    for one, other in zip(actual, wanted, strict=True):
        assert (one - other).norm() <= 1e-5 * other.norm() + 1e-6
    padding = torch.arange(x.shape[1]) >= lengths.unsqueeze(1)
    assert found[0][padding].eq(0).all()
    assert actual[0][padding].eq(0).all(), "no gradient may reach the padding"


@settings(max_examples=30, deadline=None)
@given(
    kind=st.sampled_from(sorted(KINDS)),
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=6),
    spare=st.integers(0, 2),
    num_layers=st.integers(1, 3),
    bidirectional=st.booleans(),
    with_initial=st.booleans(),
    rows_of_block=st.integers(1, 40),
    sizes=st.tuples(st.integers(1, 7), st.integers(1, 9)),
    seed=st.integers(0, 2**16),
)
def test_equals_the_packed_sequence(
    kind, lengths, spare, num_layers, bidirectional, with_initial, rows_of_block, sizes, seed
):
    torch.manual_seed(seed)
    oracle, packed = make_pair(kind, *sizes, num_layers=num_layers, bidirectional=bidirectional)
    x = torch.randn(len(lengths), max(lengths) + spare, sizes[0], requires_grad=True)
    shape = num_layers * packed.directions, len(lengths), sizes[1]
    initial = torch.randn(shape, requires_grad=True) if with_initial else None
    with pytest.MonkeyPatch.context() as patch:  # the blocks' borders must not matter
        patch.setattr(cell_loops, "_ROWS_OF_BLOCK", rows_of_block)
        assert_equal_to_oracle(oracle, packed, x, torch.tensor(lengths), initial)


@each_kind
def test_equals_the_packed_sequence_at_the_size_it_is_used(kind):
    torch.manual_seed(0)
    oracle, packed = make_pair(kind, 100, 256, bidirectional=True)
    lengths = torch.randint(1, 61, (32,))
    x = torch.randn(32, 60, 100, requires_grad=True)
    assert_equal_to_oracle(oracle, packed, x, lengths)


@each_kind
def test_gradients_are_those_of_finite_differences(kind):
    torch.manual_seed(0)
    _, packed = make_pair(kind, 2, 3, num_layers=2, bidirectional=True)
    packed.double()
    lengths = torch.tensor([1, 3])
    x = torch.randn(2, 3, 2, dtype=torch.float64, requires_grad=True)
    initial = torch.randn(4, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x, initial, *_: packed(x, lengths, initial), (x, initial, *packed.parameters())
    )


@each_kind
@pytest.mark.parametrize("content", [1e30, float("nan"), float("inf")])
def test_what_the_padding_holds_is_not_read(kind, content):
    torch.manual_seed(0)
    _, packed = make_pair(kind, 5, 8, num_layers=2, bidirectional=True)
    x = torch.randn(4, 9, 5)
    dirty = x.masked_fill((torch.arange(9) >= LENGTHS.unsqueeze(1)).unsqueeze(2), content)
    dirty.requires_grad_()
    output, h = packed(dirty, LENGTHS)
    for actual, wanted in zip((output, h), packed(x, LENGTHS), strict=True):
        assert torch.equal(actual, wanted)
    output.sum().backward()
    assert dirty.grad.isfinite().all()
    assert all(each.grad.isfinite().all() for each in packed.parameters())


@each_kind
def test_order_and_company_do_not_matter(kind):
    torch.manual_seed(0)
    _, packed = make_pair(kind, 6, 9, bidirectional=True)
    x = torch.randn(4, 9, 6)
    output, h = packed(x, LENGTHS)
    for permutation in itertools.permutations(range(4)):
        order = torch.tensor(permutation)
        shuffled, final = packed(x[order], LENGTHS[order])
        assert torch.allclose(shuffled, output[order], atol=1e-6)
        assert torch.allclose(final, h[:, order], atol=1e-6)
    for row, length in enumerate(LENGTHS.tolist()):
        alone, final = packed(x[row : row + 1, :length], LENGTHS[row : row + 1])
        assert torch.allclose(alone[0], output[row, :length], atol=1e-6)
        assert torch.allclose(final[:, 0], h[:, row], atol=1e-6)


@each_kind
@pytest.mark.parametrize("bidirectional", [False, True])
def test_autocast_is_no_farther_off_than_the_packed_sequence(kind, bidirectional):
    """Outputs, and gradients of the weights, which stay in fp32."""
    torch.manual_seed(0)
    oracle, packed = make_pair(kind, 50, 64, bidirectional=bidirectional)
    lengths = torch.randint(20, 41, (8,))
    x = torch.randn(8, 40, 50, requires_grad=True)
    weight = torch.randn(8, 40, 64 * packed.directions)

    def measure(run, model):
        output, h = run()
        found = torch.autograd.grad((output.float() * weight).sum(), [x, *model.parameters()])
        return [output.float(), h.float(), *found]

    exact = measure(lambda: run_oracle(oracle, x, lengths), oracle)
    with torch.autocast("cpu", torch.bfloat16):
        rough = measure(lambda: run_oracle(oracle, x, lengths), oracle)
        ours = measure(lambda: packed(x, lengths), packed)
        assert packed(x, lengths)[0].dtype == torch.bfloat16
    assert all(each.dtype == torch.float32 for each in ours)

    def distance(found):
        return sum((a - b).norm() / b.norm() for a, b in zip(found, exact, strict=True))

    assert distance(ours) <= min(distance(rough) + 1e-6, 0.02 * len(exact))


@each_kind
def test_a_retained_graph_can_be_used_again(kind):
    torch.manual_seed(0)
    _, packed = make_pair(kind, 5, 7, bidirectional=True)
    output = packed(torch.randn(4, 9, 5), LENGTHS)[0].sum()
    parameters = list(packed.parameters())
    first = torch.autograd.grad(output, parameters, retain_graph=True)
    for one, other in zip(first, torch.autograd.grad(output, parameters), strict=True):
        assert torch.equal(one, other)


@each_kind
def test_without_gradients_the_answer_is_the_same(kind):
    torch.manual_seed(0)
    _, packed = make_pair(kind, 5, 7, num_layers=2, bidirectional=True)
    x = torch.randn(4, 9, 5)
    wanted = packed(x, LENGTHS)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            for actual, expected in zip(packed(x, LENGTHS), wanted, strict=True):
                assert torch.equal(actual, expected)


@each_kind
def test_threads_share_nothing(kind):
    torch.manual_seed(0)
    _, packed = make_pair(kind, 5, 7, bidirectional=True)
    batches = [torch.randn(4, 9, 5) for _ in range(24)]
    with torch.no_grad():
        wanted = [packed(x, LENGTHS)[0] for x in batches]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda x: packed(x, LENGTHS)[0].detach(), batches))
    for one, other in zip(found, wanted, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


@each_kind
def test_dropout_between_layers_only_in_training(kind):
    torch.manual_seed(0)
    packed = KINDS[kind][0](4, 16, 2, dropout=0.5)
    x = torch.randn(4, 9, 4)
    assert not torch.equal(packed(x, LENGTHS)[0], packed(x, LENGTHS)[0])
    packed.eval()
    assert torch.equal(packed(x, LENGTHS)[0], packed(x, LENGTHS)[0])


@each_kind
def test_a_batch_that_does_not_fit_is_refused(kind):
    packed = KINDS[kind][0](3, 4)
    with pytest.raises(ValueError, match=r"between 1 and 4, got \[5, 3\]"):
        packed(torch.randn(2, 4, 3), torch.tensor([5, 3]))
    with pytest.raises(ValueError, match=r"initial states are \(1, 3, 4\), expected \(1, 2, 4\)"):
        packed(torch.randn(2, 4, 3), torch.tensor([4, 3]), torch.zeros(1, 3, 4))


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_each_cell_learns(cell):
    """Whether a word stands anywhere in a review."""
    torch.manual_seed(0)
    sizes = {"vocabulary_size": 12, "num_classes": 2, "embedding_size": 8, "hidden_size": 8}
    model = SentimentClassifier(**sizes, cell=cell, pooling="last", learned_initial_state=True)
    tokens, lengths = torch.randint(3, 12, (32, 8)), torch.randint(1, 9, (32,))
    labels = torch.arange(32) % 2
    tokens[torch.arange(32), (torch.rand(32) * lengths).long()] = 1 + labels
    optimizer = torch.optim.Adam(model.parameters(), 0.1)
    losses = []
    for _ in range(20):
        loss = nn.functional.cross_entropy(model(tokens, lengths), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 < 0.5 < losses[0]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@each_kind
def test_cuda_equals_the_cpu(kind):
    torch.manual_seed(0)
    torch.backends.cudnn.allow_tf32 = False
    _, packed = make_pair(kind, 20, 32, num_layers=2, bidirectional=True)
    x, initial = torch.randn(4, 9, 20), torch.randn(4, 4, 32)
    expected = packed(x, LENGTHS, initial)
    actual = packed.cuda()(x.cuda(), LENGTHS, initial.cuda())
    for one, other in zip(actual, expected, strict=True):
        assert torch.allclose(one.cpu(), other, atol=1e-5)
