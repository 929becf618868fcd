"""A task that requires memory, and a classifier small enough to learn it in seconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from sentiment.model import SentimentClassifier

NUM_WORDS = 100  # <pad>, <unk>, the decisive words, then filler
_NUM_DECISIVE = 4  # decisive words of each class
_FIRST_DECISIVE = 2
_FIRST_FILLER = _FIRST_DECISIVE + 2 * _NUM_DECISIVE
_MAX_BEFORE = 5  # words before the decisive one
_BATCH_SIZE = 32
_LEARNING_RATE = 3e-3


@dataclass(frozen=True)
class Sentences:
    """Sentences of two classes, each decided by one word.

    Attributes:
        tokens: (batch, time) ids, 0 past each length.
        lengths: (batch,) on the CPU.
        labels: (batch,) 0 or 1.
    """

    tokens: torch.Tensor
    lengths: torch.Tensor
    labels: torch.Tensor


def draw_sentences(count: int, distance: int, generator: torch.Generator) -> Sentences:
    """Filler, a decisive word, and ``distance`` words of filler up to the end."""
    before = torch.randint(0, _MAX_BEFORE + 1, (count,), generator=generator)
    lengths = before + 1 + distance
    time = int(lengths.max())
    tokens = torch.randint(_FIRST_FILLER, NUM_WORDS, (count, time), generator=generator)
    labels = torch.randint(0, 2, (count,), generator=generator)
    word = torch.randint(0, _NUM_DECISIVE, (count,), generator=generator)
    tokens[torch.arange(count), before] = _FIRST_DECISIVE + _NUM_DECISIVE * labels + word
    tokens[torch.arange(time) >= lengths.unsqueeze(1)] = 0
    return Sentences(tokens, lengths, labels)


def make_classifier(seed: int, **settings: Any) -> SentimentClassifier:
    """A small classifier; unidirectional, with its last state, unless ``settings`` differ."""
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
    """Train on fresh sentences until they are learned.

    Uses SGD with momentum and learning rate ``momentum_rate``, or Adam if that is None. Returns the
    loss and the gradient norm before clipping of each update.
    """
    generator = torch.Generator().manual_seed(seed)
    optimizer: torch.optim.Optimizer = torch.optim.Adam(model.parameters(), _LEARNING_RATE)
    if momentum_rate is not None:
        optimizer = torch.optim.SGD(model.parameters(), momentum_rate, momentum=0.9)
    history = []
    model.train()
    for _ in range(num_updates):
        batch = draw_sentences(_BATCH_SIZE, distance, generator)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(batch.tokens, batch.lengths), batch.labels)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), gradient_clip)
        optimizer.step()
        history.append((loss.item(), norm.item()))
        if len(history) >= 100 and max(loss for loss, _ in history[-20:]) < 0.01:
            break  # learned
    return history


@torch.inference_mode()
def measure_accuracy(model: nn.Module, distance: int) -> float:
    """Accuracy on 1,000 fresh sentences."""
    model.eval()
    batch = draw_sentences(1_000, distance, torch.Generator().manual_seed(2**31))
    return float((model(batch.tokens, batch.lengths).argmax(1) == batch.labels).float().mean())
