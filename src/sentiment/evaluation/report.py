"""The evaluation of a set of predictions, and its tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sentiment.data.batches import EncodedCorpus
from sentiment.data.checks import few_reviews
from sentiment.data.reviews import Reviews
from sentiment.display.console import COLUMNS, format_table, truncate
from sentiment.evaluation.calibration import Calibration, measure_calibration
from sentiment.evaluation.evaluate import Predictions, ThresholdScores, measure_threshold
from sentiment.evaluation.metrics import (
    ClassScores,
    Interval,
    Metrics,
    auroc_interval,
    f1_interval,
    ranking_scores,
    scored_classes,
)
from sentiment.evaluation.slices import (
    KEEPS,
    Example,
    Group,
    Truncation,
    by_cut,
    by_length,
    by_unknown_share,
    find_examples,
    unknown_shares,
)

Row = Sequence[str]


@dataclass(frozen=True)
class Evaluation:
    """A model's results on a set of reviews."""

    class_names: tuple[str, ...]  # in the order of their labels
    predictions: Predictions  # at temperature 1, like all of metrics
    calibrated: Predictions  # at the run's temperature, like the examples
    metrics: Metrics
    f1_ci95: Interval | None  # by bootstrap; None if undefined
    auroc_ci95: Interval | None  # of the positive class, by DeLong's method; None without one
    threshold: ThresholdScores | None  # by F1 on the validation reviews; None if unknown
    calibration: Calibration
    groups: dict[str, list[Group]]  # accuracy by "length", "unknown" and "cut"
    mistakes: list[Example]
    uncertain: list[Example]
    row_numbers: np.ndarray  # (num_reviews,) in the split's files, from 1
    num_tokens: np.ndarray  # (num_reviews,) before truncation
    was_cut: np.ndarray  # (num_reviews,) bool: longer than what the model reads
    unknown_token_share: float  # of all tokens, truncated ones included

    @property
    def positive_name(self) -> str | None:
        """The class that F1, AUROC and average precision are about; None if they are means."""
        scored = scored_classes(len(self.class_names), self.predictions.positive)
        return self.class_names[scored[0]] if len(scored) == 1 else None

    @property
    def remarks(self) -> list[str]:
        """What is wrong with the predictions of rare classes, and what to do."""
        metrics = self.metrics
        remarks = [describe_collapse(metrics.by_class, self.class_names)]
        if few := few_reviews(self.class_names, [each.num_reviews for each in metrics.by_class]):
            remarks.append(f"The split has {few}, so the figures are imprecise.")
        return [remark for remark in remarks if remark]

    def as_dict(self) -> dict[str, Any]:
        return {
            **self.metrics.as_dict(),
            "f1_ci95": self.f1_ci95,
            "auroc_ci95": self.auroc_ci95,
            "positive_class": self.positive_name,
            "threshold": None if self.threshold is None else asdict(self.threshold),
            "calibration": asdict(self.calibration),
            "accuracy_by": {
                name: [asdict(group) for group in groups] for name, groups in self.groups.items()
            },
            "unknown_token_share": self.unknown_token_share,
            "cut_review_share": float(self.was_cut.mean()),
            "class_names": list(self.class_names),
        }


def evaluate_predictions(
    predictions: Predictions,
    reviews: Reviews,
    corpus: EncodedCorpus,
    temperature: float,
    *,
    fitted_here: bool,
    threshold: float | None = None,
) -> Evaluation:
    """Evaluate predictions made at temperature 1.

    ``corpus`` holds the reviews as the model read them; ``fitted_here`` says whether the run's
    ``temperature`` and ``threshold`` were fitted on them.
    """
    log_probabilities, labels = predictions.log_probabilities, predictions.labels
    metrics = predictions.metrics()
    scored = scored_classes(log_probabilities.shape[1], predictions.positive)
    auroc_ci95 = None
    if len(scored) == 1:
        scores = ranking_scores(log_probabilities)[:, scored[0]]
        auroc_ci95 = auroc_interval(scores, labels == scored[0])
    calibrated = predictions.calibrated(temperature)
    is_right = predictions.is_right
    num_tokens, was_cut = corpus.full_lengths.numpy(), corpus.was_cut().numpy()
    mistakes, uncertain = find_examples(calibrated, reviews, num_tokens)
    return Evaluation(
        class_names=reviews.class_names,
        predictions=predictions,
        calibrated=calibrated,
        metrics=metrics,
        f1_ci95=f1_interval(np.array(metrics.confusion), predictions.positive),
        auroc_ci95=auroc_ci95,
        threshold=None
        if threshold is None
        else measure_threshold(threshold, calibrated, fitted_here=fitted_here),
        calibration=measure_calibration(
            log_probabilities, labels, temperature, fitted_here=fitted_here
        ),
        groups={
            "length": by_length(num_tokens, is_right),
            "unknown": by_unknown_share(unknown_shares(corpus), is_right),
            "cut": by_cut(was_cut, is_right),
        },
        mistakes=mistakes,
        uncertain=uncertain,
        row_numbers=reviews.row_numbers(),
        num_tokens=num_tokens,
        was_cut=was_cut,
        unknown_token_share=corpus.unknown_share(),
    )


_NAME_COLUMNS = 24  # of all tables, so that they align
_UNDEFINED = "undefined: a class does not occur"


def report_table(evaluation: Evaluation, title: str) -> str:
    """The evaluation as tables of at most 80 columns, below a title."""
    tables = [
        title,
        _metrics_table(evaluation),
        _calibration_table(evaluation.calibration),
        format_table(group_rows(evaluation.groups), min_widths=[_NAME_COLUMNS]),
        _confusion_table(evaluation.metrics, evaluation.class_names),
        _classes_table(evaluation),
    ]
    return "\n\n".join(tables)


def truncation_table(truncations: Sequence[Truncation]) -> str:
    title = "accuracy in %, with 95 % intervals, by tokens kept of each review"
    return f"{title}\n{format_table(truncation_rows(truncations), align='>')}"


def truncation_rows(truncations: Sequence[Truncation]) -> list[Row]:
    """A row for each length, a column for each choice of the tokens that are kept."""
    rows: list[Row] = [("tokens", "longer", *KEEPS)]
    for max_length in dict.fromkeys(result.max_length for result in truncations):
        results = [result for result in truncations if result.max_length == max_length]
        cells = [
            f"{100 * result.accuracy:.1f} ({_span(result.accuracy_ci95, 100, 1, '-')})"
            for result in results
        ]
        rows.append((f"{max_length:,}", f"{100 * results[0].cut_share:.1f} %", *cells))
    return rows


def _metrics_table(evaluation: Evaluation) -> str:
    metrics = evaluation.metrics
    f1_name = "F1, mean over classes"
    if evaluation.positive_name is not None:
        f1_name = f"F1 of {truncate(evaluation.positive_name, 17)}"
    no_f1 = "undefined: the class neither occurs nor is predicted"
    rows = [
        ("", "", "95 % interval"),
        ("reviews", f"{metrics.num_reviews:,}"),
        ("accuracy", f"{100 * metrics.accuracy:.2f} %", _span(metrics.accuracy_ci95, 100, 2)),
        (f1_name, *_decimal(metrics.f1, evaluation.f1_ci95, no_f1)),
        ("AUROC", *_decimal(metrics.auroc, evaluation.auroc_ci95)),
        ("average precision", *_decimal(metrics.average_precision)),
    ]
    return format_table(rows, align="<><", min_widths=[_NAME_COLUMNS, 8])


def _decimal(
    value: float | None, interval: Interval | None = None, undefined: str = _UNDEFINED
) -> tuple[str, str]:
    if value is None:
        return "", undefined
    return f"{value:.4f}", "" if interval is None else _span(interval, 1, 4)


def _span(interval: Interval, scale: int, digits: int, between: str = " to ") -> str:
    return between.join(f"{scale * bound:.{digits}f}" for bound in interval)


def calibration_rows(calibration: Calibration) -> list[Row]:
    columns = {
        "as trained": calibration.before,
        f"temperature {calibration.temperature:.2f}": calibration.after,
    }
    if calibration.cross_fitted is not None:
        columns["cross-fitted"] = calibration.cross_fitted
    rows: list[Row] = [("probabilities", *columns)]
    titles = ("negative log-likelihood", "Brier score", "calibration error (ECE)")
    for title, field in zip(titles, ("nll", "brier", "ece"), strict=True):
        rows.append((title, *(f"{getattr(scores, field):.4f}" for scores in columns.values())))
    return [*rows, ("  ECE by chance alone", "", f"{calibration.ece_by_chance:.4f}")]


def _calibration_table(calibration: Calibration) -> str:
    table = format_table(calibration_rows(calibration), min_widths=[_NAME_COLUMNS, 16, 16, 16])
    if not calibration.fitted_here:
        return table
    note = "  The temperature was fitted on these reviews, so its column is optimistic"
    if calibration.cross_fitted is None:
        return f"{table}\n{note}."
    return f"{table}\n{note};\n  cross-fitted: each half at the temperature of the other half."


def group_rows(groups: dict[str, list[Group]]) -> list[Row]:
    """A row for each group, with an empty one between kinds of groups."""
    rows: list[Row] = [("accuracy by", "reviews", "accuracy", "95 % interval")]
    for group_list in groups.values():
        if len(rows) > 1:
            rows.append(())
        for group in group_list:
            accuracy = f"{100 * group.accuracy:.2f} %"
            interval = _span(group.accuracy_ci95, 100, 2)
            rows.append((group.name, f"{group.num_reviews:,}", accuracy, interval))
    return rows


def _confusion_table(metrics: Metrics, class_names: Sequence[str]) -> str:
    """The confusion matrix or, if it is too wide, the most frequent confusions."""
    digits = len(f"{metrics.num_reviews:,}")
    room = (COLUMNS - 28) // len(class_names) - 2  # 28: indent, first and last column
    if room < max(5, digits):
        return _confusions_table(metrics, class_names)
    names = [truncate(name, min(room, 20)) for name in class_names]
    rows = confusion_rows(metrics, class_names, names)
    return format_table(rows, min_widths=[11, *[min(room, 6)] * len(names)])


def confusion_rows(metrics: Metrics, names: Sequence[str], columns: Sequence[str]) -> list[Row]:
    rows: list[Row] = [("right class", *columns, "(predicted)")]
    for name, counts in zip(names, metrics.confusion, strict=True):
        rows.append((name, *(f"{count:,}" for count in counts)))
    return rows


def _confusions_table(metrics: Metrics, class_names: Sequence[str]) -> str:
    confusion = np.array(metrics.confusion)
    np.fill_diagonal(confusion, 0)
    rows: list[Row] = [("right class", "predicted", "reviews")]
    for index in np.argsort(-confusion, axis=None, kind="stable")[:10].tolist():
        right, predicted = divmod(index, len(class_names))
        if count := confusion[right, predicted]:
            names = (truncate(class_names[label], 30) for label in (right, predicted))
            rows.append((*names, f"{count:,}"))
    return format_table(rows, align="<<>")


_MOST_CLASSES = 20  # rows of a table that is still read


def classes_table(metrics: Metrics, names: Sequence[str], last_rows: Sequence[Row] = ()) -> str:
    """Precision, recall and F1 of each class or, of many, of those with the lowest F1."""
    classes, title = list(range(len(names))), "class"
    if len(names) > _MOST_CLASSES:
        classes.sort(key=lambda label: metrics.by_class[label].f1 or 0)
        classes, title = classes[:_MOST_CLASSES], f"lowest F1 of {len(names):,} classes"
    rows = [*class_rows(metrics, names, classes, title), *last_rows]
    return format_table(rows, min_widths=[_NAME_COLUMNS])


def class_rows(
    metrics: Metrics, names: Sequence[str], classes: Iterable[int], title: str = "class"
) -> list[Row]:
    """A row for each of some classes, and the mean over all."""
    rows: list[Row] = [(title, "reviews", "predicted", "precision", "recall", "F1")]
    rows += [(names[label], *_score_cells(metrics.by_class[label])) for label in classes]
    return [*rows, ("mean over classes", "", "", "", "", f"{metrics.macro_f1:.4f}")]


def threshold_rows(evaluation: Evaluation) -> list[Row]:
    """The scores of the positive class at the threshold, if there is one."""
    if evaluation.threshold is None:
        return []
    name = f"{truncate(evaluation.positive_name or '', 12)} from {evaluation.threshold.threshold:g}"
    return [(name, *_score_cells(evaluation.threshold.scores))]


def _classes_table(evaluation: Evaluation) -> str:
    last_rows = threshold_rows(evaluation)
    table = classes_table(evaluation.metrics, evaluation.class_names, last_rows)
    if (fitted := evaluation.threshold) is None:
        return table
    where = "these reviews (optimistic)" if fitted.fitted_here else "validation"
    return (
        f"{table}\n"
        f"  Last row: at threshold {fitted.threshold!r}, which has the best F1 on\n"
        f"  {where}; to use it: predict --threshold {fitted.threshold!r}."
    )


def _score_cells(scores: ClassScores) -> list[str]:
    values = (scores.precision, scores.recall, scores.f1)
    shares = ["-" if value is None else f"{value:.4f}" for value in values]
    return [f"{scores.num_reviews:,}", f"{scores.num_predicted:,}", *shares]


def describe_collapse(by_class: Sequence[ClassScores], class_names: Sequence[str]) -> str:
    """What to do if reviews of several classes are all predicted to be of one; else empty."""
    classes = list(zip(class_names, by_class, strict=True))
    predicted = [name for name, scores in classes if scores.num_predicted]
    missed = [name for name, scores in classes if scores.num_reviews and not scores.num_predicted]
    if len(predicted) > 1 or not missed:
        return ""
    only = truncate(predicted[0], 30)
    return (
        f"Every review is predicted {only}. To learn the other classes, train longer or "
        "with --training.class_weights balanced, choose the epoch with --training.monitor nll or "
        f"auroc, or give more reviews of {truncate(missed[0], 30)}."
    )
