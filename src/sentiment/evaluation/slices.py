"""Accuracy by kind of review, reviews to read, and what truncation costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import torch
from torch import nn

from sentiment.data.batches import EncodedCorpus, Keep
from sentiment.data.reviews import Reviews
from sentiment.data.tokenizer import TOKENS_AT_ONCE
from sentiment.data.vocabulary import UNK_ID
from sentiment.display.plots import new_figure
from sentiment.evaluation.evaluate import Predictions, predict_corpus
from sentiment.evaluation.metrics import Interval, accuracy_interval
from sentiment.runtime.distributed import DistributedContext

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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


KEEPS: tuple[Keep, ...] = get_args(Keep)

_CELL = 20  # columns: 100.0 (100.0-100.0) and a space


@dataclass(frozen=True)
class Cut:
    """A model's accuracy on reviews cut in one way.

    Attributes:
        max_length: tokens kept of a review at most.
        keep: which of them: ``head``, ``tail`` or ``head+tail``.
        cut_share: share of the reviews that are longer.
        accuracy: share classified rightly.
        accuracy_ci95: its 95 % interval.
    """

    max_length: int
    keep: Keep
    cut_share: float
    accuracy: float
    accuracy_ci95: tuple[float, float]

    def as_dict(self) -> dict[str, Any]:
        """The figures as JSON-able values."""
        return {**vars(self), "accuracy_ci95": list(self.accuracy_ci95)}


def measure_cutting(
    model: nn.Module,
    corpus: EncodedCorpus,
    max_lengths: Sequence[int],
    *,
    device: torch.device,
    precision: torch.dtype = torch.float32,
    distributed: DistributedContext | None = None,
) -> list[Cut]:
    """Evaluate a model at each limit, shortest first, and each way to keep tokens.

    Args:
        model: takes (tokens, lengths), returns logits; on ``device``.
        corpus: the reviews, cut in whatever way.
        max_lengths: tokens kept of a review, 1 or more each.
        device: where to compute.
        precision: arithmetic of matrix products.
        world: the ranks to share the reviews among.
    """
    cuts = []
    whole: Predictions | None = None  # of the reviews uncut, which are the same three times over
    for max_length in sorted(set(max_lengths)):
        for keep in KEEPS:
            each = corpus.cut(max_length, keep)
            cut_share = float(each.was_cut().float().mean())
            predictions = whole
            if predictions is None:
                title = f"{max_length} tokens, {keep}"
                predictions = predict_corpus(
                    model,
                    each,
                    device=device,
                    precision=precision,
                    description=title,
                    distributed=distributed,
                )
            if cut_share == 0:
                whole = predictions
            metrics = predictions.metrics()
            cuts.append(Cut(max_length, keep, cut_share, metrics.accuracy, metrics.accuracy_ci95))
    return cuts


def cutting_table(cuts: Sequence[Cut]) -> str:
    """A row for each limit and a column for each way to keep tokens, at most 80 columns wide."""
    header = "".join(f"{keep:>{_CELL}}" for keep in KEEPS)
    lines = ["what cutting costs: accuracy in %, with 95 % intervals", f"  {'tokens':>6}{'cut':>8}"]
    lines[1] += header
    for max_length, row in _by_limit(cuts).items():
        cells = "".join(f"{_cell(row[keep]):>{_CELL}}" for keep in KEEPS)
        share = f"{100 * row['head'].cut_share:.1f} %"
        lines.append(f"  {max_length:>6,}{share:>8}{cells}")
    return "\n".join(lines)


def cutting_figure(cuts: Sequence[Cut]) -> Figure:
    """Accuracy by limit, a line for each way to keep tokens."""
    figure, axes = new_figure(5.6, 3.6)
    limits = list(_by_limit(cuts))
    for place, keep in enumerate(KEEPS):
        row = [_by_limit(cuts)[limit][keep] for limit in limits]
        middle = [100 * cut.accuracy for cut in row]
        ends = [[abs(100 * cut.accuracy_ci95[end] - 100 * cut.accuracy) for cut in row]
                for end in (0, 1)]  # fmt: skip
        aside = [limit * (1 + 0.025 * (place - 1)) for limit in limits]  # else bars hide bars
        axes.errorbar(aside, middle, yerr=ends, marker="o", capsize=3, label=keep)
    axes.set_xscale("log")
    axes.set_xticks(limits, [f"{limit:,}" for limit in limits])
    axes.minorticks_off()
    axes.set_xlabel("tokens kept of a review")
    axes.set_ylabel("accuracy in %, 95 % interval")
    axes.legend(title="kept of longer ones")
    return figure


def _by_limit(cuts: Sequence[Cut]) -> dict[int, dict[str, Cut]]:
    rows: dict[int, dict[str, Cut]] = {}
    for cut in cuts:
        rows.setdefault(cut.max_length, {})[cut.keep] = cut
    return rows


def _cell(cut: Cut) -> str:
    low, high = (f"{100 * bound:.1f}" for bound in cut.accuracy_ci95)
    return f"{100 * cut.accuracy:.1f} ({low}-{high})"
