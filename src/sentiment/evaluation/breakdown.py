"""Where a model is right and where not: accuracy by kind of review, and reviews to read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from sentiment.evaluation.evaluate import Predictions
from sentiment.evaluation.intervals import Interval, accuracy_interval
from sentiment.text.batches import EncodedCorpus
from sentiment.text.reviews import Reviews
from sentiment.text.tokenizer import TOKENS_AT_ONCE
from sentiment.text.vocabulary import UNK_ID

_MOST_GROUPS, _REVIEWS_PER_GROUP = 5, 20
_NUM_EXAMPLES = 10
_LONGEST_TEXT = 20_000  # characters of a review on a page, so that it opens


@dataclass(frozen=True)
class Group:
    """Reviews that have something in common.

    Attributes:
        name: what that is.
        num_reviews: how many they are, at least 1.
        accuracy: share classified rightly.
        accuracy_ci95: its 95 % interval.
    """

    name: str
    num_reviews: int
    accuracy: float
    accuracy_ci95: Interval


@dataclass(frozen=True)
class Example:
    """A review to read.

    Attributes:
        row: its place in the split, from 0.
        text: the review, or as much of it as :func:`start_of` keeps.
        label, predicted: names of its right class and of the predicted one.
        probability: of the predicted class, at the run's temperature.
        num_tokens: before cutting.
    """

    row: int
    text: str
    label: str
    predicted: str
    probability: float
    num_tokens: int


def by_length(num_tokens: np.ndarray, is_right: np.ndarray) -> list[Group]:
    """Accuracy by quantiles of the lengths.

    Args:
        num_tokens: (num_reviews,) tokens before cutting.
        is_right: (num_reviews,) bool.
    """
    groups = []
    for chosen in _quantile_groups(num_tokens):
        low, high = int(num_tokens[chosen].min()), int(num_tokens[chosen].max())
        span = f"{low:,}" if low == high else f"{low:,} to {high:,}"
        groups.append(_group(f"{span} token{'s' * (high != 1)}", is_right[chosen]))
    return groups


def by_unknown_share(shares: np.ndarray, is_right: np.ndarray) -> list[Group]:
    """Accuracy by the share of unknown words: reviews of none, and quantiles of the others.

    Args:
        shares: (num_reviews,) as :func:`unknown_shares` gives them.
        is_right: (num_reviews,) bool.
    """
    has_unknown = shares > 0
    groups = []
    if not has_unknown.all():
        groups.append(_group("none unknown", is_right[~has_unknown]))
    if has_unknown.any():
        some, hits = shares[has_unknown], is_right[has_unknown]
        for chosen in _quantile_groups(some, most=_MOST_GROUPS - 1):
            low, high = (f"{100 * each(some[chosen]):.2f}" for each in (np.min, np.max))
            span = low if low == high else f"{low} to {high}"
            groups.append(_group(f"{span} % unknown", hits[chosen]))
    return groups


def by_cut(was_cut: np.ndarray, is_right: np.ndarray) -> list[Group]:
    """Accuracy of the reviews that were read whole and of those that were cut; (num_reviews,)."""
    kinds = (("read whole", ~was_cut), ("cut", was_cut))
    return [_group(name, is_right[chosen]) for name, chosen in kinds if chosen.any()]


def unknown_shares(corpus: EncodedCorpus) -> np.ndarray:
    """(num_reviews,) share of ``<unk>`` among the tokens the model reads of each review.

    A review of no tokens is read as one ``<unk>``, so its share is 1.
    """
    starts = corpus.starts.cpu().numpy()
    full_lengths = corpus.full_lengths.numpy()
    lengths = np.minimum(corpus.lengths.numpy(), full_lengths)
    heads = lengths if corpus.heads is None else np.minimum(corpus.heads.numpy(), lengths)
    ends = starts + full_lengths
    first, middle, again, last = _unknown_before(
        corpus, np.stack((starts, starts + heads, ends - (lengths - heads), ends))
    )
    unknown = (middle - first) + (last - again)
    return np.where(full_lengths == 0, 1.0, unknown / np.maximum(lengths, 1))


def confident_mistakes(
    calibrated: Predictions, reviews: Reviews, lengths: np.ndarray
) -> list[Example]:
    """The wrong predictions of the highest probability.

    Args:
        calibrated: predictions at the run's temperature.
        reviews: what they are of.
        lengths: (num_reviews,) tokens before cutting.
    """
    mistakes = np.flatnonzero(calibrated.predicted != calibrated.labels)
    confidences = calibrated.log_probabilities.max(axis=1)[mistakes]
    chosen = mistakes[np.argsort(-confidences, kind="stable")]
    return _examples(chosen, calibrated, reviews, lengths)


def uncertain_reviews(
    calibrated: Predictions, reviews: Reviews, lengths: np.ndarray
) -> list[Example]:
    """The reviews whose most probable class has the lowest probability; arguments as above."""
    confidences = calibrated.log_probabilities.max(axis=1)
    return _examples(np.argsort(confidences, kind="stable"), calibrated, reviews, lengths)


def start_of(text: str) -> str:
    """A review as a page shows it: whole, or its first 20,000 characters and an ellipsis."""
    return text if len(text) <= _LONGEST_TEXT else text[:_LONGEST_TEXT] + " …"


def _examples(
    rows: np.ndarray, calibrated: Predictions, reviews: Reviews, lengths: np.ndarray
) -> list[Example]:
    return [
        Example(
            row=row,
            text=start_of(reviews.texts[row]),
            label=reviews.class_names[calibrated.labels[row]],
            predicted=reviews.class_names[calibrated.predicted[row]],
            probability=float(np.exp(calibrated.log_probabilities[row].max())),
            num_tokens=int(lengths[row]),
        )
        for row in rows[:_NUM_EXAMPLES].tolist()
    ]


def _group(name: str, is_right: np.ndarray) -> Group:
    num_right, num_reviews = int(is_right.sum()), len(is_right)
    interval = accuracy_interval(num_right, num_reviews)
    return Group(name, num_reviews, num_right / num_reviews, interval)


def _quantile_groups(values: np.ndarray, most: int = _MOST_GROUPS) -> list[np.ndarray]:
    """Indices of the values by quantile, equal values together, no group empty."""
    num_groups = int(np.clip(len(values) // _REVIEWS_PER_GROUP, 1, most))
    inner = np.arange(1, num_groups) / num_groups
    edges = np.unique(np.quantile(values, inner, method="inverted_cdf"))
    places = np.searchsorted(edges, values, side="left")
    groups = (np.flatnonzero(places == place) for place in range(len(edges) + 1))
    return [group for group in groups if len(group)]


def _unknown_before(corpus: EncodedCorpus, positions: np.ndarray) -> np.ndarray:
    """How many of the corpus's tokens before each position are ``<unk>``, in bounded memory."""
    is_unknown = corpus.ids == UNK_ID
    order = np.argsort(positions, axis=None)
    ascending = positions.ravel()[order]
    counts = np.zeros(len(order), dtype=np.int64)
    total = start = 0
    for part in corpus.tokens.split(TOKENS_AT_ONCE):
        so_far = torch.cumsum(is_unknown[part], dim=0).cpu().numpy()
        low, high = np.searchsorted(ascending, (start, start + len(part)), side="right")
        counts[low:high] = total + so_far[ascending[low:high] - start - 1]
        total, start = total + int(so_far[-1]), start + len(part)
    in_order = np.empty_like(counts)
    in_order[order] = counts
    return in_order.reshape(positions.shape)
