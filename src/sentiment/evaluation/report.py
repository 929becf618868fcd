"""An evaluation as a table, JSON, CSV and an HTML page."""

from __future__ import annotations

import csv
import os
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sentiment.data.batches import EncodedCorpus
from sentiment.data.reviews import Reviews
from sentiment.display.console import pad, truncate, width
from sentiment.display.pages import write_page
from sentiment.display.plots import as_svg
from sentiment.evaluation.calibration import Calibration, apply_temperature, measure_calibration
from sentiment.evaluation.evaluate import Predictions
from sentiment.evaluation.metrics import (
    FEWEST_TO_RESAMPLE,
    NUM_RESAMPLES,
    Interval,
    Metrics,
    auroc_interval,
    f1_interval,
    ranking_scores,
)
from sentiment.evaluation.plots import draw_groups
from sentiment.evaluation.slices import (
    Cut,
    Example,
    Group,
    by_cut,
    by_length,
    by_unknown_share,
    confident_mistakes,
    uncertain_reviews,
    unknown_shares,
)
from sentiment.runtime.files import write_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Evaluation:
    """A model measured on reviews.

    Attributes:
        class_names: the classes, in the order of their labels.
        predictions: at temperature 1, as all of ``metrics`` is.
        calibrated: at the run's temperature, as the examples are.
        metrics: the figures.
        f1_ci95, auroc_ci95: 95 % intervals of two of them; None where they are not defined. For
            F1 by bootstrap, up to ten classes; for the AUROC of two classes by DeLong's method.
        calibration: scores of the probabilities before and after the temperature.
        groups: accuracy by kind of review: ``length``, ``unknown`` and ``cut``.
        mistakes, uncertain: reviews to read.
        num_tokens: (num_reviews,) before cutting.
        was_cut: (num_reviews,) whether a review is longer than the model reads.
        unknown_token_share: of all tokens, cut-off ones included.
    """

    class_names: tuple[str, ...]
    predictions: Predictions
    calibrated: Predictions
    metrics: Metrics
    f1_ci95: Interval | None
    auroc_ci95: Interval | None
    calibration: Calibration
    groups: dict[str, list[Group]]
    mistakes: list[Example]
    uncertain: list[Example]
    num_tokens: np.ndarray
    was_cut: np.ndarray
    unknown_token_share: float

    def as_dict(self) -> dict[str, Any]:
        """The figures as JSON-able values."""
        return {
            **self.metrics.as_dict(),
            "f1_ci95": self.f1_ci95,
            "auroc_ci95": self.auroc_ci95,
            "calibration": self.calibration.as_dict(),
            "accuracy_by": {
                name: [asdict(group) for group in groups] for name, groups in self.groups.items()
            },
            "unknown_token_share": self.unknown_token_share,
            "cut_review_share": float(self.was_cut.mean()),
            "class_names": list(self.class_names),
        }


def measure(
    predictions: Predictions,
    reviews: Reviews,
    corpus: EncodedCorpus,
    temperature: float,
    *,
    fitted_here: bool,
) -> Evaluation:
    """Measure what a model says of reviews.

    Args:
        predictions: what it says, at temperature 1.
        reviews: of which reviews, with the model's classes.
        corpus: the same, as the model read them.
        temperature: the run's.
        fitted_here: whether it was fitted on these reviews.
    """
    log_probabilities, labels = predictions.log_probabilities, predictions.labels
    metrics = predictions.metrics()
    is_binary = log_probabilities.shape[1] == 2
    calibrated = Predictions(apply_temperature(log_probabilities, temperature), labels)
    is_right = predictions.predicted == labels
    num_tokens, was_cut = corpus.full_lengths.numpy(), corpus.was_cut().numpy()
    return Evaluation(
        class_names=reviews.class_names,
        predictions=predictions,
        calibrated=calibrated,
        metrics=metrics,
        f1_ci95=f1_interval(np.array(metrics.confusion)),
        auroc_ci95=auroc_interval(ranking_scores(log_probabilities)[:, 1], labels == 1)
        if is_binary
        else None,
        calibration=measure_calibration(
            log_probabilities, labels, temperature, fitted_here=fitted_here
        ),
        groups={
            "length": by_length(num_tokens, is_right),
            "unknown": by_unknown_share(unknown_shares(corpus), is_right),
            "cut": by_cut(was_cut, is_right),
        },
        mistakes=confident_mistakes(calibrated, reviews, num_tokens),
        uncertain=uncertain_reviews(calibrated, reviews, num_tokens),
        num_tokens=num_tokens,
        was_cut=was_cut,
        unknown_token_share=corpus.unknown_share(),
    )


_COLUMNS = 80
_FIRST = 24  # columns of a row's name
# Of the confusion matrix: before a line, of a right class's name, and after the predicted ones.
_INDENT, _ROW_NAME, _OVER_COLUMNS = "  ", 13, "  (predicted)"
_UNDEFINED = "undefined: a class does not occur"
# What the columns of predictions.csv hold, for those who find the file without the program.
_CSV_COLUMNS = {
    "row": "place in the split, from 0",
    "label": "right class",
    "predicted": "most probable class",
    "probability_NAME": "of each class, at calibration.temperature",
    "num_tokens": "tokens of the review before cutting",
    "was_cut": "whether it has more than the model reads",
}


def report_table(evaluation: Evaluation, title: str) -> str:
    """The figures as a table of at most 80 columns, below a title's lines."""
    metrics = evaluation.metrics
    f1_name = f"F1 of {truncate(evaluation.class_names[1], 17)}"
    if len(evaluation.class_names) > 2:
        f1_name = "F1, mean over classes"
    no_f1 = "undefined: the class neither occurs nor is predicted"
    rows = [
        ("reviews", f"{metrics.num_reviews:>7,}"),
        ("accuracy", _percent(metrics.accuracy) + _span(metrics.accuracy_ci95, 100)),
        (f1_name, _decimal(metrics.f1, no_f1) + _span(evaluation.f1_ci95, 1)),
        ("AUROC", _decimal(metrics.auroc) + _span(evaluation.auroc_ci95, 1)),
        ("average precision", _decimal(metrics.average_precision)),
    ]
    lines = [title, "", *(f"  {pad(name, _FIRST)}{value}" for name, value in rows)]
    lines += ["", *_calibration_lines(evaluation.calibration)]
    lines += ["", f"  {'accuracy by kind':<{_FIRST}}reviews  accuracy       95 %"]
    for number, groups in enumerate(evaluation.groups.values()):
        lines += [""] * (number > 0) + [_group_line(group) for group in groups]
    lines += ["", *_confusion_lines(metrics, evaluation.class_names)]
    return "\n".join(line.rstrip() for line in lines)


def _percent(share: float) -> str:
    return f"{100 * share:7.2f} %"


def _decimal(value: float | None, undefined: str = _UNDEFINED) -> str:
    return undefined if value is None else f"{value:7.4f}  "


def _span(interval: Interval | None, scale: int) -> str:
    if interval is None:
        return ""
    low, high = (f"{scale * bound:.{2 if scale == 100 else 4}f}" for bound in interval)
    return f"   95 %: {low} to {high}"


def _calibration_lines(calibration: Calibration) -> list[str]:
    columns = [("as trained", calibration.before)]
    columns.append((f"temperature {calibration.temperature:.2f}", calibration.after))
    if calibration.cross_fitted is not None:
        columns.append(("cross-fitted", calibration.cross_fitted))
    lines = [f"  {'probabilities':<{_FIRST}}" + "".join(f"{name:>18}" for name, _ in columns)]
    for name, field in (
        ("negative log-likelihood", "nll"),
        ("Brier score", "brier"),
        ("calibration error (ECE)", "ece"),
    ):
        cells = "".join(f"{getattr(scores, field):>18.4f}" for _, scores in columns)
        lines.append(f"  {name:<{_FIRST}}{cells}")
    chance = f"{calibration.ece_by_chance:.4f}"
    lines.append(f"  {'  by chance alone':<{_FIRST}}{chance:>36}")
    if calibration.fitted_here:
        flattered = "  The temperature was fitted on these reviews, which flatters its column"
        lines.append(f"{flattered}{'.' if calibration.cross_fitted is None else ';'}")
    if calibration.cross_fitted is not None:
        lines.append("  cross-fitted is each half at the temperature of the other half.")
    return lines


def _group_line(group: Group) -> str:
    low, high = (100 * bound for bound in group.accuracy_ci95)
    shares = f"{100 * group.accuracy:7.2f} %   {low:.2f} to {high:.2f}"
    return f"  {group.name:<{_FIRST}}{group.num_reviews:>7,} {shares}"


def _confusion_lines(metrics: Metrics, class_names: Sequence[str]) -> list[str]:
    """The matrix or, where it is too wide, the pairs of classes most often taken for each other."""
    digits = len(f"{metrics.num_reviews:,}")
    room = (_COLUMNS - len(_INDENT) - _ROW_NAME - len(_OVER_COLUMNS)) // len(class_names)
    if room < max(7, digits + 2):
        return _most_confused(metrics, class_names)
    names = [truncate(name, min(room - 2, 20)) for name in class_names]
    wide = max(digits, 6, *map(width, names)) + 2
    left = [truncate(name, _ROW_NAME - 1) for name in class_names]
    header = "".join(pad(name, min(wide, room), right=True) for name in names)
    lines = [f"{_INDENT}{'right class':<{_ROW_NAME}}{header}{_OVER_COLUMNS}"]
    for name, row in zip(left, metrics.confusion, strict=True):
        cells = "".join(f"{count:>{min(wide, room)},}" for count in row)
        lines.append(f"{_INDENT}{pad(name, _ROW_NAME)}{cells}")
    return lines


def _most_confused(metrics: Metrics, class_names: Sequence[str]) -> list[str]:
    confusion = np.array(metrics.confusion)
    np.fill_diagonal(confusion, 0)
    lines = [f"  {'right class':<27}{'predicted':<27}reviews"]
    for place in np.argsort(-confusion, axis=None, kind="stable")[:10].tolist():
        right, predicted = divmod(place, len(class_names))
        if confusion[right, predicted]:
            names = (pad(truncate(class_names[each], 25), 27) for each in (right, predicted))
            lines.append(f"  {''.join(names)}{confusion[right, predicted]:>7,}")
    return lines


def write_report(path: Path, evaluation: Evaluation, **details: Any) -> None:
    """Write the figures and what they were measured on as JSON."""
    columns = {"predictions_columns": _CSV_COLUMNS}
    write_json(path, {**evaluation.as_dict(), **details, **columns})


def write_predictions(
    path: Path,
    predictions: Predictions,
    class_names: tuple[str, ...],
    num_tokens: np.ndarray,
    was_cut: np.ndarray,
) -> None:
    """Write one row a review, in the order of the data, as CSV.

    Args:
        path: the file to write.
        predictions: what the model says, at the run's temperature, as ``sentiment predict`` does.
        class_names: names of the classes.
        num_tokens: (num_reviews,) tokens of each review before cutting.
        was_cut: (num_reviews,) whether a review was longer than the model reads.
    """
    new = path.with_name(path.name + ".new")
    probability_names = [f"probability_{name}" for name in class_names]
    rows = zip(
        predictions.labels.tolist(),
        predictions.predicted.tolist(),
        predictions.probabilities.tolist(),
        num_tokens.tolist(),
        was_cut.tolist(),
        strict=True,
    )
    with new.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["row", "label", "predicted", *probability_names, "num_tokens", "was_cut"])
        for row, (label, predicted, probabilities, length, cut) in enumerate(rows):
            shown = [f"{value:.6f}" for value in probabilities]
            names = class_names[label], class_names[predicted]
            writer.writerow([row, *names, *shown, length, "true" if cut else "false"])
    os.replace(new, path)


_CAPTIONS = {
    "confusion": "How many reviews of each class (rows) were taken for which (columns).",
    "roc": "The farther towards the upper left corner, the better; the area is the AUROC.",
    "precision_recall": "Dotted is what guessing reaches. The mean is the average precision.",
    "reliability": "On the diagonal, reviews predicted with 80 % confidence are right 80 % of the "
    "time. Bars count the reviews; their axis is linear.",
    "scores": "How sure the model is, at the run's temperature, by the class that is right. "
    "Where there are many reviews, their axis is logarithmic.",
    "cutting": "This model on reviews cut to other lengths, to their first words, last, or both.",
    "length": "By tokens before cutting.",
    "unknown": "By the share of words that the vocabulary lacks among those that are read.",
    "cut": "By whether the model reads all of the review.",
}
_TITLES = {
    "length": "Accuracy by length",
    "unknown": "Accuracy by unknown words",
    "cut": "Accuracy by cutting",
}


def write_evaluation_page(
    path: Path,
    evaluation: Evaluation,
    pictures: dict[str, Figure],
    *,
    cuts: Sequence[Cut] = (),
    title: str,
    facts: dict[str, str],
    notes: list[str],
    trained_here: bool = False,
) -> None:
    """Write the page.

    Args:
        path: the file to write.
        evaluation: what was measured.
        pictures: of the predictions, by tag.
        cuts: what cutting costs, where that was measured.
        title: heading of the page.
        facts: what was measured on what, by name.
        notes: what a reader must know before quoting the figures.
        trained_here: whether the model was trained on these reviews.
    """
    drawn = dict(pictures)
    for name, groups in evaluation.groups.items():
        drawn[name] = draw_groups(groups, _TITLES[name])
    with warnings.catch_warnings():
        # A class may have a name in a script that the font lacks, but the browser's has.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        shown = [
            {"name": name, "svg": as_svg(figure), "caption": _CAPTIONS[name]}
            for name, figure in drawn.items()
        ]
    write_page(
        path,
        "report.html",
        evaluation=evaluation,
        metrics=evaluation.metrics,
        calibration=evaluation.calibration,
        class_names=evaluation.class_names,
        groups=[(_TITLES[name], groups) for name, groups in evaluation.groups.items()],
        cuts=cuts,
        examples=_examples(evaluation),
        pictures=shown,
        title=title,
        facts=facts,
        notes=notes,
        trained_here=trained_here,
        num_resamples=NUM_RESAMPLES,
        fewest_to_resample=FEWEST_TO_RESAMPLE,
    )


def _examples(evaluation: Evaluation) -> list[tuple[str, str, list[dict[str, Any]]]]:
    kinds = (
        ("Most confident mistakes", "mistakes", evaluation.mistakes),
        ("Least certain reviews", "uncertain", evaluation.uncertain),
    )
    return [
        (
            heading,
            anchor,
            [{**vars(each), "is_right": each.label == each.predicted} for each in examples],
        )
        for heading, anchor, examples in kinds
    ]
