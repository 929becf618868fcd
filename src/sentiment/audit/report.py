"""An audit as tables and sentences for the terminal, and its files audit.html, label_errors.csv."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sentiment.audit.audit import Audit
from sentiment.audit.label_errors import NUM_SHOWN
from sentiment.data.splits import LIST_COLUMNS, row_digest
from sentiment.display.console import format_table, truncate, wrap_text
from sentiment.display.plots import COLORS, as_svg, new_figure, write_page
from sentiment.evaluation.evaluate import Predictions
from sentiment.evaluation.metrics import accuracy_interval
from sentiment.runtime.files import check_writable, write_csv

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE = "audit.html"
TABLE = "label_errors.csv"

_PERCENTILES = (0, 5, 25, 50, 75, 95, 99, 100)
# On a terminal; the page shows more.
_MAX_CLASSES = 12
_MAX_TABLES = 4
_MAX_NGRAMS = 5
_MAX_DOUBTS = 5
_TITLE_COLUMNS = 33
_NUM_SCRIPTS = 5
_MAX_LISTED = 50  # contradictions, and tables of n-grams, on the page
_TEXT_CHARACTERS = 500  # of a review, in the table

Row = Sequence[str]


@dataclass(frozen=True)
class Section:
    """A table, whose first row is its header, and sentences about it."""

    title: str
    rows: list[Row]
    notes: list[str]


def describe(audit: Audit) -> list[Section]:
    """All that an audit found except n-grams and labels, which the page shows in its own way."""
    return [
        Section("Classes", _class_rows(audit), _unlabelled_notes(audit)),
        Section("Lengths", _length_rows(audit), [_cut_note(audit)]),
        Section("Copies", _copy_rows(audit), [_neighbours_note(audit)]),
        Section("Texts", _fault_rows(audit), [_scripts_note(audit)]),
        Section("Vocabulary", _vocabulary_rows(audit), _vectors_notes(audit)),
    ]


def audit_table(audit: Audit) -> str:
    """The summary for a terminal, on lines of at most 80 columns."""
    blocks = [wrap_text(title(audit))]
    for section in describe(audit):
        rows = section.rows
        if section.title == "Classes" and len(rows) > _MAX_CLASSES + 1:
            rows = [*rows[: _MAX_CLASSES + 1], (f"… and {len(rows) - 1 - _MAX_CLASSES:,} more",)]
        table = format_table(rows, min_widths=(_TITLE_COLUMNS,))
        blocks.append("\n".join([table, *(wrap_text(note) for note in section.notes)]))
    blocks += [*_ngram_tables(audit), "\n".join(map(wrap_text, label_notes(audit)))]
    if audit.doubts:
        blocks.append(format_table(_doubt_rows(audit), align="<", flexible=3))
    return "\n\n".join(blocks)


def title(audit: Audit) -> str:
    names = audit.reviews.class_names
    return f"{audit.reviews.origin}: {len(audit.reviews):,} labelled reviews, {len(names)} classes"


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _class_rows(audit: Audit) -> list[Row]:
    """The number of each class's reviews in each split, and how many are predicted right."""
    labels, result = audit.reviews.labels, audit.out_of_fold
    splits = list(dict.fromkeys(audit.splits.tolist()))
    rows: list[Row] = [("class", *splits, "predicted right")]
    for label, name in enumerate(audit.reviews.class_names):
        in_class = labels == label
        counts = [f"{np.count_nonzero(in_class & (audit.splits == split)):,}" for split in splits]
        right = "–"
        if result is not None and in_class.any():
            right = percent(result.predictions.is_right[in_class].mean())
        rows.append((name, *counts, right))
    return rows


def _unlabelled_notes(audit: Audit) -> list[str]:
    counts = [f"{count:,} of {split}" for split, count in audit.num_unlabelled.items()]
    return [f"Read without labels: {', '.join(counts)}."] if counts else []


def _length_rows(audit: Audit) -> list[Row]:
    names = {0: "least", 50: "median", 100: "most"}
    header = ("", *(names.get(percentile, f"{percentile} %") for percentile in _PERCENTILES))
    values = np.percentile(audit.num_tokens, _PERCENTILES)
    return [header, ("tokens", *(f"{value:,.0f}" for value in values))]


def _cut_note(audit: Audit) -> str:
    limit = audit.config.data.max_length
    excess = np.maximum(audit.num_tokens - limit, 0)
    return (
        f"data.max_length {limit:,} cuts {percent((excess > 0).mean())} of the reviews, and "
        f"{percent(excess.sum() / max(1, audit.num_tokens.sum()))} of all tokens."
    )


def _copy_rows(audit: Audit) -> list[Row]:
    copies = audit.copies
    rows: list[Row] = [("copies of other reviews", "reviews")]
    rows += [(f"within {split}", f"{count:,}") for split, count in copies.within.items()]
    rows += [(f"of {a} in {b}", f"{count:,}") for (a, b), count in copies.across.items()]
    contradicting = sum(map(len, copies.contradictions))
    return [*rows, ("with contradicting labels", f"{contradicting:,}")]


def _neighbours_note(audit: Audit) -> str:
    data, neighbours = audit.config.data, audit.neighbours
    held = f"reviews are held out {data.describe_hold_out()}"
    if has_validation := "validation" in audit.splits:
        held = "the validation split is a file of its own"
    if not neighbours.is_suspicious:
        return f"Neighbouring rows are no more alike than others; {held}."
    text = (
        f"Neighbouring rows of a class share {neighbours.factor:,.0f} times as many rare words as "
        f"others, as is typical of one film or author; {held}"
    )
    if has_validation or data.hold_out != "random":
        return f"{text}."
    return (
        f"{text}, which is optimistic: set data.validation to stretches, or to groups with "
        "data.group_column."
    )


def _fault_rows(audit: Audit) -> list[Row]:
    rows: list[Row] = [("texts with", "reviews", "share", "first")]
    for fault in audit.faults:
        count = len(fault.indices)
        first = audit.place(int(fault.indices[0])) if count else ""
        rows.append((fault.title, f"{count:,}", percent(count / len(audit.reviews)), first))
    return rows


def _scripts_note(audit: Audit) -> str:
    most = audit.scripts.most_common(_NUM_SCRIPTS)
    text = "Main script of the texts: " + ", ".join(f"{name} {count:,}" for name, count in most)
    others = audit.scripts.total() - sum(count for _, count in most)
    return f"{text}, others {others:,}." if others else f"{text}."


def _vocabulary_rows(audit: Audit) -> list[Row]:
    vocabulary, coverage = audit.vocabulary, audit.vocabulary.coverage
    rows: list[Row] = [
        ("vocabulary", ""),
        ("different tokens", f"{vocabulary.num_distinct:,}"),
        ("words of the vocabulary", f"{vocabulary.num_words:,}"),
        ("unknown tokens", percent(vocabulary.unknown_share)),
    ]
    if coverage is not None:
        words = coverage.types_found / max(1, coverage.num_types)
        tokens = coverage.tokens_found / max(1, coverage.num_tokens)
        rows += [("words with a vector", percent(words)), ("tokens with a vector", percent(tokens))]
    return rows


def _vectors_notes(audit: Audit) -> list[str]:
    vectors, coverage = audit.config.vectors, audit.vocabulary.coverage
    if coverage is not None:
        missed = ", ".join(coverage.most_frequent_missed[:10])
        return [f"Most frequent words without a vector: {missed}."] if missed else []
    if vectors.name is not None:
        return [f"The vectors {vectors.name} are not downloaded yet, so none were looked up."]
    return []


def ngram_rows(audit: Audit, label: int) -> list[Row]:
    """The n-grams that speak for a class, with its reviews and the others that contain them."""
    result = audit.out_of_fold
    assert result is not None
    rows: list[Row] = [("", "its reviews", "others")]
    for ngram, counts in zip(result.ngrams[label], result.counts[label].tolist(), strict=True):
        rows.append((ngram, f"{counts[label]:,.0f}", f"{sum(counts) - counts[label]:,.0f}"))
    return rows


def _ngram_tables(audit: Audit) -> list[str]:
    if audit.out_of_fold is None:
        return []
    blocks = []
    for label, name in list(enumerate(audit.reviews.class_names))[:_MAX_TABLES]:
        rows = ngram_rows(audit, label)[: _MAX_NGRAMS + 1]
        rows[0] = (f"speaks for {truncate(name, 20)}", *rows[0][1:])
        blocks.append(format_table(rows, min_widths=(_TITLE_COLUMNS,)))
    return blocks


def label_notes(audit: Audit) -> list[str]:
    """The accuracy of the linear model, and how many labels it flags."""
    if audit.out_of_fold is None:
        return [
            "There are too few reviews or words for the linear model, so words and labels were "
            "not judged."
        ]
    is_right = audit.out_of_fold.predictions.is_right
    low, high = accuracy_interval(int(is_right.sum()), len(is_right))
    held = audit.config.data.describe_hold_out().split(", fold")[0]
    flags = "Confident learning flags no label."
    if count := len(audit.doubts):
        flags = (
            f"Confident learning flags {count:,} label{'s' * (count != 1)}, the likeliest errors "
            "first; many of these are errors of the model, not of the labels."
        )
    return [
        f"The linear model predicts {percent(is_right.mean())} of the labels (95 %: "
        f"{100 * low:.1f} to {100 * high:.1f}), in {audit.out_of_fold.num_folds} folds held out "
        f"{held}.",
        flags,
    ]


def _doubt_rows(audit: Audit) -> list[Row]:
    names = audit.reviews.class_names
    rows: list[Row] = [("", "label", "suggested", "text")]
    for doubt in audit.doubts[:_MAX_DOUBTS]:
        label = names[audit.reviews.labels[doubt.index]]
        rather = f"{truncate(names[doubt.suggested], 12)} {percent(doubt.suggested_probability)}"
        text = audit.reviews.texts[doubt.index][:200]
        rows.append((audit.place(doubt.index), truncate(label, 12), rather, text))
    return rows


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
    if audit.out_of_fold is not None:
        figures.append(_draw_confidence(audit.out_of_fold.predictions))
        ngrams = [(name, ngram_rows(audit, label)) for label, name in enumerate(names)]
    write_page(
        folder / PAGE,
        "audit.html",
        title=title(audit),
        audit=audit,
        sections=describe(audit),
        figures=list(map(as_svg, figures)),
        ngrams=ngrams[:_MAX_LISTED],
        label_notes=label_notes(audit),
        doubts=audit.doubts[:NUM_SHOWN],
        contradictions=audit.copies.contradictions[:_MAX_LISTED],
        table_name=TABLE,
    )
    _write_table(audit, folder / TABLE)


def _write_table(audit: Audit, path: Path) -> None:
    reviews = audit.reviews
    assert reviews.rows is not None
    rows = []
    for doubt in audit.doubts[:NUM_SHOWN]:
        index, text = doubt.index, reviews.texts[doubt.index]
        place = (audit.splits[index], reviews.rows[index] + 1, row_digest(text), audit.files[index])
        label = reviews.class_names[reviews.labels[index]]
        suggested = reviews.class_names[doubt.suggested]
        start = " ".join(text[:_TEXT_CHARACTERS].split())
        rows.append((*place, label, suggested, f"{doubt.suggested_probability:.4f}", start))
    columns = (*LIST_COLUMNS, "file", "label", "suggested", "probability", "text")
    write_csv(path, columns, rows)


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
