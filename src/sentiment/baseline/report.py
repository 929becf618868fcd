"""A baseline as a table of at most 80 columns: its figures, and what it goes by."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

import numpy as np

from sentiment.baseline.folder import Baseline
from sentiment.baseline.train import MIN_REVIEWS, TrainedBaseline
from sentiment.shown import pad, printable, shorten

_NUM_SHOWN = 10  # n-grams for each class
_FIRST, _HALF = 12, 38  # columns of a figure's name, and of a class


def baseline_table(trained: TrainedBaseline, seconds: float) -> str:
    """The figures, and the n-grams that weigh most for each class.

    Args:
        trained: what was trained.
        seconds: what it took.
    """
    baseline, metrics = trained.baseline, trained.evaluation.metrics
    calibration = trained.evaluation.calibration
    low, high = (100 * bound for bound in metrics.accuracy_ci95)
    temperature = f"{calibration.after.nll:.4f} at temperature {baseline.temperature:.2f}"
    rows = [
        ("reviews", f"{trained.num_training:,} to train, {metrics.num_reviews:,} to validate"),
        ("n-grams", f"{len(baseline.ngrams):,} of 1 to 3 words, in {MIN_REVIEWS} reviews or more"),
        ("accuracy", f"{100 * metrics.accuracy:.2f} %   95 %: {low:.2f} to {high:.2f}"),
        ("NLL", f"{metrics.nll:.4f}    {temperature}"),
        ("seconds", f"{seconds:.1f}, of which {trained.tokenizing_seconds:.1f} for tokens"),
    ]
    title = [printable(str(baseline.path)), f"on validation: {printable(trained.origin)}"]
    figures = [f"  {name:<{_FIRST}}{value}" for name, value in rows]
    lines = [*title, "", *figures, "", *_ngram_lines(baseline)]
    return "\n".join(line.rstrip() for line in lines)


def heaviest_ngrams(baseline: Baseline, label: int) -> list[str]:
    """The n-grams that speak most for a class, heaviest first."""
    weights = baseline.model.class_weights()[label]
    chosen = np.argsort(-weights, kind="stable")[:_NUM_SHOWN]
    texts = baseline.ngrams.texts()
    return [texts[each] for each in chosen.tolist() if weights[each] > 0]


def _ngram_lines(baseline: Baseline) -> list[str]:
    """The heaviest n-grams of two classes side by side, then those of the next two."""
    columns = []
    for label, name in enumerate(baseline.class_names):
        ngrams = [f"  {shorten(each, _HALF - 4)}" for each in heaviest_ngrams(baseline, label)]
        columns.append([f"weigh most for {shorten(name, _HALF - 17)}", *ngrams])
    blocks = [_side_by_side(columns[start : start + 2]) for start in range(0, len(columns), 2)]
    return [line for block in blocks for line in ["", *block]][1:]


def _side_by_side(columns: Sequence[Sequence[str]]) -> list[str]:
    return [
        "  " + "".join(pad(cell, _HALF) for cell in row)
        for row in zip_longest(*columns, fillvalue="")
    ]
