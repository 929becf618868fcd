"""Metrics and predictions as a table for people and files for programs."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any

import numpy as np

from sentiment.evaluation.evaluate import Predictions
from sentiment.evaluation.metrics import Metrics
from sentiment.runs import write_json


def report_table(metrics: Metrics, class_names: tuple[str, ...], title: str) -> str:
    """The figures as a table of at most 80 columns."""
    interval = " to ".join(f"{100 * bound:.2f}" for bound in metrics.accuracy_ci95)
    auroc = "undefined: a class does not occur" if metrics.auroc is None else f"{metrics.auroc:.4f}"
    rows = [
        ("reviews", f"{metrics.num_reviews:,}"),
        ("accuracy", f"{100 * metrics.accuracy:.2f} %  (95 %: {interval})"),
        ("F1", f"{metrics.f1:.4f}"),
        ("AUROC", auroc),
        ("negative log-likelihood", f"{metrics.nll:.4f}"),
    ]
    lines = [title, *(f"  {name:<24} {value}" for name, value in rows), ""]
    return "\n".join(lines + _confusion_lines(metrics, class_names))


def _confusion_lines(metrics: Metrics, class_names: tuple[str, ...]) -> list[str]:
    width = max(10, *(len(name) + 2 for name in class_names))
    header = "".join(f"{name:>{width}}" for name in class_names)
    lines = [f"  {'right class':<{width}}{header}  (predicted)"]
    for name, row in zip(class_names, metrics.confusion, strict=True):
        lines.append(f"  {name:<{width}}" + "".join(f"{count:>{width},}" for count in row))
    return lines


def write_report(path: Path, metrics: Metrics, **details: Any) -> None:
    """Write the figures and what they were measured on as JSON."""
    write_json(path, {**metrics.as_dict(), **details})


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
        predictions: what the model says.
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
