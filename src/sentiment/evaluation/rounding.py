"""How far bf16 moves a model's probabilities from those in fp32."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from sentiment.evaluation.evaluate import BATCH_TOKENS, compute_logits
from sentiment.text.batches import EncodedCorpus

_MOST_REVIEWS = 500


@dataclass(frozen=True)
class Rounding:
    """Probabilities in bf16 against those in fp32, at temperature 1.

    Attributes:
        num_reviews: of how many reviews.
        mean, largest: differences of the probabilities of their classes.
        num_changed: reviews whose most probable class differs.
    """

    num_reviews: int
    mean: float
    largest: float
    num_changed: int

    def __str__(self) -> str:
        reviews = "1 review" if self.num_reviews == 1 else f"{self.num_reviews} reviews"
        return (
            f"Computed in bf16: among {reviews} computed in fp32 too, probabilities differ by "
            f"{self.mean:.4f} in the mean and {self.largest:.4f} at most, and "
            f"{self.num_changed or 'no'} decision{'s' * (self.num_changed != 1)} "
            f"differ{'s' * (self.num_changed == 1)}."
        )

    def as_dict(self) -> dict[str, Any]:
        """JSON-able values."""
        return asdict(self)


def measure_rounding(
    model: nn.Module,
    corpus: EncodedCorpus,
    device: torch.device,
    batch_tokens: int = BATCH_TOKENS,
) -> Rounding:
    """Compute up to 500 reviews, evenly spread over a corpus, in both precisions.

    Args:
        model: takes (tokens, lengths), returns logits; on ``device``.
        corpus: at least one review.
        device: where to compute.
        batch_tokens: tokens of a batch, padding included.
    """
    count = min(len(corpus), _MOST_REVIEWS)
    chosen = corpus.select(torch.linspace(0, len(corpus) - 1, count).long())
    exact, rounded = (
        compute_logits(
            model, chosen, device=device, precision=precision, batch_tokens=batch_tokens
        ).softmax(dim=1)
        for precision in (torch.float32, torch.bfloat16)
    )
    differences = (exact - rounded).abs().amax(dim=1)  # (count,)
    num_changed = int((exact.argmax(dim=1) != rounded.argmax(dim=1)).sum())
    return Rounding(count, float(differences.mean()), float(differences.max()), num_changed)
