"""What cutting costs: one model at several limits, keeping the head, the tail, or both.

A model reads other lengths than it was trained on, so this says what a limit costs *this* model;
what another limit would have been worth in training is a training run's question.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

import torch
from torch import nn

from sentiment.evaluation.evaluate import Predictions, predict_corpus
from sentiment.pictures import new_figure
from sentiment.text.batches import EncodedCorpus, Keep
from sentiment.world import World

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
    world: World | None = None,
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
                    model, each, device=device, precision=precision, description=title, world=world
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
