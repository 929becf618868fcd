"""The files of an audit: audit.html and label_errors.csv."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sentiment.audit.audit import Audit
from sentiment.audit.label_errors import NUM_SHOWN
from sentiment.audit.report import describe, label_notes, ngram_rows, title
from sentiment.data.exclusion import COLUMNS, row_digest
from sentiment.display.pages import write_page
from sentiment.display.plots import COLORS, as_svg, new_figure
from sentiment.evaluation.evaluate import Predictions
from sentiment.runtime.files import atomic_write, check_writable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE = "audit.html"
TABLE = "label_errors.csv"
_MAX_CONTRADICTIONS = 50
_MAX_CLASSES = 50
_TEXT_CHARACTERS = 500  # of a review, in the table


def check_replaceable(folder: Path, *, overwrite: bool) -> None:
    """Refuse a folder that holds an audit, unless it may be replaced, or that cannot be written."""
    check_writable(folder)
    if (folder / TABLE).exists() and not overwrite:
        raise FileExistsError(
            f"{folder} holds an audit, whose {TABLE} you may have edited: replace it "
            "with --overwrite, or choose another folder with --output"
        )


def write_audit(audit: Audit, folder: Path) -> None:
    """Write the page and the table of labels that are likely wrong, each as a whole."""
    folder.mkdir(parents=True, exist_ok=True)
    names, figures, ngrams = audit.reviews.class_names, [_draw_lengths(audit)], []
    if audit.predictions is not None:
        figures.append(_draw_confidence(audit.predictions))
        ngrams = [(name, ngram_rows(audit, label)) for label, name in enumerate(names)]
    write_page(
        folder / PAGE,
        "audit.html",
        title=title(audit),
        audit=audit,
        sections=describe(audit),
        figures=list(map(as_svg, figures)),
        ngrams=ngrams[:_MAX_CLASSES],
        label_notes=label_notes(audit),
        doubts=audit.doubts[:NUM_SHOWN],
        contradictions=audit.copies.contradictions[:_MAX_CONTRADICTIONS],
        table_name=TABLE,
    )
    _write_table(audit, folder / TABLE)


def _write_table(audit: Audit, path: Path) -> None:
    reviews, table = audit.reviews, io.StringIO(newline="")
    assert reviews.rows is not None
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow([*COLUMNS, "file", "label", "suggested", "probability", "text"])
    for doubt in audit.doubts[:NUM_SHOWN]:
        index, text = doubt.index, reviews.texts[doubt.index]
        label, suggested = (
            reviews.class_names[i] for i in (reviews.labels[index], doubt.suggested)
        )
        start = " ".join(text[:_TEXT_CHARACTERS].split())
        row = (audit.splits[index], reviews.rows[index] + 1, row_digest(text), audit.files[index])
        writer.writerow([*row, label, suggested, f"{doubt.suggested_probability:.4f}", start])
    atomic_write(path, table.getvalue().encode("utf-8", "replace"))


def _draw_lengths(audit: Audit) -> Figure:
    figure, axes = new_figure()
    num_tokens, limit = np.maximum(audit.num_tokens, 1), audit.config.data.max_length
    axes.hist(num_tokens, bins=np.geomspace(1, max(2, num_tokens.max()), 60), color=COLORS[0])
    axes.axvline(limit, color=COLORS[1], label=f"data.max_length {limit:,}")
    axes.set(xscale="log", xlabel="tokens", ylabel="reviews", title="Lengths")
    axes.legend()
    return figure


def _draw_confidence(predictions: Predictions) -> Figure:
    figure, axes = new_figure()
    given = predictions.probabilities[np.arange(len(predictions.labels)), predictions.labels]
    axes.hist(given, bins=np.linspace(0, 1, 41), color=COLORS[0])
    axes.set(
        yscale="log", xlabel="out-of-fold probability of the label", ylabel="reviews",
        title="What the linear model thinks of the labels",
    )  # fmt: skip
    return figure
