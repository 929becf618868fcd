"""Figures of an evaluation.

``probabilities`` and ``scores`` are (num_reviews, num_classes), ``labels`` (num_reviews,).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sentiment.display.console import truncate
from sentiment.display.plots import COLORS, new_figure
from sentiment.evaluation.calibration import apply_temperature
from sentiment.evaluation.evaluate import Predictions
from sentiment.evaluation.metrics import NUM_BINS, calibration_bins, ranking_scores, scored_classes
from sentiment.evaluation.slices import KEEPS, Group, Truncation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FAINT = "#9aa0a6"


def draw_predictions(
    predictions: Predictions, class_names: Sequence[str], temperature: float, *, fitted_here: bool
) -> dict[str, Figure]:
    """All figures of predictions at temperature 1, by their TensorBoard tags.

    ``fitted_here`` says whether ``temperature`` was fitted on these reviews.
    """
    labels, num_classes = predictions.labels, len(class_names)
    classes = scored_classes(num_classes, predictions.positive)
    confusion = np.zeros((num_classes, num_classes), dtype=np.int64)
    np.add.at(confusion, (labels, predictions.predicted), 1)
    scores = ranking_scores(predictions.log_probabilities)
    before = predictions.probabilities
    after = np.exp(apply_temperature(predictions.log_probabilities, temperature))
    return {
        "confusion": draw_confusion(confusion, class_names),
        "roc": draw_roc(scores, labels, class_names, classes),
        "precision_recall": draw_precision_recall(scores, labels, class_names, classes),
        "reliability": draw_reliability(
            before, after, labels, temperature=temperature, fitted_here=fitted_here
        ),
        "scores": draw_scores(after, labels, class_names, classes),
    }


def draw_confusion(confusion: np.ndarray, class_names: Sequence[str]) -> Figure:
    """The (num_classes, num_classes) confusion matrix, coloured by shares of the right class."""
    num_classes = len(confusion)
    figure, axes = new_figure(4.2, 3.6)
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if num_classes <= 25:  # else there is no room for the names
        names = [_name(name, 12) for name in class_names]
        axes.set_xticks(range(num_classes), names, rotation=90 if num_classes > 4 else 0)
        axes.set_yticks(range(num_classes), names)
    axes.set(xlabel="predicted class", ylabel="right class", title="Confusion")
    axes.grid(visible=False)
    if num_classes <= 10:  # else the cells have no room for numbers
        for (row, column), count in np.ndenumerate(confusion):
            share = shares[row, column]
            text = f"{count:,}" + (f"\n{100 * share:.1f} %" if num_classes <= 4 else "")
            color = "white" if share > 0.6 else "black"
            axes.text(column, row, text, ha="center", va="center", color=color)
    figure.colorbar(image, ax=axes, label="share of the right class", format=_percent_ticks())
    return figure


def draw_roc(
    scores: np.ndarray, labels: np.ndarray, class_names: Sequence[str], classes: Sequence[int]
) -> Figure:
    """ROC curves of some classes, each against the rest."""
    from sklearn.metrics import auc, roc_curve

    _, axes = new_figure(4.2, 3.6)
    axes.plot([0, 1], [0, 1], color=_FAINT, linestyle=":", label="by chance")
    for label in _drawn_classes(labels, classes):
        false_positives, true_positives, _ = roc_curve(labels == label, scores[:, label])
        area = auc(false_positives, true_positives)
        name = _name(class_names[label], 16)
        axes.plot(false_positives, true_positives, label=f"{name}: area {area:.4f}")
    return _finish_curves(axes, "false positive rate", "true positive rate", "ROC")


def draw_precision_recall(
    scores: np.ndarray, labels: np.ndarray, class_names: Sequence[str], classes: Sequence[int]
) -> Figure:
    """Precision over recall of some classes, each against the rest."""
    from sklearn.metrics import average_precision_score, precision_recall_curve

    _, axes = new_figure(4.2, 3.6)
    for color, label in zip(COLORS, _drawn_classes(labels, classes), strict=False):
        is_positive = labels == label
        precision, recall, _ = precision_recall_curve(is_positive, scores[:, label])
        mean = average_precision_score(is_positive, scores[:, label])
        axes.axhline(is_positive.mean(), color=color, linestyle=":", linewidth=1)
        name = f"{_name(class_names[label], 16)}: mean {mean:.4f}"
        # In steps, as the average precision adds them up.
        axes.step(recall, precision, where="pre", color=color, label=name)
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

    ``before`` and ``after`` are probabilities at temperature 1 and at the run's.
    """
    figure, (upper, lower) = new_figure(4.2, 3.6, rows=2)
    upper.get_gridspec().set_height_ratios((3, 1))
    upper.plot([0, 1], [0, 1], color=_FAINT, linestyle=":")
    fitted = ", fitted here" if fitted_here else ""
    names = ("before (temperature 1)", f"after (temperature {temperature:.2f}{fitted})")
    styles = ((before, COLORS[1], "s", -0.5), (after, COLORS[0], "o", 0.5))
    for name, (probabilities, color, marker, side) in zip(names, styles, strict=True):
        is_right = probabilities.argmax(axis=1) == labels
        counts, confidence, accuracy = calibration_bins(probabilities.max(axis=1), is_right)
        used = counts > 0
        style = {"color": color, "marker": marker, "markersize": 4}
        upper.plot(confidence[used], accuracy[used], **style, label=name)
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
    probabilities: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    classes: Sequence[int],
) -> Figure:
    """Histograms by right class: of a single scored class's probability, else of its own."""
    figure, axes = new_figure(4.2, 3.6)
    positive = classes[0] if len(classes) == 1 else None
    edges = np.linspace(0, 1, 41 if positive is not None and len(labels) > 5_000 else 21)
    most = 0
    for label in _most_frequent(labels, range(probabilities.shape[1])):
        column = label if positive is None else positive
        counts, _ = np.histogram(probabilities[labels == label, column], edges)
        most = max(most, int(counts.max()))
        axes.stairs(counts, edges, label=_name(class_names[label], 16), linewidth=1.5)
    which = "the right class" if positive is None else f"“{_name(class_names[positive], 16)}”"
    axes.set(xlabel=f"probability of {which}", ylabel="reviews", xlim=(-0.01, 1.01))
    axes.set_title("Probabilities by right class")
    if most > 50:
        axes.set(yscale="log", ylim=(0.8, None))
    axes.legend()
    return figure


def draw_groups(groups: Sequence[Group], title: str) -> Figure:
    """Accuracies of groups of reviews with 95 % intervals."""
    figure, axes = new_figure(4.2, 3.6)
    accuracies = np.array([group.accuracy for group in groups])
    lows, highs = np.array([group.accuracy_ci95 for group in groups]).T
    heights = np.arange(len(groups))[::-1]
    errors = np.maximum((accuracies - lows, highs - accuracies), 0)
    axes.errorbar(accuracies, heights, xerr=errors, fmt="o", capsize=3, color=COLORS[0])
    axes.set_yticks(heights, [f"{group.name}\n{group.num_reviews:,} reviews" for group in groups])
    axes.set(ylim=(-0.6, len(groups) - 0.4), xlabel="accuracy, with its 95 % interval", title=title)
    axes.xaxis.set_major_formatter(_percent_ticks())
    axes.locator_params(axis="x", nbins=5)
    return figure


def draw_truncation(truncations: Sequence[Truncation]) -> Figure:
    """Accuracy over the number of tokens kept, with a line for each way to choose them."""
    figure, axes = new_figure(5.6, 3.6)
    lengths = list(dict.fromkeys(result.max_length for result in truncations))
    for index, keep in enumerate(KEEPS):
        results = [result for result in truncations if result.keep == keep]
        accuracies = 100 * np.array([result.accuracy for result in results])
        bounds = 100 * np.array([result.accuracy_ci95 for result in results]).T
        errors = np.abs(bounds - accuracies)  # (2, num_lengths)
        # Shifted, so that the bars of different lines don't overlap.
        shifted = [length * (1 + 0.025 * (index - 1)) for length in lengths]
        axes.errorbar(shifted, accuracies, yerr=errors, marker="o", capsize=3, label=keep)
    axes.set_xscale("log")
    axes.set_xticks(lengths, [f"{length:,}" for length in lengths])
    axes.minorticks_off()
    axes.set(xlabel="tokens kept of a review", ylabel="accuracy in %, 95 % interval")
    axes.legend(title="kept of longer ones")
    return figure


def _drawn_classes(labels: np.ndarray, classes: Sequence[int]) -> list[int]:
    """The most frequent of some classes for which a curve is defined."""
    return _most_frequent(labels, classes) if len(np.unique(labels)) > 1 else []


def _most_frequent(labels: np.ndarray, classes: Sequence[int]) -> list[int]:
    """The most frequent of some classes that occur, ascending, at most one per colour."""
    counts = np.bincount(labels, minlength=max(classes) + 1)
    occurring = [label for label in classes if counts[label]]
    return sorted(sorted(occurring, key=lambda label: -counts[label])[: len(COLORS)])


def _finish_curves(axes: Any, xlabel: str, ylabel: str, title: str) -> Figure:
    axes.set(xlabel=xlabel, ylabel=ylabel, title=title, xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower right" if title == "ROC" else "lower left")
    if len(axes.lines) <= 1:
        axes.text(0.5, 0.6, "undefined: a class does not occur", ha="center", color=_FAINT)
    return axes.figure


def _name(name: str, columns: int) -> str:
    """A class's name as text: ``$`` would start a formula, ``_`` hide it from the legend."""
    name = truncate(name, columns).replace("$", r"\$")
    return f"\u200b{name}" if name.startswith("_") else name


def _percent_ticks() -> Any:
    from matplotlib.ticker import PercentFormatter

    return PercentFormatter(xmax=1, symbol=" %")
