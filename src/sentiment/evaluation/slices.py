"""Accuracy by groups of reviews, example reviews, and what truncation costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
import torch
from torch import nn

from sentiment.data.batches import BucketSampler, EncodedCorpus, Keep
from sentiment.data.reviews import Reviews
from sentiment.data.vocabulary import UNK_ID
from sentiment.evaluation.evaluate import BATCH_TOKENS, Predictions, predict_corpus
from sentiment.evaluation.metrics import Interval, accuracy_interval
from sentiment.runtime.distributed import DistributedContext

KEEPS: tuple[Keep, ...] = get_args(Keep)

_MOST_GROUPS, _REVIEWS_PER_GROUP = 5, 20
_NUM_EXAMPLES = 10
_LONGEST_TEXT = 20_000  # characters of a review on a page, so that it opens


@dataclass(frozen=True)
class Group:
    """Accuracy of the reviews that have something in common, which ``name`` says."""

    name: str
    num_reviews: int
    accuracy: float
    accuracy_ci95: Interval


@dataclass(frozen=True)
class Example:
    """A review to read, with its prediction."""

    row: int  # in the split's files, from 1
    text: str  # shortened by shorten_review
    label: str  # name of the right class
    predicted: str  # name of the predicted class
    probability: float  # of the predicted class, at the run's temperature
    num_tokens: int  # before truncation


def by_length(num_tokens: np.ndarray, is_right: np.ndarray) -> list[Group]:
    """Accuracy by quantiles of the lengths before truncation; both arrays are (num_reviews,)."""
    groups = []
    for rows in _quantile_groups(num_tokens):
        low, high = int(num_tokens[rows].min()), int(num_tokens[rows].max())
        span = f"{low:,}" if low == high else f"{low:,} to {high:,}"
        groups.append(_group(f"{span} token{'s' * (high != 1)}", is_right[rows]))
    return groups


def by_unknown_share(shares: np.ndarray, is_right: np.ndarray) -> list[Group]:
    """Accuracy of reviews without unknown words, and by quantiles of their share in the others.

    Both arrays are (num_reviews,); for the shares see :func:`unknown_shares`.
    """
    has_unknown = shares > 0
    groups = []
    if not has_unknown.all():
        groups.append(_group("none unknown", is_right[~has_unknown]))
    if has_unknown.any():
        shares, is_right = shares[has_unknown], is_right[has_unknown]
        for rows in _quantile_groups(shares, most=_MOST_GROUPS - 1):
            low, high = f"{100 * shares[rows].min():.2f}", f"{100 * shares[rows].max():.2f}"
            span = low if low == high else f"{low} to {high}"
            groups.append(_group(f"{span} % unknown", is_right[rows]))
    return groups


def by_cut(was_cut: np.ndarray, is_right: np.ndarray) -> list[Group]:
    """Accuracy of the reviews read whole and of the truncated ones; both arrays (num_reviews,)."""
    kinds = (("read whole", ~was_cut), ("cut", was_cut))
    return [_group(name, is_right[rows]) for name, rows in kinds if rows.any()]


def unknown_shares(corpus: EncodedCorpus) -> np.ndarray:
    """(num_reviews,) share of ``<unk>`` among the tokens that the model reads of each review.

    A review without tokens is read as one ``<unk>``, so its share is 1.
    """
    shares = np.empty(len(corpus))
    sampler = BucketSampler(corpus.lengths, batch_size=BATCH_TOKENS, unit="tokens", shuffle=False)
    for rows in sampler:
        batch = corpus.batch(rows)
        num_unknown = (batch.tokens == UNK_ID).sum(dim=1).cpu()
        shares[rows] = num_unknown.double() / batch.lengths
    return shares


def find_examples(
    calibrated: Predictions, reviews: Reviews, num_tokens: np.ndarray
) -> tuple[list[Example], list[Example]]:
    """The wrong predictions with the highest probability, and the least certain reviews.

    Probabilities are those of the most probable class, at the run's temperature.
    """
    confidences = calibrated.log_probabilities.max(axis=1)
    by_certainty = np.argsort(-confidences, kind="stable")
    mistakes = by_certainty[~calibrated.is_right[by_certainty]]
    uncertain = np.argsort(confidences, kind="stable")
    names, predicted, rows = reviews.class_names, calibrated.predicted, reviews.row_numbers()

    def example(index: int) -> Example:
        return Example(
            row=int(rows[index]),
            text=shorten_review(reviews.texts[index]),
            label=names[calibrated.labels[index]],
            predicted=names[predicted[index]],
            probability=float(np.exp(confidences[index])),
            num_tokens=int(num_tokens[index]),
        )

    first, second = (indices[:_NUM_EXAMPLES].tolist() for indices in (mistakes, uncertain))
    return list(map(example, first)), list(map(example, second))


def shorten_review(text: str) -> str:
    """A review as pages show it: at most its first 20,000 characters and an ellipsis."""
    return text if len(text) <= _LONGEST_TEXT else text[:_LONGEST_TEXT] + " …"


def _group(name: str, is_right: np.ndarray) -> Group:
    num_right, count = int(is_right.sum()), len(is_right)
    return Group(name, count, num_right / count, accuracy_interval(num_right, count))


def _quantile_groups(values: np.ndarray, most: int = _MOST_GROUPS) -> list[np.ndarray]:
    """Indices of the values by quantile; equal values stay together, no group is empty."""
    num_groups = int(np.clip(len(values) // _REVIEWS_PER_GROUP, 1, most))
    inner = np.arange(1, num_groups) / num_groups
    edges = np.unique(np.quantile(values, inner, method="inverted_cdf"))
    numbers = np.searchsorted(edges, values, side="left")
    groups = (np.flatnonzero(numbers == number) for number in range(len(edges) + 1))
    return [group for group in groups if len(group)]


@dataclass(frozen=True)
class Truncation:
    """A model's accuracy on reviews truncated in one way."""

    max_length: int  # tokens
    keep: Keep
    cut_share: float  # share of the reviews that are longer
    accuracy: float
    accuracy_ci95: Interval


def measure_truncation(
    model: nn.Module,
    corpus: EncodedCorpus,
    max_lengths: Sequence[int],
    *,
    device: torch.device,
    precision: torch.dtype = torch.float32,
    distributed: DistributedContext | None = None,
) -> list[Truncation]:
    """Evaluate a model at each length, shortest first, and each choice of the kept tokens.

    ``corpus`` may be truncated in any way; for the other arguments see
    :func:`sentiment.evaluation.evaluate.compute_logits`.
    """
    results = []
    complete: Predictions | None = None  # of the whole reviews, which need only one pass
    for max_length in sorted(set(max_lengths)):
        for keep in KEEPS:
            truncated = corpus.cut(max_length, keep)
            cut_share = float(truncated.was_cut().float().mean())
            predictions = complete or predict_corpus(
                model, truncated, device=device, precision=precision,
                description=f"{max_length} tokens, {keep}", distributed=distributed,
            )  # fmt: skip
            if cut_share == 0:
                complete = predictions
            metrics = predictions.metrics()
            results.append(
                Truncation(max_length, keep, cut_share, metrics.accuracy, metrics.accuracy_ci95)
            )
    return results
