"""What the folds say together, and what two cross-validations say of each other."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sentiment.comparison.significance import bootstrap_difference, mcnemar
from sentiment.display.console import sanitize, truncate
from sentiment.evaluation.metrics import Interval, accuracy_interval, compute_metrics
from sentiment.runtime.errors import UserError
from sentiment.runtime.files import write_json
from sentiment.tuning.cross_validation import OutOfFold

_MOST_REVIEWS_OF_BLOCK = 2**22  # resampled at once


@dataclass(frozen=True)
class Summary:
    """The figures of a cross-validation.

    Attributes:
        num_reviews: different reviews.
        num_repeats: how often each was predicted.
        accuracies: of each fold.
        mean, deviation: of these accuracies; the deviation is the sample's, None of one fold.
        accuracy: share of all predictions that are right.
        accuracy_ci95: its 95 % interval over other reviews.
        nll: mean negative log-likelihood of the right class, in nats.
    """

    num_reviews: int
    num_repeats: int
    accuracies: tuple[float, ...]
    mean: float
    deviation: float | None
    accuracy: float
    accuracy_ci95: Interval
    nll: float


def summarize(found: OutOfFold) -> Summary:
    """The figures of out-of-fold predictions."""
    accuracies = [float((each.predicted == each.labels).mean()) for _, _, each in found.by_fold()]
    rows, shares = found.share_right()
    accuracy = float(shares.mean())
    if found.num_repeats == 1:
        interval = accuracy_interval(int(shares.sum()), len(rows))
    else:  # repeats of a review are no further reviews
        spread = 1.96 * float(shares.std(ddof=1)) / len(rows) ** 0.5
        interval = max(0.0, accuracy - spread), min(1.0, accuracy + spread)
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


def summary_table(found: OutOfFold, summary: Summary, title: str) -> str:
    """A line for each fold and the figures of all, at most 80 columns wide."""
    lines = [title, "", f"  {'fold':<20}{'reviews':>9}{'accuracy':>12}{'NLL':>9}"]
    for repeat, fold, each in found.by_fold():
        metrics = compute_metrics(each.log_probabilities, each.labels)
        name = f"{fold}" if summary.num_repeats == 1 else f"{fold} of repeat {repeat}"
        lines.append(
            f"  {name:<20}{metrics.num_reviews:>9,}{100 * metrics.accuracy:>10.2f} %"
            f"{metrics.nll:>9.4f}"
        )
    spread = "" if summary.deviation is None else f" ± {100 * summary.deviation:.2f}"
    low, high = (100 * each for each in summary.accuracy_ci95)
    lines += [
        "",
        f"  mean over folds     {100 * summary.mean:.2f}{spread} %",
        f"  all predictions     {100 * summary.accuracy:.2f} %   95 %: {low:.2f} to {high:.2f}"
        f"   ({summary.num_reviews:,} reviews)",
        f"  NLL                 {summary.nll:.4f}",
        "",
        "Each fold's epoch was chosen by the reviews it is measured on, which flatters",
        "the figures a little.",
    ]
    return "\n".join(lines)


@dataclass(frozen=True)
class Difference:
    """Two cross-validations, review by review.

    Attributes:
        num_reviews: reviews that both have predicted.
        first, second: accuracies on them.
        difference: the second less the first.
        difference_ci95: its 95 % interval over other reviews, by a paired bootstrap; None where
            all reviews add the same to it.
        mcnemar_p: McNemar's p; None where a review was predicted several times.
    """

    num_reviews: int
    first: float
    second: float
    difference: float
    difference_ci95: Interval | None
    mcnemar_p: float | None

    def as_dict(self) -> dict[str, Any]:
        """JSON-able values."""
        return asdict(self)


def compare_out_of_fold(first: OutOfFold, second: OutOfFold, seed: int = 0) -> Difference:
    """Compare two cross-validations on the reviews that both have.

    Raises:
        UserError: their classes differ, or rows of the same number hold other reviews.
    """
    if first.class_names != second.class_names:
        raise UserError("the cross-validations have other classes, or in another order")
    (rows, shares), (others, other_shares) = first.share_right(), second.share_right()
    common, own, other = np.intersect1d(rows, others, return_indices=True)
    places = [np.searchsorted(each.rows[each.repeats == 1], common) for each in (first, second)]
    keys = [each.keys[place] for each, place in zip((first, second), places, strict=True)]
    if len(common) == 0 or (keys[0] != keys[1]).any():
        raise UserError(
            "the cross-validations are of other reviews: compare those of one training split"
        )
    ours, theirs = shares[own], other_shares[other]
    p_value = None
    if first.num_repeats == second.num_repeats == 1:
        only = int((ours > theirs).sum()), int((theirs > ours).sum())
        p_value, interval = mcnemar(*only)[0], bootstrap_difference(*only, len(common))
    else:
        interval = _bootstrap(theirs - ours, seed)
    return Difference(
        len(common), float(ours.mean()), float(theirs.mean()), float((theirs - ours).mean()),
        interval, p_value,
    )  # fmt: skip


def difference_text(difference: Difference, first: Path, second: Path) -> str:
    """The comparison in a few lines of at most 80 columns."""
    names = [truncate(sanitize(str(each)), 40) for each in (first, second)]
    lines = [
        f"  {'A':<4}{names[0]:<42}{100 * difference.first:>8.2f} %",
        f"  {'B':<4}{names[1]:<42}{100 * difference.second:>8.2f} %",
        "",
        f"B less A: {100 * difference.difference:+.2f} points on "
        f"{difference.num_reviews:,} reviews, each predicted by models that had not seen it",
    ]
    if difference.difference_ci95 is not None:
        low, high = (100 * each for each in difference.difference_ci95)
        lines.append(f"95 % interval {low:+.2f} to {high:+.2f}")
    if difference.mcnemar_p is not None:
        lines.append(f"McNemar p = {difference.mcnemar_p:.3g}")
    return "\n".join(lines)


def _bootstrap(differences: np.ndarray, seed: int, num_resamples: int = 2_000) -> Interval | None:
    if np.ptp(differences) == 0:
        return None
    generator = np.random.default_rng(seed)
    at_once = max(1, _MOST_REVIEWS_OF_BLOCK // len(differences))
    means = np.concatenate([
        differences[generator.integers(len(differences), size=(count, len(differences)))].mean(1)
        for count in np.diff([*range(0, num_resamples, at_once), num_resamples])
    ])  # fmt: skip
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)
