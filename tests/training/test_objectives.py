"""Terms beside the supervised loss: against reviews taken one by one, with autograd alone."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import pytest
import torch
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

CPU = torch.device("cpu")
NUM_WORDS, SIZE = 30, 4
NORM = 0.7


def make_corpus(lengths: list[int], labels: list[int], seed: int) -> EncodedCorpus:
    generator = torch.Generator().manual_seed(seed)
    counts = torch.tensor(lengths)
    return EncodedCorpus(
        tokens=torch.randint(2, NUM_WORDS, (sum(lengths),), generator=generator, dtype=torch.int32),
        ids=torch.arange(NUM_WORDS, dtype=torch.int32),
        starts=counts.cumsum(0) - counts,
        lengths=counts,
        full_lengths=counts,
        labels=torch.tensor(labels),
    )


LABELLED = make_corpus([6, 3, 1, 5, 2, 4], [0, 1, 1, 0, 1, 0], seed=1)
UNLABELLED = make_corpus([5, 2, 7, 1, 3], [-1] * 5, seed=2)


def make_model(num_classes: int = 2, **settings) -> SentimentClassifier:
    torch.manual_seed(0)
    model = SentimentClassifier(
        vocabulary_size=NUM_WORDS, num_classes=num_classes, embedding_size=SIZE, hidden_size=3,
        **settings,
    )  # fmt: skip
    with torch.no_grad():
        model.embedding.weight[2:] *= 3  # confident here, undecided there
        model.output.weight.mul_(2)
    return model.train()


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


def learn(mixture: CombinedObjective, groups: list[torch.Tensor], update: int = 0) -> float:
    """One update's gradients; returns its loss."""
    mixture.sums.begin_update()
    portions = list(mixture.portions.of_update(update, LABELLED, groups))
    total = sum(float(mixture.add_gradients(each)[1]) for each in portions)
    mixture.sums.keep_update()
    return total


@dataclass
class Alone:
    """The oracle: one review at a time, in fp64, by ``nn.LSTM`` and autograd."""

    model: SentimentClassifier

    def __post_init__(self) -> None:
        own = self.model
        self.table = own.embedding.weight.detach().double().requires_grad_()
        self.lstm = nn.LSTM(SIZE, 3, bidirectional=True).double()
        self.lstm.load_state_dict({k: v.double() for k, v in own.recurrence.state_dict().items()})
        self.output = nn.Linear(6, own.output.out_features).double()
        self.output.load_state_dict({k: v.double() for k, v in own.output.state_dict().items()})

    def logits(self, words: torch.Tensor) -> torch.Tensor:
        """(time, embedding) to (classes,)."""
        return self.output(self.lstm(words)[0].amax(dim=0))

    def surprise(self, words: torch.Tensor, label: int, smoothing: float = 0.0) -> torch.Tensor:
        log = self.logits(words).log_softmax(0)
        return -(1 - smoothing) * log[label] - smoothing * log.mean()

    def change(self, words: torch.Tensor, move: torch.Tensor) -> torch.Tensor:
        expected = self.logits(words).log_softmax(0).detach()
        return (expected.exp() * (expected - self.logits(words + move).log_softmax(0))).sum()

    def undecided(self, words: torch.Tensor) -> torch.Tensor:
        log = self.logits(words).log_softmax(0)
        return -(log.exp() * log).sum()

    def move_against(self, words: torch.Tensor, label: int) -> torch.Tensor:
        words = words.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(self.surprise(words, label), words)
        return NORM * gradient / gradient.norm()

    def eigenvector(self, words: torch.Tensor) -> torch.Tensor:
        """The first one of the divergence's Hessian, all of which is computed."""
        words = words.detach()
        at = torch.zeros_like(words)
        hessian = torch.autograd.functional.hessian(lambda move: self.change(words, move), at)
        _, vectors = torch.linalg.eigh(hessian.reshape(words.numel(), -1))
        return NORM * vectors[:, -1].view_as(words)

    def move_most(self, words: torch.Tensor) -> torch.Tensor:
        """Along the eigenvector to where the likeliest class loses."""
        move = self.eigenvector(words)
        best = int(self.logits(words).argmax())
        small = 1e-4 * move
        rises = self.logits(words + small).softmax(0)[best] > self.logits(words).softmax(0)[best]
        return -move if rises else move

    def move_by_power(self, words: torch.Tensor, start: torch.Tensor, steps: int, step: float):
        found = start.double()
        words = words.detach()
        for _ in range(steps):
            move = (step * found / found.norm()).requires_grad_()
            (found,) = torch.autograd.grad(self.change(words, move), move)
        return NORM * found / found.norm()

    def gradients(self) -> dict[str, torch.Tensor]:
        recurrence = {f"recurrence.{k}": v.grad for k, v in self.lstm.named_parameters()}
        output = {f"output.{k}": v.grad for k, v in self.output.named_parameters()}
        return {"embedding.weight": self.table.grad, **recurrence, **output}


def expected_loss(alone: Alone, config: Config, rows: list, seed: int) -> torch.Tensor:
    """The whole loss of an update of (corpus, index) pairs, term by term from its definition."""
    weights, smoothing = config.objectives, config.training.label_smoothing
    num_labelled = sum(corpus is LABELLED for corpus, _ in rows)
    is_binary = alone.output.out_features == 2
    steps = weights.power_iterations or (0 if is_binary else 1)
    loss = torch.zeros((), dtype=torch.float64)
    for corpus, index in rows:
        length, start = int(corpus.lengths[index]), int(corpus.starts[index])
        words = alone.table[corpus.tokens[start : start + length].long()]
        label = int(corpus.labels[index])
        is_labelled = corpus is LABELLED
        if is_labelled:
            loss = loss + alone.surprise(words, label, smoothing) / num_labelled
            moved = words + alone.move_against(words, label)
            weight = weights.adversarial / num_labelled
            loss = loss + weight * alone.surprise(moved, label, smoothing)
        loss = loss + weights.entropy * alone.undecided(words) / len(rows)
        if weights.virtual_adversarial > 0 and steps:
            seeds = review_seeds(torch.tensor([index]), seed, 0, is_labelled)
            drawn = random_directions(seeds, torch.tensor([length]), SIZE, CPU)[0]
            move = alone.move_by_power(words, drawn, steps, weights.finite_difference)
            loss = loss + weights.virtual_adversarial * alone.change(words, move) / len(rows)
        elif weights.virtual_adversarial > 0:
            move = alone.move_most(words)
            loss = loss + weights.virtual_adversarial * alone.change(words, move) / len(rows)
    return loss


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
        ({"adversarial": -1.0}, "objectives.adversarial is -1.0, but must be >= 0"),
        ({"entropy": float("inf")}, "objectives.entropy is inf, but must be >= 0 and finite"),
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
