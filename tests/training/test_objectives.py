"""Terms beside the supervised loss: against reviews taken one by one, with autograd alone."""

from __future__ import annotations

import itertools

import pytest
import torch
from helpers.objectives import (
    CPU,
    LABELLED,
    NORM,
    SIZE,
    UNLABELLED,
    Alone,
    expected_loss,
    learn,
    make_model,
)
from torch import nn

from sentiment.config.config import (
    Config,
    DataConfig,
    ModelConfig,
    ObjectivesConfig,
    TrainingConfig,
)
from sentiment.data.batches import EncodedCorpus, EndlessBatches
from sentiment.data.pipeline import reads_unlabelled
from sentiment.model import SentimentClassifier
from sentiment.runtime.distributed import DistributedContext
from sentiment.training.adversarial import (
    FixedDropoutForward,
    divergence,
    entropy,
    random_directions,
    review_seeds,
    scale_reviews,
)
from sentiment.training.objectives import CombinedObjective, TermSums, build_mixture


def make_config(*, smoothing: float = 0.0, batches: int = 1, **objectives) -> Config:
    return Config(
        data=DataConfig(max_length=10),
        model=ModelConfig(embedding_size=SIZE, hidden_size=3),
        training=TrainingConfig(
            batch_size=3, label_smoothing=smoothing, accumulation_steps=batches
        ),
        objectives=ObjectivesConfig(perturbation_norm=NORM, **objectives),
    )


def make_mixture(
    model: SentimentClassifier, config: Config, unlabelled: EncodedCorpus | None = UNLABELLED
) -> CombinedObjective:
    mixture = build_mixture(
        model,
        unlabelled,
        config,
        device=CPU,
        precision=torch.float32,
        distributed=DistributedContext(),
    )
    assert mixture is not None
    return mixture


TERMS = {
    "adversarial": {"adversarial": 0.8},
    "virtual adversarial": {"virtual_adversarial": 0.6},
    "virtual adversarial by the power method": {"virtual_adversarial": 0.6, "power_iterations": 2},
    "entropy": {"entropy": 0.3},
    "adversarial and entropy": {"adversarial": 0.8, "entropy": 3.0},  # pulls some the other way
    "all": {"adversarial": 0.8, "virtual_adversarial": 0.6, "entropy": 0.3},
}


@pytest.mark.parametrize("terms", TERMS)
@pytest.mark.parametrize(("num_classes", "smoothing"), [(2, 0.0), (2, 0.2), (3, 0.2)])
@pytest.mark.parametrize("with_unlabelled", [True, False])
def test_an_update_equals_its_reviews_one_by_one(terms, num_classes, smoothing, with_unlabelled):
    model = make_model(num_classes)
    config = make_config(smoothing=smoothing, batches=2, **TERMS[terms])
    mixture = make_mixture(model, config, UNLABELLED if with_unlabelled else None)
    groups = [torch.tensor([0, 5, 1]), torch.tensor([3, 2])]  # longest first, and unequal
    loss = learn(mixture, groups)
    rows = [(LABELLED, int(index)) for index in torch.cat(groups)]
    if with_unlabelled:
        others = [mixture.portions._batches.batch(number) for number in range(2)]
        rows += [(UNLABELLED, int(index)) for index in torch.cat(others)]
        assert len(rows) > 5
    alone = Alone(model)
    expected = expected_loss(alone, config, rows, mixture._seed)
    expected.backward()
    assert loss == pytest.approx(float(expected.detach()), rel=1e-5)
    largest = max(float(each.abs().max()) for each in alone.gradients().values())
    for name, gradient in alone.gradients().items():
        own = dict(model.named_parameters())[name].grad
        assert torch.allclose(own.double(), gradient, atol=1e-4 * largest), name


def test_moves_have_their_norm_and_leave_the_padding_alone():
    model = make_model()
    mixture = make_mixture(model, make_config(adversarial=1.0, virtual_adversarial=1.0))
    (labelled, *_) = mixture.portions.of_update(0, LABELLED, [torch.tensor([0, 1, 2])])
    words = model.embed(labelled.batch.tokens).detach().requires_grad_()
    passes = FixedDropoutForward(model, labelled.batch.lengths, CPU, torch.float32)
    here = mixture._learn_here(labelled, passes, words)
    moves = mixture._find_moves(labelled, passes, words, here)
    assert set(moves) == {"adversarial", "virtual_adversarial"}
    for move in moves.values():
        assert move.flatten(1).norm(dim=1).tolist() == pytest.approx([NORM] * 3)
        for row, length in enumerate(labelled.batch.lengths):
            assert move[row, length:].count_nonzero() == 0
            assert move[row, :length].count_nonzero() > 0
        assert not move.requires_grad, "moves are constants"


def test_scaling_reviews():
    directions = torch.randn(4, 5, 3)
    directions[1] *= 1e-30  # whose squares are 0 in fp32
    directions[2] = 0
    lengths = torch.tensor([5, 2, 4, 1])
    scaled = scale_reviews(directions, lengths, 2.0)
    assert scaled.flatten(1).norm(dim=1).tolist() == pytest.approx([2, 2, 0, 2])
    expected = directions[1, :2].double() / directions[1, :2].double().norm() * 2
    assert torch.allclose(scaled[1, :2].double(), expected, atol=1e-6)
    assert scaled[1, 2:].count_nonzero() == 0
    broken = torch.full((1, 2, 3), float("nan"))
    assert scale_reviews(broken, torch.tensor([2]), 1.0).isnan().all(), "for the guard to notice"


def test_terms_against_torchs_own():
    logits, others = torch.randn(6, 4), torch.randn(6, 4, requires_grad=True)
    own = torch.distributions.Categorical(logits=logits)
    assert torch.allclose(entropy(logits), own.entropy(), atol=1e-6)
    other = torch.distributions.Categorical(logits=others)
    expected = torch.distributions.kl_divergence(own, other)
    assert torch.allclose(divergence(logits, others), expected, atol=1e-6)
    divergence(others, logits).sum()
    reference = logits.clone().requires_grad_()
    divergence(reference, others).sum().backward()
    assert reference.grad is None and others.grad is not None


def test_a_review_draws_the_same_direction_in_any_company():
    lengths = torch.tensor([4, 2, 3])
    together = random_directions([5, 6, 7], lengths, SIZE, CPU)
    for row, (seed, length) in enumerate(zip([5, 6, 7], lengths.tolist(), strict=True)):
        alone = random_directions([seed], torch.tensor([length]), SIZE, CPU)[0]
        assert torch.equal(together[row, :length], alone)
        assert together[row, length:].count_nonzero() == 0
    indices = torch.arange(50)
    seeds = {
        (*numbers, each)
        for numbers in itertools.product((0, 1), (3, 4), (False, True))
        for each in review_seeds(indices, *numbers)
    }
    assert len({each[-1] for each in seeds}) == 8 * 50


@pytest.mark.parametrize("settings", [{"dropout": 0.5}, {"dropout": 0.5, "num_layers": 2}])
def test_all_passes_of_a_batch_are_by_one_network(settings):
    model = make_model(**settings)
    batch = LABELLED.batch(torch.tensor([0, 3, 5]))
    words = model.embed(batch.tokens).detach()
    passes = FixedDropoutForward(model, batch.lengths, CPU, torch.float32)
    first = passes.classify(words)
    torch.rand(7)
    assert torch.equal(passes.classify(words), first)
    again = FixedDropoutForward(model, batch.lengths, CPU, torch.float32)
    assert not torch.equal(again.classify(words), first), "other batches have other networks"


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_terms_of_no_weight_leave_the_supervised_gradients(dropout):
    """By passes of its own, the mixture does what one backward pass does: to the last digits."""
    model = make_model(embedding_dropout=dropout, dropout=dropout, word_dropout=dropout / 2)
    mixture = make_mixture(model, make_config(entropy=1e-30), None)
    indices = torch.tensor([0, 3, 5, 1])
    torch.manual_seed(3)
    learn(mixture, [indices])
    mixed = [each.grad.clone() for each in model.parameters()]
    model.zero_grad()
    batch = LABELLED.batch(indices)
    torch.manual_seed(3)
    nn.functional.cross_entropy(model(batch.tokens, batch.lengths), batch.labels).backward()
    for own, each in zip(mixed, model.parameters(), strict=True):
        assert torch.allclose(own, each.grad, atol=1e-7)


def test_a_frozen_embedding_stays():
    model = make_model(freeze_embedding=True)
    learn(make_mixture(model, make_config(**TERMS["all"])), [torch.tensor([0, 1])])
    assert model.embedding.weight.grad is None
    assert all(each.grad is not None for each in model.recurrence.parameters())


def test_bf16_is_near_fp32():
    gradients = []
    for precision in (torch.float32, torch.bfloat16):
        model = make_model()
        mixture = build_mixture(
            model, UNLABELLED, make_config(**TERMS["all"]), device=CPU, precision=precision,
            distributed=DistributedContext(),
        )  # fmt: skip
        learn(mixture, [torch.tensor([0, 3, 5, 1])])
        gradients.append(torch.cat([each.grad.flatten() for each in model.parameters()]))
    assert gradients[1].dtype == torch.float32
    assert 0 < (gradients[0] - gradients[1]).norm() < 0.05 * gradients[0].norm()


def test_the_terms_curves_are_means_over_reviews():
    model = make_model()
    mixture = make_mixture(model, make_config(adversarial=0.5, entropy=2.0), None)
    learn(mixture, [torch.tensor([0, 3, 5])])
    learn(mixture, [torch.tensor([1])], update=1)
    mixture.sums.begin_update()
    mixture.sums.note("entropy", torch.full((9,), 1e9))  # of an update that is skipped
    alone = Alone(model)
    values = []
    for index in (0, 3, 5, 1):
        start, length = int(LABELLED.starts[index]), int(LABELLED.lengths[index])
        words = alone.table[LABELLED.tokens[start : start + length].long()]
        values.append(float(alone.undecided(words).detach()))
    state = mixture.sums.state(DistributedContext())
    means = mixture.sums.take_means(DistributedContext())
    assert set(means) == {"adversarial", "entropy"}
    assert means["entropy"] == pytest.approx(sum(values) / 4, rel=1e-5)
    assert mixture.sums.take_means(DistributedContext()) == {"adversarial": 0, "entropy": 0}
    restored = TermSums(("adversarial", "entropy"), CPU)
    restored.restore(state, DistributedContext())
    assert restored.take_means(DistributedContext()) == means


@pytest.mark.parametrize("unit", ["reviews", "tokens"])
def test_endless_batches_are_known_by_their_number(unit):
    lengths = torch.randint(1, 20, (37,), generator=torch.Generator().manual_seed(0))
    size = 5 if unit == "reviews" else 40

    def fresh() -> EndlessBatches:
        return EndlessBatches(lengths, batch_size=size, unit=unit, seed=4)

    in_order = fresh()
    batches = [in_order.batch(number) for number in range(40)]
    jumping = fresh()
    for number in (33, 2, 39, 0, 17):
        assert torch.equal(jumping.batch(number), batches[number])
    seen = torch.cat(batches).tolist()
    assert sorted(seen[:37]) == sorted(seen[37:74]) == list(range(37)), "one pass, then another"
    assert seen[:37] != seen[37:74]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"adversarial": -1.0}, "objectives.adversarial is -1.0, but must be at least 0"),
        ({"entropy": float("inf")}, "objectives.entropy is inf, but must be at least 0 and finite"),
        ({"perturbation_norm": 0.0}, "objectives.perturbation_norm is 0.0, but must be above 0"),
        ({"finite_difference": float("nan")}, "finite_difference is nan, but must be above 0"),
        ({"power_iterations": 0}, "objectives.power_iterations is 0, but must be from 1 to 100"),
        ({"unlabelled_batch_size": 0}, "objectives.unlabelled_batch_size is 0, but must be"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        ObjectivesConfig(**settings)


def test_a_batch_of_tokens_must_hold_a_review():
    with pytest.raises(ValueError, match="unlabelled_batch_size is 50 tokens, but data.max_length"):
        Config(
            training=TrainingConfig(batch_unit="tokens", batch_size=4_000),
            objectives=ObjectivesConfig(unlabelled_batch_size=50),
        )


def test_without_terms_there_is_no_mixture():
    config = Config(objectives=ObjectivesConfig(perturbation_norm=1.0))
    made = build_mixture(
        make_model(),
        None,
        config,
        device=CPU,
        precision=torch.float32,
        distributed=DistributedContext(),
    )
    assert made is None


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, False),
        ({"adversarial": 1.0}, False),
        ({"virtual_adversarial": 0.1}, True),
        ({"entropy": 1.0}, True),
        ({"entropy": 1.0, "unlabelled": False}, False),
    ],
)
def test_reviews_without_labels_are_read_where_a_term_needs_them(settings, expected):
    assert reads_unlabelled(Config(objectives=ObjectivesConfig(**settings))) == expected
