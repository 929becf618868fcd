"""A corpus, a model, and an oracle that computes objectives one review at a time with autograd."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from sentiment.config.config import Config
from sentiment.data.batches import EncodedCorpus
from sentiment.data.pipeline import TrainingData
from sentiment.model import SentimentClassifier
from sentiment.runtime.device import mixed_seed
from sentiment.training.checkpoint import TrainingContext
from sentiment.training.objectives import (
    CombinedObjective,
    LabelLoss,
    MicroBatches,
    build_objective,
    random_directions,
    review_seeds,
)

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
    soft_labels: torch.Tensor | None = None,
    precision: torch.dtype = torch.float32,
) -> Learner:
    data = TrainingData(
        LABELLED, LABELLED, None, None, None, None, unlabelled=unlabelled, soft_labels=soft_labels
    )
    context = TrainingContext(config, Path("unused"), CPU, precision)
    names = [f"c{n}" for n in range(model.output.out_features)]
    label_loss = LabelLoss(config.training, LABELLED.labels, names)
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
    alone: Alone, config: Config, rows: list, soft_labels: torch.Tensor | None = None
) -> torch.Tensor:
    """The loss of update 0 over (corpus, index) pairs, term by term from its definition."""
    weights, smoothing = config.objectives, config.training.label_smoothing
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
        label = int(corpus.labels[index])
        is_labelled = corpus is LABELLED
        if is_labelled:
            share = ratios[label] / mean / num_labelled
            loss = loss + share * alone.label_loss(words, label, smoothing)
            moved = words + alone.move_against(words, label)
            weight = weights.adversarial * share
            loss = loss + weight * alone.label_loss(moved, label, smoothing)
        elif soft_labels is not None:
            weight = config.distillation.weight / (len(rows) - num_labelled)
            temperature = config.distillation.temperature
            log = (alone.logits(words) / temperature).log_softmax(0)
            loss = loss - weight * temperature**2 * (soft_labels[index].double() * log).sum()
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
