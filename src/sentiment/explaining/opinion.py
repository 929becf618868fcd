"""The running opinion: what a classifier says after each word of a text."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from sentiment.evaluation.calibration import apply_temperature
from sentiment.evaluation.evaluate import compute_logits
from sentiment.model import SentimentClassifier
from sentiment.text.batches import EncodedCorpus

# Every beginning of a review of T words has T * T / 2 tokens: all of them up to 1,000 words.
_MOST_TOKENS = 500_000


@dataclass(frozen=True)
class Opinion:
    """What a model says of the beginnings of a text.

    Attributes:
        num_read: (num_points,) int64, words read at each point, rising; the last is all of them.
        probabilities: (num_points, num_classes) of each class, calibrated.
        stride: words from one point to the next, 1 where each word has its point.
    """

    num_read: np.ndarray
    probabilities: np.ndarray
    stride: int

    def at_words(self) -> np.ndarray:
        """(num_words, num_classes), the probabilities at the first point that has read a word."""
        num_words = int(self.num_read[-1])
        return self.probabilities[np.searchsorted(self.num_read, np.arange(1, num_words + 1))]


def running_opinion(
    model: SentimentClassifier,
    ids: np.ndarray,
    *,
    temperature: float = 1.0,
    most_tokens: int = _MOST_TOKENS,
) -> Opinion:
    """Classify every beginning of a text; for a long one every k-th, and all of it.

    A bidirectional model reads each beginning from its own end, as if the text ended there.

    Args:
        model: the classifier; it is left in evaluation mode.
        ids: (num_words,) the words' ids.
        temperature: what logits are divided by.
        most_tokens: the least k is taken whose beginnings have about so many tokens together.
    """
    num_words = len(ids)
    stride = max(1, -(-num_words * num_words // (2 * most_tokens)))
    # The first words come short, so that the last point is the whole text.
    num_read = np.arange(num_words, 0, -stride)[::-1].copy()
    lengths = torch.from_numpy(num_read)
    beginnings = EncodedCorpus(
        tokens=torch.arange(num_words, dtype=torch.int32),
        ids=torch.from_numpy(ids.astype(np.int32)),
        starts=torch.zeros_like(lengths),  # all of them begin where the text does
        lengths=lengths,
        full_lengths=lengths,
        labels=torch.zeros_like(lengths),
    )
    device = model.embedding.weight.device
    logits = compute_logits(model, beginnings, device=device)
    log_probabilities = apply_temperature(logits.numpy(), temperature)
    return Opinion(num_read, np.exp(log_probabilities), stride)
