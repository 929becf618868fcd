"""Figures of a cross-validation, and the comparison of two."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from sentiment.comparison.significance import bootstrap_difference, mcnemar
from sentiment.display.console import format_table, wrap_text
from sentiment.evaluation.metrics import Interval, accuracy_interval, compute_metrics
from sentiment.runtime.errors import UserError
from sentiment.runtime.files import write_json
from sentiment.tuning.cross_validation import OutOfFoldPredictions

_MAX_DRAWS = 2**22  # reviews that the bootstrap draws at once


@dataclass(frozen=True)
class Summary:
    """The figures of a cross-validation.

    Attributes:
        num_reviews: number of distinct reviews.
        num_repeats: predictions of each review.
        accuracies: accuracy of each fold.
        mean, deviation: of the folds' accuracies; the sample deviation, None for a single fold.
        accuracy: share of all predictions that are correct.
        accuracy_ci95: its 95 % interval for other reviews.
        nll: mean negative log-likelihood of the correct class, in nats.
    """

    num_reviews: int
    num_repeats: int
    accuracies: tuple[float, ...]
    mean: float
    deviation: float | None
    accuracy: float
    accuracy_ci95: Interval
    nll: float


def summarize(found: OutOfFoldPredictions) -> Summary:
    accuracies = [
        float((predictions.predicted == predictions.labels).mean())
        for _, _, predictions in found.by_fold()
    ]
    rows, shares = found.share_correct()
    accuracy = float(shares.mean())
    if found.num_repeats == 1:
        interval = accuracy_interval(int(shares.sum()), len(rows))
    else:  # repeated predictions of a review are not independent
        margin = 1.96 * float(shares.std(ddof=1)) / len(rows) ** 0.5
        interval = max(0.0, accuracy - margin), min(1.0, accuracy + margin)
    metrics = compute_metrics(found.predictions.log_probabilities, found.predictions.labels)
    return Summary(
        num_reviews=len(rows),
        num_repeats=found.num_repeats,
        accuracies=tuple(accuracies),
        mean=float(np.mean(accuracies)),
        deviation=float(np.std(accuracies, ddof=1)) if len(accuracies) > 1 else None,
        accuracy=accuracy,
        accuracy_ci95=interval,
        nll=metrics.nll,
    )


def write_summary(folder: Path, summary: Summary, hold_out: str) -> None:
    """Write report.json."""
    write_json(folder / "report.json", {"hold_out": hold_out, **asdict(summary)})


def summary_table(found: OutOfFoldPredictions, summary: Summary, title: str) -> str:
    """A line for each fold, and the figures of all, at most 80 columns wide."""
    rows = [("fold", "reviews", "accuracy", "NLL")]
    for repeat, fold, predictions in found.by_fold():
        metrics = compute_metrics(predictions.log_probabilities, predictions.labels)
        name = f"{fold}" if summary.num_repeats == 1 else f"{fold} of repeat {repeat}"
        accuracy = f"{100 * metrics.accuracy:.2f} %"
        rows.append((name, f"{metrics.num_reviews:,}", accuracy, f"{metrics.nll:.4f}"))
    spread = "" if summary.deviation is None else f" ± {100 * summary.deviation:.2f}"
    low, high = (100 * limit for limit in summary.accuracy_ci95)
    figures = [
        ("mean over folds", f"{100 * summary.mean:.2f}{spread} %"),
        ("all predictions", f"{100 * summary.accuracy:.2f} %",
         f"95 %: {low:.2f} to {high:.2f}  ({summary.num_reviews:,} reviews)"),
        ("NLL", f"{summary.nll:.4f}"),
    ]  # fmt: skip
    return "\n\n".join([
        title, format_table(rows, min_widths=(18,)), format_table(figures, align="<"),
        "Each fold's epoch was chosen by the reviews it is measured on, which makes the\n"
        "figures a little too good.",
    ])  # fmt: skip


@dataclass(frozen=True)
class Difference:
    """Two cross-validations, compared review by review.

    Attributes:
        num_reviews: reviews that both predict.
        first, second: accuracies on them.
        difference: the second minus the first.
        difference_ci95: its 95 % interval for other reviews, by a paired bootstrap; None if all
            reviews contribute equally.
        mcnemar_p: p-value of McNemar's test; None if reviews were predicted several times.
    """

    num_reviews: int
    first: float
    second: float
    difference: float
    difference_ci95: Interval | None
    mcnemar_p: float | None


def compare_out_of_fold(
    first: OutOfFoldPredictions, second: OutOfFoldPredictions, seed: int = 0
) -> Difference:
    """Compare two cross-validations on the reviews they share.

    Raises:
        UserError: the classes differ, or rows of the same number hold other reviews.
    """
    if first.class_names != second.class_names:
        raise UserError("the cross-validations have other classes, or another order of classes")
    (rows, shares), (other_rows, other_shares) = first.share_correct(), second.share_correct()
    common, index, other_index = np.intersect1d(rows, other_rows, return_indices=True)
    if len(common) == 0 or (_keys(first, common) != _keys(second, common)).any():
        raise UserError(
            "the cross-validations are of different reviews: compare those of one training split"
        )
    shares, other_shares = shares[index], other_shares[other_index]
    p_value = None
    if first.num_repeats == second.num_repeats == 1:
        only = int((shares > other_shares).sum()), int((other_shares > shares).sum())
        p_value, interval = mcnemar(*only)[0], bootstrap_difference(*only, len(common))
    else:
        interval = _bootstrap(other_shares - shares, seed)
    return Difference(
        num_reviews=len(common),
        first=float(shares.mean()),
        second=float(other_shares.mean()),
        difference=float((other_shares - shares).mean()),
        difference_ci95=interval,
        mcnemar_p=p_value,
    )


def _keys(found: OutOfFoldPredictions, rows: np.ndarray) -> np.ndarray:
    """The keys of the reviews in these rows."""
    return found.keys[np.searchsorted(found.rows[found.repeats == 1], rows)]


def _bootstrap(differences: np.ndarray, seed: int, num_resamples: int = 2_000) -> Interval | None:
    if np.ptp(differences) == 0:
        return None
    generator = np.random.default_rng(seed)
    step = max(1, _MAX_DRAWS // len(differences))
    means = np.concatenate([
        differences[generator.integers(len(differences), size=(count, len(differences)))].mean(1)
        for count in np.diff([*range(0, num_resamples, step), num_resamples])
    ])  # fmt: skip
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def difference_text(difference: Difference, first: Path, second: Path) -> str:
    """The comparison in a few lines of at most 80 columns."""
    rows = [
        ("A", str(first), f"{100 * difference.first:.2f} %"),
        ("B", str(second), f"{100 * difference.second:.2f} %"),
    ]
    text = (
        f"B minus A: {100 * difference.difference:+.2f} points on {difference.num_reviews:,} "
        "reviews, each predicted by models not trained on it"
    )
    lines = [format_table(rows, align="<<>", flexible=1), "", wrap_text(text)]
    if difference.difference_ci95 is not None:
        low, high = (100 * limit for limit in difference.difference_ci95)
        lines.append(f"95 % interval {low:+.2f} to {high:+.2f}")
    if difference.mcnemar_p is not None:
        lines.append(f"McNemar p = {difference.mcnemar_p:.3g}")
    return "\n".join(lines)
