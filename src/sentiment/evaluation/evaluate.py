"""Predictions of a corpus, and how far bf16 moves them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from sentiment.data.batches import EncodedCorpus
from sentiment.data.sampler import BucketSampler
from sentiment.evaluation.metrics import Metrics, compute_metrics
from sentiment.runtime.device import autocast, exact_fp32
from sentiment.runtime.distributed import DistributedContext
from sentiment.runtime.errors import UserError

# Tokens of a batch, padding included: large enough for the kernels, small beside the model.
BATCH_TOKENS = 30_000


@dataclass(frozen=True)
class Predictions:
    """What a model says of each review of a corpus, in the corpus's order.

    Attributes:
        log_probabilities: (num_reviews, num_classes) float64.
        labels: (num_reviews,) int64 right classes.
    """

    log_probabilities: np.ndarray
    labels: np.ndarray

    @property
    def predicted(self) -> np.ndarray:
        """(num_reviews,) most probable classes."""
        return self.log_probabilities.argmax(axis=1)

    @property
    def probabilities(self) -> np.ndarray:
        """(num_reviews, num_classes)."""
        return np.exp(self.log_probabilities)

    def metrics(self) -> Metrics:
        """The figures of these predictions."""
        return compute_metrics(self.log_probabilities, self.labels)


def predict_corpus(
    model: nn.Module,
    corpus: EncodedCorpus,
    *,
    device: torch.device,
    precision: torch.dtype = torch.float32,
    description: str = "evaluating",
    distributed: DistributedContext | None = None,
    report: Callable[[int], object] = lambda count: None,
) -> Predictions:
    """Classify every review of a corpus; the model is left in evaluation mode.

    Training validates by this function too, so that what it reports can be had again.

    Args:
        model: takes (tokens, lengths), returns logits; on ``device``.
        corpus: the reviews; its tokens are moved to ``device``.
        device: where to compute.
        precision: arithmetic of matrix products.
        description: title of the progress bar, shown on a terminal only.
        world: the ranks to share the reviews among; each gets all predictions.
        report: called with numbers of reviews as they are classified here.

    Raises:
        UserError: a logit is no finite number.
    """
    distributed = distributed or DistributedContext()
    with tqdm(
        total=len(corpus), desc=description, unit="review", leave=False,
        disable=None if distributed.is_alone else True,
    ) as bar:  # fmt: skip

        def tell(count: int) -> None:
            bar.update(count)
            report(count)

        logits = compute_logits(
            model, corpus, device=device, precision=precision, report=tell, distributed=distributed
        )
    return Predictions(logits.log_softmax(dim=1).numpy(), corpus.labels.cpu().numpy())


@torch.inference_mode()
def compute_logits(
    model: nn.Module,
    corpus: EncodedCorpus,
    *,
    device: torch.device,
    precision: torch.dtype = torch.float32,
    batch_tokens: int = BATCH_TOKENS,
    report: Callable[[int], object] = lambda count: None,
    distributed: DistributedContext | None = None,
) -> torch.Tensor:
    """(num_reviews, num_classes) logits in the corpus's order, as float64.

    Args:
        model, corpus, device, precision: as for :func:`predict_corpus`; there is at least one
            review.
        batch_tokens: tokens of a batch, padding included; a longer review stands alone.
        report: called with numbers of reviews as they are classified here.
        world: the ranks, which take whole batches in turn: what a review is given does not depend
            on how many there are.

    Raises:
        UserError: a logit is no finite number.
    """
    distributed = distributed or DistributedContext()
    model.eval()
    corpus = corpus.to(device)
    sampler = BucketSampler(corpus.lengths, batch_size=batch_tokens, unit="tokens", shuffle=False)
    own = list(sampler)[distributed.rank :: distributed.size]
    found: list[torch.Tensor] = []
    with exact_fp32(), autocast(device, precision):
        for batch in corpus.batches(own):
            found.append(model(batch.tokens, batch.lengths))
            report(len(batch.lengths))
    in_order = _in_order(own, found, len(corpus), distributed)
    if not in_order.isfinite().all():
        raise UserError(
            "the model's logits are not numbers: its training diverged, or its weights were "
            "changed: train it again with a lower training.learning_rate"
        )
    return in_order


def _in_order(
    indices: list[torch.Tensor],
    logits: list[torch.Tensor],
    num_reviews: int,
    distributed: DistributedContext,
) -> torch.Tensor:
    """(num_reviews, num_classes) float64: all ranks' logits at their reviews' places."""
    num_classes = distributed.most([logits[0].shape[1] if logits else 0])[0]
    values = torch.zeros(num_reviews, num_classes + 1, dtype=torch.float64)
    if indices:
        places = torch.cat(indices)
        values[places, :-1] = torch.cat(logits).cpu().double()
        values[places, -1] += 1  # how often a review was classified
    values = distributed.sum(values)
    assert (values[:, -1] == 1).all(), "each review is classified once, by one rank"
    return values[:, :-1].contiguous()


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
