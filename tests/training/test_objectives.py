"""Terms beside the labels' loss, against reviews taken one by one with autograd alone."""

import itertools
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import nn

from sentiment.config.config import (
    Config,
    DataConfig,
    DistillationConfig,
    ModelConfig,
    ObjectivesConfig,
    TrainingConfig,
)
from sentiment.data.batches import EncodedCorpus, EndlessBatches
from sentiment.data.pipeline import SoftLabels, TrainingData
from sentiment.model import SentimentClassifier
from sentiment.runtime.device import mixed_seed
from sentiment.runtime.distributed import DistributedContext
from sentiment.training import objectives
from sentiment.training.context import TrainingContext
from sentiment.training.meters import TermMeter
from sentiment.training.objectives import (
    CombinedObjective,
    LabelLoss,
    MicroBatches,
    build_objective,
    fixed_dropout,
    random_directions,
    review_seeds,
    scale_reviews,
)

ALONE = DistributedContext()
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


@dataclass
class Learner:
    """An objective with its micro-batches, in the calls that a training step makes."""

    objective: CombinedObjective
    micro_batches: MicroBatches

    def learn(self, batches: list[torch.Tensor], update: int = 0) -> float:
        """Accumulate the gradients of an update; returns its loss."""
        self.objective.terms.begin_update()
        micro_batches, _ = self.micro_batches.of_update(update, batches)
        total = sum(float(self.objective.backward(each)[1]) for each in micro_batches)
        self.objective.terms.keep_update()
        return total


def make_learner(
    model: SentimentClassifier,
    config: Config,
    unlabelled: EncodedCorpus | None = UNLABELLED,
    soft_labels: SoftLabels | None = None,
    precision: torch.dtype = torch.float32,
) -> Learner:
    data = TrainingData(LABELLED, LABELLED, None, None, None, None, unlabelled=unlabelled)
    data = replace(data, soft_labels=soft_labels or SoftLabels())
    context = TrainingContext(config, Path("unused"), CPU, precision)
    names = [f"c{n}" for n in range(model.output.out_features)]
    label_loss = LabelLoss(config, LABELLED.labels, names)
    objective, micro_batches = build_objective(model, data, label_loss, context)
    assert objective is not None
    return Learner(objective, micro_batches)


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

    def label_loss(self, words: torch.Tensor, label: int, smoothing: float = 0.0) -> torch.Tensor:
        log = self.logits(words).log_softmax(0)
        return -(1 - smoothing) * log[label] - smoothing * log.mean()

    def learned_loss(
        self,
        words: torch.Tensor,
        corpus: EncodedCorpus,
        index: int,
        config: Config,
        opinions: torch.Tensor | None,
        weights: list[float],
    ) -> torch.Tensor:
        """Of the label, mixed with another model's opinion if there is one; weights by class."""
        label, smoothing = int(corpus.labels[index]), config.training.label_smoothing
        loss = weights[label] * self.label_loss(words, label, smoothing)
        if opinions is None:
            return loss
        share, log = config.distillation.labelled, self.logits(words).log_softmax(0)
        parts = zip(weights, opinions[index].tolist(), log, strict=False)
        return (1 - share) * loss - share * sum(weight * part * log for weight, part, log in parts)

    def divergence(self, words: torch.Tensor, move: torch.Tensor) -> torch.Tensor:
        expected = self.logits(words).log_softmax(0).detach()
        return (expected.exp() * (expected - self.logits(words + move).log_softmax(0))).sum()

    def entropy(self, words: torch.Tensor) -> torch.Tensor:
        log = self.logits(words).log_softmax(0)
        return -(log.exp() * log).sum()

    def move_against(self, words: torch.Tensor, label: int) -> torch.Tensor:
        words = words.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(self.label_loss(words, label), words)
        return NORM * gradient / gradient.norm()

    def eigenvector(self, words: torch.Tensor) -> torch.Tensor:
        """The first eigenvector of the divergence's Hessian, which is computed in full."""
        words = words.detach()
        at = torch.zeros_like(words)
        hessian = torch.autograd.functional.hessian(lambda move: self.divergence(words, move), at)
        _, vectors = torch.linalg.eigh(hessian.reshape(words.numel(), -1))
        return NORM * vectors[:, -1].view_as(words)

    def move_most(self, words: torch.Tensor) -> torch.Tensor:
        """Along the eigenvector, with the sign by which the likeliest class loses."""
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
            (found,) = torch.autograd.grad(self.divergence(words, move), move)
        return NORM * found / found.norm()

    def gradients(self) -> dict[str, torch.Tensor]:
        recurrence = {f"recurrence.{k}": v.grad for k, v in self.lstm.named_parameters()}
        output = {f"output.{k}": v.grad for k, v in self.output.named_parameters()}
        return {"embedding.weight": self.table.grad, **recurrence, **output}


def expected_loss(
    alone: Alone, config: Config, rows: list, soft_labels: SoftLabels
) -> torch.Tensor:
    """The loss of update 0 over (corpus, index) pairs, term by term from its definition."""
    weights = config.objectives
    seed = mixed_seed(config.seed, 2)
    num_labelled = sum(corpus is LABELLED for corpus, _ in rows)
    ratios = [(config.training.class_weights or {}).get(f"c{label}", 1) for label in range(3)]
    labels = LABELLED.labels.tolist()
    mean = sum(ratios[label] for label in labels) / len(labels)
    is_binary = alone.output.out_features == 2
    steps = weights.power_iterations or (0 if is_binary else 1)
    loss = torch.zeros((), dtype=torch.float64)
    for corpus, index in rows:
        length, start = int(corpus.lengths[index]), int(corpus.starts[index])
        words = alone.table[corpus.tokens[start : start + length].long()]
        is_labelled = corpus is LABELLED
        if is_labelled:
            moved = words + alone.move_against(words, int(corpus.labels[index]))
            for place, weight in ((words, 1), (moved, weights.adversarial)):
                learned = alone.learned_loss(
                    place, corpus, index, config, soft_labels.labelled,
                    [ratio / mean for ratio in ratios],
                )  # fmt: skip
                loss = loss + weight * learned / num_labelled
        elif soft_labels.unlabelled is not None:
            weight = config.distillation.weight / (len(rows) - num_labelled)
            temperature = config.distillation.temperature
            log = (alone.logits(words) / temperature).log_softmax(0)
            loss = (
                loss
                - weight * temperature**2 * (soft_labels.unlabelled[index].double() * log).sum()
            )
        loss = loss + weights.entropy * alone.entropy(words) / len(rows)
        if weights.virtual_adversarial > 0:
            if steps:
                seeds = review_seeds(torch.tensor([index]), seed, 0, is_labelled)
                drawn = random_directions(seeds, torch.tensor([length]), SIZE, CPU)[0]
                move = alone.move_by_power(words, drawn, steps, weights.finite_difference)
            else:
                move = alone.move_most(words)
            loss = loss + weights.virtual_adversarial * alone.divergence(words, move) / len(rows)
    return loss


def make_config(
    *,
    smoothing: float = 0.0,
    batches: int = 1,
    distillation: dict[str, float] | None = None,
    class_weights: dict[str, float] | None = None,
    **objectives,
) -> Config:
    teachers = {}
    if distillation is not None:
        teachers = {"teachers": ("one",) if "weight" in distillation else None, **distillation}
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


def soft_labels_for(config: Config, num_classes: int) -> SoftLabels:
    """Random ones, as the settings ask for them."""
    generator = torch.Generator().manual_seed(7)
    unlabelled, labelled = (
        (2 * torch.randn(len(corpus), num_classes, generator=generator)).softmax(1)
        for corpus in (UNLABELLED, LABELLED)
    )
    distillation = config.distillation
    return SoftLabels(
        unlabelled if distillation.has_teachers else None,
        labelled if distillation.labelled > 0 else None,
    )


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
    "second opinion": {
        "distillation": {"labelled": 0.6}, "virtual_adversarial": 0.6, "adversarial": 0.8,
    },
    "second opinion and teachers": {
        "distillation": {"labelled": 0.6, "weight": 0.4, "temperature": 2.5},
        "class_weights": {"c0": 5.0, "c1": 0.5},
    },
}  # fmt: skip


@pytest.mark.parametrize("with_unlabelled", [True, False])
@pytest.mark.parametrize(("num_classes", "smoothing"), [(2, 0.2), (3, 0.0)])
@pytest.mark.parametrize("name", TERMS)
@pytest.mark.parametrize("max_tokens", [8_000, 8])
def test_an_update_equals_its_reviews_one_by_one(
    name, num_classes, smoothing, with_unlabelled, max_tokens, monkeypatch
):
    monkeypatch.setattr(objectives, "_MAX_TOKEN_BYTES", 4 * max_tokens)
    model, terms = make_model(num_classes), TERMS[name]
    config = make_config(smoothing=smoothing, batches=2, **terms)
    soft_labels = soft_labels_for(config, num_classes)
    if soft_labels.unlabelled is not None and not with_unlabelled:
        return  # teachers label nothing else
    learner = make_learner(model, config, UNLABELLED if with_unlabelled else None, soft_labels)
    batches = [torch.tensor([0, 5, 1]), torch.tensor([3, 2])]  # longest first, and unequal
    loss = learner.learn(batches)
    rows = [
        (LABELLED if micro_batch.is_labelled else UNLABELLED, int(index))
        for micro_batch in learner.micro_batches.of_update(0, batches)[0]
        for index in micro_batch.batch.indices
    ]
    assert len(rows) == (10 if with_unlabelled else 5)
    sizes = [len(each.batch.indices) for each in learner.micro_batches.of_update(0, batches)[0]]
    assert sizes[:2] == ([1, 1] if max_tokens == 8 else [3, 2])
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
    config = make_config(distillation={"weight": 1.0}, **others)
    learner = make_learner(make_model(), config, soft_labels=soft_labels_for(config, 2))
    learner.learn([torch.tensor([0, 3])])
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
