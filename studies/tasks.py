"""A task that only a memory can do, and a classifier small enough to learn it in seconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from sentiment.model import SentimentClassifier

NUM_WORDS = 100  # of which the first are <pad>, <unk>, and then the decisive ones
_DECISIVE = 4  # words of each class
_FIRST_DECISIVE = 2
_FIRST_FILLER = _FIRST_DECISIVE + 2 * _DECISIVE
_BEFORE = 5  # words before the decisive one, at most
_BATCH_SIZE = 32
_LEARNING_RATE = 3e-3


@dataclass(frozen=True)
class Sentences:
    """Sentences of two classes, of which one word decides.

    Attributes:
        tokens: (batch, time) ids, 0 past each length.
        lengths: (batch,) on the CPU.
        labels: (batch,) 0 or 1.
    """

    tokens: torch.Tensor
    lengths: torch.Tensor
    labels: torch.Tensor


def draw_sentences(count: int, distance: int, generator: torch.Generator) -> Sentences:
    """Filler, a decisive word, and ``distance`` words of filler to the end."""
    before = torch.randint(0, _BEFORE + 1, (count,), generator=generator)
    lengths = before + 1 + distance
    time = int(lengths.max())
    tokens = torch.randint(_FIRST_FILLER, NUM_WORDS, (count, time), generator=generator)
    labels = torch.randint(0, 2, (count,), generator=generator)
    word = torch.randint(0, _DECISIVE, (count,), generator=generator)
    tokens[torch.arange(count), before] = _FIRST_DECISIVE + _DECISIVE * labels + word
    tokens[torch.arange(time) >= lengths.unsqueeze(1)] = 0
    return Sentences(tokens, lengths, labels)


def make_classifier(seed: int, **settings: Any) -> SentimentClassifier:
    """A small classifier: one direction and its last state, unless ``settings`` say otherwise."""
    torch.manual_seed(seed)
    shape: dict[str, Any] = {"bidirectional": False, "pooling": "last", "hidden_size": 64}
    return SentimentClassifier(
        vocabulary_size=NUM_WORDS, num_classes=2, embedding_size=32, **(shape | settings)
    )


def train(
    model: nn.Module,
    distance: int,
    *,
    num_updates: int,
    seed: int,
    gradient_clip: float = 1.0,
    momentum_rate: float | None = None,
) -> list[tuple[float, float]]:
    """Train on fresh sentences until they are learned; returns the loss and the gradient's norm
    before clipping at each update.

    Args:
        momentum_rate: learning rate of stochastic gradient descent with momentum; None takes Adam.
    """
    generator = torch.Generator().manual_seed(seed)
    optimizer: torch.optim.Optimizer = torch.optim.Adam(model.parameters(), _LEARNING_RATE)
    if momentum_rate is not None:
        optimizer = torch.optim.SGD(model.parameters(), momentum_rate, momentum=0.9)
    course = []
    model.train()
    for _ in range(num_updates):
        batch = draw_sentences(_BATCH_SIZE, distance, generator)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(batch.tokens, batch.lengths), batch.labels)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), gradient_clip)
        optimizer.step()
        course.append((loss.item(), norm.item()))
        if len(course) >= 100 and max(loss for loss, _ in course[-20:]) < 0.01:
            break  # learned
    return course


@torch.inference_mode()
def measure_accuracy(model: nn.Module, distance: int, *, count: int = 1_000) -> float:
    """Share of fresh sentences classified rightly."""
    model.eval()
    batch = draw_sentences(count, distance, torch.Generator().manual_seed(2**31))
    return float((model(batch.tokens, batch.lengths).argmax(1) == batch.labels).float().mean())
