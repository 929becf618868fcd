"""A corpus, a model, and an oracle that computes objectives one review at a time with autograd."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from sentiment.config.config import Config
from sentiment.data.batches import EncodedCorpus
from sentiment.model import SentimentClassifier
from sentiment.training.adversarial import random_directions, review_seeds
from sentiment.training.objectives import CombinedObjective

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
