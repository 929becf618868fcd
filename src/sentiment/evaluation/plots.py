"""Pictures of predictions. Each function takes plain arrays and returns a figure.

Throughout: ``probabilities`` and ``scores`` are (num_reviews, num_classes), ``labels`` are
(num_reviews,) right classes, and ``class_names`` name the classes in their order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sentiment.display.console import truncate
from sentiment.display.plots import COLORS, new_figure
from sentiment.evaluation.metrics import NUM_BINS, calibration_bins
from sentiment.evaluation.slices import Group

if TYPE_CHECKING:
    from matplotlib.figure import Figure


_MOST_CURVES = len(COLORS)
_MOST_COUNTS_SHOWN = 10  # classes of a confusion matrix whose cells hold legible numbers
_MOST_NAMES_SHOWN = 25
_CURVE_POINTS = 200
_FEWEST_FOR_LOGARITHMS = 50
_FAINT = "#9aa0a6"


def draw_confusion(confusion: np.ndarray, class_names: Sequence[str]) -> Figure:
    """The confusion matrix, (num_classes, num_classes); colours are shares of the right class."""
    confusion = np.asarray(confusion)
    num_classes = len(confusion)
    figure, axes = new_figure(4.2, 3.6)
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if num_classes <= _MOST_NAMES_SHOWN:
        names = [_name(each, 12) for each in class_names]
        axes.set_xticks(range(num_classes), names, rotation=90 if num_classes > 4 else 0)
        axes.set_yticks(range(num_classes), names)
    axes.set(xlabel="predicted class", ylabel="right class", title="Confusion")
    axes.grid(visible=False)
    if num_classes <= _MOST_COUNTS_SHOWN:
        for (row, column), count in np.ndenumerate(confusion):
            share = shares[row, column]
            text = f"{count:,}" + (f"\n{100 * share:.1f} %" if num_classes <= 4 else "")
            color = "white" if share > 0.6 else "black"
            axes.text(column, row, text, ha="center", va="center", color=color)
    figure.colorbar(image, ax=axes, label="share of the right class", format=_percent_ticks())
    return figure


def draw_roc(scores: np.ndarray, labels: np.ndarray, class_names: Sequence[str]) -> Figure:
    """ROC curves: of the second class where there are two, else of each against the rest."""
    from sklearn.metrics import auc, roc_curve

    _, axes = new_figure(4.2, 3.6)
    axes.plot([0, 1], [0, 1], color=_FAINT, linestyle=":", label="by chance")
    for each in _drawn_classes(labels, scores.shape[1]):
        false_positives, true_positives, _ = roc_curve(labels == each, scores[:, each])
        area = auc(false_positives, true_positives)
        name = _name(class_names[each], 16)
        axes.plot(*_thin(false_positives, true_positives), label=f"{name}: area {area:.4f}")
    return _finish_curves(axes, "false positive rate", "true positive rate", "ROC")


def draw_precision_recall(
    scores: np.ndarray, labels: np.ndarray, class_names: Sequence[str]
) -> Figure:
    """Precision over recall, for the classes of :func:`draw_roc`."""
    from sklearn.metrics import average_precision_score, precision_recall_curve

    _, axes = new_figure(4.2, 3.6)
    for color, each in zip(COLORS, _drawn_classes(labels, scores.shape[1]), strict=False):
        precision, recall, _ = precision_recall_curve(labels == each, scores[:, each])
        mean = average_precision_score(labels == each, scores[:, each])
        axes.axhline((labels == each).mean(), color=color, linestyle=":", linewidth=1)
        label = f"{_name(class_names[each], 16)}: mean {mean:.4f}"
        # Steps, as the average precision adds them up.
        axes.step(*_thin(recall, precision), where="pre", color=color, label=label)
    return _finish_curves(axes, "recall", "precision", "Precision and recall (dotted: by chance)")


def draw_reliability(
    before: np.ndarray,
    after: np.ndarray,
    labels: np.ndarray,
    *,
    temperature: float,
    fitted_here: bool,
) -> Figure:
    """Accuracy over confidence in 15 bins, with the numbers of reviews below.

    Args:
        before: (num_reviews, num_classes) probabilities at temperature 1.
        after: the same at the run's temperature.
        labels: (num_reviews,) right classes.
        temperature: the run's.
        fitted_here: whether it was fitted on these reviews.
    """
    figure, (upper, lower) = new_figure(4.2, 3.6, rows=2)
    upper.get_gridspec().set_height_ratios((3, 1))
    upper.plot([0, 1], [0, 1], color=_FAINT, linestyle=":")
    fitted = ", fitted here" if fitted_here else ""
    names = ("before (temperature 1)", f"after (temperature {temperature:.2f}{fitted})")
    styles = ((COLORS[1], "s", -0.5), (COLORS[0], "o", 0.5))
    for probabilities, name, (color, marker, side) in zip(
        (before, after), names, styles, strict=True
    ):
        is_right = probabilities.argmax(axis=1) == labels
        counts, confidence, accuracy = calibration_bins(probabilities.max(axis=1), is_right)
        used = counts > 0
        upper.plot(
            confidence[used], accuracy[used], color=color, marker=marker, markersize=4, label=name
        )
        share = 0.4 / NUM_BINS
        middles = (np.arange(NUM_BINS) + 0.5) / NUM_BINS
        lower.bar(middles + side * share, counts, width=share, color=color)
    for axes in (upper, lower):
        axes.set_xlim(np.floor(NUM_BINS / before.shape[1]) / NUM_BINS - 0.01, 1.01)
    upper.set(ylim=(-0.03, 1.05), ylabel="accuracy", title="Reliability", xticklabels=[])
    upper.legend(loc="lower right")
    lower.set(xlabel="confidence in the predicted class", ylabel="reviews")
    return figure


def draw_scores(
    probabilities: np.ndarray, labels: np.ndarray, class_names: Sequence[str]
) -> Figure:
    """Histograms by right class: of the second class's probability, or of the right class's own."""
    figure, axes = new_figure(4.2, 3.6)
    is_binary = probabilities.shape[1] == 2
    edges = np.linspace(0, 1, 41 if is_binary and len(labels) > 5_000 else 21)
    most = 0
    for each in _most_frequent(labels, probabilities.shape[1]):
        shown = probabilities[labels == each, 1 if is_binary else each]
        counts, _ = np.histogram(shown, edges)
        most = max(most, int(counts.max()))
        axes.stairs(counts, edges, label=_name(class_names[each], 16), linewidth=1.5)
    which = f"“{_name(class_names[1], 16)}”" if is_binary else "the right class"
    axes.set(xlabel=f"probability of {which}", ylabel="reviews", xlim=(-0.01, 1.01))
    axes.set_title("Probabilities by right class")
    if most > _FEWEST_FOR_LOGARITHMS:
        axes.set(yscale="log", ylim=(0.8, None))
    axes.legend()
    return figure


def draw_groups(groups: Sequence[Group], title: str) -> Figure:
    """Accuracy of groups of reviews with 95 % intervals; below each name its number of reviews."""
    figure, axes = new_figure(4.2, 3.6)
    accuracies = np.array([each.accuracy for each in groups])
    lows, highs = np.array([each.accuracy_ci95 for each in groups]).T
    places = np.arange(len(groups))[::-1]
    errors = np.maximum((accuracies - lows, highs - accuracies), 0)
    axes.errorbar(accuracies, places, xerr=errors, fmt="o", capsize=3, color=COLORS[0])
    names = [f"{each.name}\n{each.num_reviews:,} reviews" for each in groups]
    axes.set_yticks(places, names)
    axes.set(ylim=(-0.6, len(groups) - 0.4), xlabel="accuracy, with its 95 % interval", title=title)
    axes.xaxis.set_major_formatter(_percent_ticks())
    axes.locator_params(axis="x", nbins=5)
    return figure


def _drawn_classes(labels: np.ndarray, num_classes: int) -> list[int]:
    """Classes with a curve: those that occur and do not stand alone, the most frequent ones."""
    if num_classes == 2:
        return [1] if len(np.unique(labels)) == 2 else []
    counts = np.bincount(labels, minlength=num_classes)
    return [each for each in _most_frequent(labels, num_classes) if counts[each] < len(labels)]


def _most_frequent(labels: np.ndarray, num_classes: int) -> list[int]:
    """At most seven classes that occur, as there are colours to tell apart, in their order."""
    counts = np.bincount(labels, minlength=num_classes)
    chosen = np.argsort(-counts, kind="stable")[:_MOST_CURVES]
    return sorted(int(each) for each in chosen if counts[each])


def _thin(xs: np.ndarray, ys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most 200 points of a curve within the unit square, evenly spaced along its length."""
    if len(xs) <= _CURVE_POINTS:
        return xs, ys
    steps = np.abs(np.diff(xs)) + np.abs(np.diff(ys))
    lengths = np.concatenate(([0], np.cumsum(steps)))
    wanted = np.linspace(0, lengths[-1], _CURVE_POINTS)
    kept = np.unique(np.searchsorted(lengths, wanted).clip(max=len(xs) - 1))
    return xs[kept], ys[kept]


def _finish_curves(axes: Any, xlabel: str, ylabel: str, title: str) -> Figure:
    axes.set(xlabel=xlabel, ylabel=ylabel, title=title, xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower right" if title == "ROC" else "lower left")
    if len(axes.lines) <= 1:
        axes.text(0.5, 0.6, "undefined: a class does not occur", ha="center", color=_FAINT)
    return axes.figure


def _name(name: str, columns: int) -> str:
    """A class's name as matplotlib shows it: no formula, nor hidden from the legend."""
    shown = truncate(name, columns).replace("$", r"\$")
    return f"\u200b{shown}" if shown.startswith("_") else shown


def _percent_ticks() -> Any:
    from matplotlib.ticker import PercentFormatter

    return PercentFormatter(xmax=1, symbol=" %")
