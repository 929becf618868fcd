"""A model's predictions of a corpus, a threshold for them, and how much bf16 changes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from sentiment.data.batches import BucketSampler, EncodedCorpus
from sentiment.display.console import progress_bar
from sentiment.evaluation.calibration import apply_temperature
from sentiment.evaluation.metrics import (
    ClassScores,
    Metrics,
    class_scores,
    compute_metrics,
    scored_classes,
)
from sentiment.runtime.device import autocast, exact_fp32
from sentiment.runtime.distributed import DistributedContext
from sentiment.runtime.errors import UserError

# Tokens of a batch, padding included: large enough for the kernels, small compared to the model.
BATCH_TOKENS = 30_000


@dataclass(frozen=True)
class Predictions:
    """A model's predictions of a corpus, in its order."""

    log_probabilities: np.ndarray  # (num_reviews, num_classes) float64
    labels: np.ndarray  # (num_reviews,) int64 right classes
    positive: int | None = None  # see compute_metrics

    @property
    def predicted(self) -> np.ndarray:  # (num_reviews,) most probable classes
        return self.log_probabilities.argmax(axis=1)

    @property
    def is_right(self) -> np.ndarray:  # (num_reviews,) bool
        return self.predicted == self.labels

    @property
    def probabilities(self) -> np.ndarray:  # (num_reviews, num_classes)
        return np.exp(self.log_probabilities)

    @property
    def losses(self) -> np.ndarray:  # (num_reviews,) negative log-likelihoods in nats
        return -self.log_probabilities[np.arange(len(self.labels)), self.labels]

    def calibrated(self, temperature: float) -> Predictions:
        """The predictions with their logits divided by a temperature."""
        log_probabilities = apply_temperature(self.log_probabilities, temperature)
        return replace(self, log_probabilities=log_probabilities)

    def metrics(self) -> Metrics:
        return compute_metrics(self.log_probabilities, self.labels, self.positive)


def predict_corpus(
    model: nn.Module,
    corpus: EncodedCorpus,
    *,
    device: torch.device,
    precision: torch.dtype = torch.float32,
    positive: int | None = None,
    description: str = "evaluating",
    distributed: DistributedContext | None = None,
    report: Callable[[int], object] = lambda count: None,
) -> Predictions:
    """Classify every review of a corpus, with a progress bar.

    ``positive`` goes to the predictions, ``description`` is the bar's title; for the other
    arguments see :func:`compute_logits`.
    """
    distributed = distributed or DistributedContext()
    with progress_bar(
        total=len(corpus), desc=description, unit="review", leave=False,
        is_hidden=distributed.is_distributed,
    ) as bar:  # fmt: skip

        def update(count: int) -> None:
            bar.update(count)
            report(count)

        logits = compute_logits(
            model, corpus, device=device, precision=precision, report=update,
            distributed=distributed,
        )  # fmt: skip
    log_probabilities = logits.log_softmax(dim=1).numpy()
    return Predictions(log_probabilities, corpus.labels.cpu().numpy(), positive)


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
    """(num_reviews, num_classes) float64 logits in the corpus's order, on every rank.

    The model takes (tokens, lengths), is on ``device`` and stays in evaluation mode.
    ``batch_tokens`` counts padding; a longer review is a batch of its own. ``report`` is called
    with the number of reviews of each batch of this rank. Ranks take whole batches in turn, so that
    a review's logits do not depend on their number.

    Raises:
        UserError: a logit is not finite.
    """
    distributed = distributed or DistributedContext()
    model.eval()
    corpus = corpus.to(device)
    sampler = BucketSampler(corpus.lengths, batch_size=batch_tokens, unit="tokens", shuffle=False)
    indices = list(sampler)[distributed.rank :: distributed.world_size]
    outputs: list[torch.Tensor] = []
    with exact_fp32(), autocast(device, precision):
        for batch in map(corpus.batch, indices):
            outputs.append(model(batch.tokens, batch.lengths))
            report(len(batch.lengths))
    logits = _gather(indices, outputs, len(corpus), distributed)
    if not logits.isfinite().all():
        raise UserError(
            "the model's logits are not finite: its training diverged, or its weights were "
            "changed: train it again with a lower training.learning_rate"
        )
    return logits


def _gather(
    indices: list[torch.Tensor],
    outputs: list[torch.Tensor],
    num_reviews: int,
    distributed: DistributedContext,
) -> torch.Tensor:
    """(num_reviews, num_classes) float64: the logits of all ranks in the corpus's order."""
    num_classes = distributed.all_reduce_max([outputs[0].shape[1] if outputs else 0])[0]
    values = torch.zeros(num_reviews, num_classes + 1, dtype=torch.float64)
    if indices:
        rows = torch.cat(indices)
        values[rows, :-1] = torch.cat(outputs).cpu().double()
        values[rows, -1] += 1  # how often a review was classified
    values = distributed.all_reduce_sum(values)
    assert (values[:, -1] == 1).all(), "each review is classified once, by one rank"
    return values[:, :-1].contiguous()


@dataclass(frozen=True)
class Rounding:
    """Differences between probabilities in bf16 and in fp32, at temperature 1.

    ``mean`` and ``largest`` are over the reviews, of the largest difference among their classes.
    """

    num_reviews: int  # computed in both
    mean: float
    largest: float
    num_changed: int  # reviews whose most probable class differs

    def __str__(self) -> str:
        return (
            f"Computed in bf16. Reviews also computed in fp32: {self.num_reviews}; their "
            f"probabilities differ by {self.mean:.4f} on average and {self.largest:.4f} at most; "
            f"decisions changed: {self.num_changed}."
        )


def measure_rounding(
    model: nn.Module, corpus: EncodedCorpus, device: torch.device, batch_tokens: int = BATCH_TOKENS
) -> Rounding:
    """Compute up to 500 reviews, evenly spread over a corpus, in both precisions."""
    count = min(len(corpus), 500)
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


@dataclass(frozen=True)
class ThresholdScores:
    """What a threshold for the positive class of two gives."""

    threshold: float
    scores: ClassScores  # of the positive class; optimistic if fitted_here
    fitted_here: bool


def fit_threshold(calibrated: Predictions) -> float | None:
    """The threshold with the largest F1 on reviews not trained on; None unless of two classes.

    Of equally good thresholds, the highest; between the probabilities of two reviews, the shortest
    decimal near their middle, so that it can be typed.
    """
    if calibrated.log_probabilities.shape[1] != 2:
        return None
    probabilities, is_positive = _positive(calibrated)
    order = np.argsort(-probabilities, kind="stable")
    ranked, hits = probabilities[order], is_positive[order].cumsum()
    f1 = 2 * hits / (np.arange(1, len(ranked) + 1) + hits[-1])
    lower = np.append(ranked[1:], -1.0)  # the next review's, which stays negative
    best = np.where(lower < ranked, f1, -1).argmax()
    low, high = max(0.0, float(lower[best])), float(ranked[best])
    rounded = (round((low + high) / 2, digits) for digits in range(2, 17))
    return next((value for value in rounded if low < value <= high), high)


def measure_threshold(
    threshold: float, calibrated: Predictions, *, fitted_here: bool
) -> ThresholdScores:
    """Score a threshold on predictions of two classes."""
    probabilities, is_positive = _positive(calibrated)
    confusion = np.zeros((2, 2), dtype=np.int64)
    np.add.at(confusion, (is_positive.astype(int), (probabilities >= threshold).astype(int)), 1)
    return ThresholdScores(threshold, class_scores(confusion)[1], fitted_here)


def _positive(calibrated: Predictions) -> tuple[np.ndarray, np.ndarray]:
    """(num_reviews,) probabilities of the positive class, and which reviews are of it."""
    (positive,) = scored_classes(2, calibrated.positive)
    return calibrated.probabilities[:, positive], calibrated.labels == positive
