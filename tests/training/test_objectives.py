"""Terms beside the labels' loss, against reviews taken one by one with autograd alone."""

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
    make_learner,
    make_model,
)
from torch import nn

from sentiment.config.config import (
    Config,
    DataConfig,
    DistillationConfig,
    ModelConfig,
    ObjectivesConfig,
    TrainingConfig,
)
from sentiment.data.batches import EndlessBatches
from sentiment.model import SentimentClassifier
from sentiment.runtime.distributed import DistributedContext
from sentiment.training.meters import TermMeter
from sentiment.training.objectives import (
    fixed_dropout,
    random_directions,
    review_seeds,
    scale_reviews,
)

ALONE = DistributedContext()


def make_config(
    *,
    smoothing: float = 0.0,
    batches: int = 1,
    distillation: dict[str, float] | None = None,
    class_weights: dict[str, float] | None = None,
    **objectives,
) -> Config:
    teachers = {} if distillation is None else {"teachers": ("one",), **distillation}
    return Config(
        data=DataConfig(max_length=10),
        model=ModelConfig(embedding_size=SIZE, hidden_size=3),
        training=TrainingConfig(
            batch_size=3,
            label_smoothing=smoothing,
            accumulation_steps=batches,
            class_weights=class_weights,
        ),
        objectives=ObjectivesConfig(**{"perturbation_norm": NORM, **objectives}),
        distillation=DistillationConfig(**teachers),
    )


def soft_labels_of(num_classes: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(7)
    return (2 * torch.randn(len(UNLABELLED), num_classes, generator=generator)).softmax(1)


TERMS = {
    "adversarial": {"adversarial": 0.8},
    "virtual adversarial": {"virtual_adversarial": 0.6},
    "virtual adversarial by the power method": {"virtual_adversarial": 0.6, "power_iterations": 2},
    "entropy": {"entropy": 0.3},
    "adversarial and entropy": {"adversarial": 0.8, "entropy": 3.0},  # pulls some the other way
    "all": {"adversarial": 0.8, "virtual_adversarial": 0.6, "entropy": 0.3},
    "weighted classes": {
        "adversarial": 0.8, "virtual_adversarial": 0.6, "entropy": 0.3,
        "class_weights": {"c0": 5.0, "c1": 0.5},
    },
    "distillation": {"distillation": {"weight": 0.4}},
    "warm distillation": {"distillation": {"weight": 0.4, "temperature": 2.5}, "entropy": 0.3},
    "distillation and others": {
        "distillation": {"weight": 0.4, "temperature": 2.5}, "virtual_adversarial": 0.6,
        "adversarial": 0.8,
    },
}  # fmt: skip


@pytest.mark.parametrize("with_unlabelled", [True, False])
@pytest.mark.parametrize(("num_classes", "smoothing"), [(2, 0.2), (3, 0.0)])
@pytest.mark.parametrize("name", TERMS)
def test_an_update_equals_its_reviews_one_by_one(name, num_classes, smoothing, with_unlabelled):
    model, terms = make_model(num_classes), TERMS[name]
    soft_labels = soft_labels_of(num_classes) if "distillation" in terms else None
    if soft_labels is not None and not with_unlabelled:
        return  # teachers label nothing else
    config = make_config(smoothing=smoothing, batches=2, **terms)
    learner = make_learner(model, config, UNLABELLED if with_unlabelled else None, soft_labels)
    batches = [torch.tensor([0, 5, 1]), torch.tensor([3, 2])]  # longest first, and unequal
    loss = learner.learn(batches)
    rows = [
        (LABELLED if micro_batch.is_labelled else UNLABELLED, int(index))
        for micro_batch in learner.micro_batches.of_update(0, batches)[0]
        for index in micro_batch.batch.indices
    ]
    assert len(rows) == (10 if with_unlabelled else 5)
    alone = Alone(model)
    expected = expected_loss(alone, config, rows, soft_labels)
    expected.backward()
    assert loss == pytest.approx(float(expected.detach()), rel=1e-5)
    largest = max(float(each.abs().max()) for each in alone.gradients().values())
    for name, gradient in alone.gradients().items():
        found = dict(model.named_parameters())[name].grad
        assert torch.allclose(found.double(), gradient, atol=1e-4 * largest), name


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


def test_a_review_draws_the_same_direction_in_any_batch():
    lengths = torch.tensor([4, 2, 3])
    together = random_directions([5, 6, 7], lengths, SIZE, CPU)
    for row, (seed, length) in enumerate(zip([5, 6, 7], lengths.tolist(), strict=True)):
        alone = random_directions([seed], torch.tensor([length]), SIZE, CPU)[0]
        assert torch.equal(together[row, :length], alone)
        assert together[row, length:].count_nonzero() == 0
    seeds = {
        seed
        for numbers in itertools.product((0, 1), (3, 4), (False, True))
        for seed in review_seeds(torch.arange(50), *numbers)
    }
    assert len(seeds) == 8 * 50


@pytest.mark.parametrize("settings", [{"dropout": 0.5}, {"dropout": 0.5, "num_layers": 2}])
def test_all_passes_of_a_batch_drop_the_same_units(settings):
    model = make_model(**settings)
    batch = LABELLED.batch(torch.tensor([0, 3, 5]))
    words = model.embed(batch.tokens).detach()
    classify = fixed_dropout(model, batch.lengths, CPU, torch.float32)
    first = classify(words)
    torch.rand(7)
    assert torch.equal(classify(words), first)
    other = fixed_dropout(model, batch.lengths, CPU, torch.float32)
    assert not torch.equal(other(words), first)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_terms_without_weight_leave_the_supervised_gradients(dropout):
    model = make_model(embedding_dropout=dropout, dropout=dropout, word_dropout=dropout / 2)
    learner = make_learner(model, make_config(entropy=1e-30), None)
    rows = torch.tensor([0, 3, 5, 1])
    torch.manual_seed(3)
    learner.learn([rows])
    combined = [each.grad.clone() for each in model.parameters()]
    model.zero_grad()
    batch = LABELLED.batch(rows)
    torch.manual_seed(3)
    nn.functional.cross_entropy(model(batch.tokens, batch.lengths), batch.labels).backward()
    for found, parameter in zip(combined, model.parameters(), strict=True):
        assert torch.allclose(found, parameter.grad, atol=1e-7)


def test_a_frozen_embedding_stays():
    model = make_model(freeze_embedding=True)
    make_learner(model, make_config(**TERMS["all"])).learn([torch.tensor([0, 1])])
    assert model.embedding.weight.grad is None
    assert all(each.grad is not None for each in model.recurrence.parameters())


def test_bf16_is_near_fp32():
    gradients = []
    for precision in (torch.float32, torch.bfloat16):
        model = make_model()
        learner = make_learner(model, make_config(**TERMS["all"]), precision=precision)
        learner.learn([torch.tensor([0, 3, 5, 1])])
        gradients.append(torch.cat([each.grad.flatten() for each in model.parameters()]))
    assert gradients[1].dtype == torch.float32
    assert 0 < (gradients[0] - gradients[1]).norm() < 0.05 * gradients[0].norm()


@pytest.mark.parametrize(
    ("others", "num_passes"), [({}, 2), ({"entropy": 1.0}, 2), ({"virtual_adversarial": 1.0}, 4)]
)
def test_an_unlabelled_batch_is_classified_once_for_all_terms(others, num_passes, monkeypatch):
    classify, calls = SentimentClassifier.classify, []
    monkeypatch.setattr(
        SentimentClassifier, "classify", lambda *given: calls.append(1) or classify(*given)
    )
    config = make_config(distillation={}, **others)
    make_learner(make_model(), config, soft_labels=soft_labels_of(2)).learn([torch.tensor([0, 3])])
    assert len(calls) == num_passes


def test_logged_terms_are_means_over_reviews():
    model = make_model()
    learner = make_learner(model, make_config(adversarial=0.5, entropy=2.0), None)
    learner.learn([torch.tensor([0, 3, 5])])
    learner.learn([torch.tensor([1])], update=1)
    terms = learner.objective.terms
    terms.begin_update()
    terms.add("entropy", torch.full((9,), 1e9))  # of an update that is skipped
    alone = Alone(model)
    values = []
    for index in (0, 3, 5, 1):
        start, length = int(LABELLED.starts[index]), int(LABELLED.lengths[index])
        words = alone.table[LABELLED.tokens[start : start + length].long()]
        values.append(float(alone.entropy(words).detach()))
    state = terms.state(ALONE)
    means = terms.take_means(ALONE)
    assert set(means) == {"adversarial", "entropy"}
    assert means["entropy"] == pytest.approx(sum(values) / 4, rel=1e-5)
    assert terms.take_means(ALONE) == {"adversarial": 0, "entropy": 0}
    restored = TermMeter(("adversarial", "entropy"), CPU)
    restored.restore(state, ALONE)
    assert restored.take_means(ALONE) == means


@pytest.mark.parametrize(("unit", "size"), [("reviews", 5), ("tokens", 40)])
def test_endless_batches_are_known_by_their_number(unit, size):
    lengths = torch.randint(1, 20, (37,), generator=torch.Generator().manual_seed(0))
    in_order, jumping = (
        EndlessBatches(lengths, batch_size=size, unit=unit, seed=4) for _ in range(2)
    )
    batches = [in_order.batch(number) for number in range(40)]
    for number in (33, 2, 39, 0, 17):
        assert torch.equal(jumping.batch(number), batches[number])
    rows = torch.cat(batches).tolist()
    assert sorted(rows[:37]) == sorted(rows[37:74]) == list(range(37)), "one pass, then another"
    assert rows[:37] != rows[37:74]
