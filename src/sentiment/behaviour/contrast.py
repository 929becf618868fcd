"""Contrast pairs: a review and a minimal edit of it, which usually changes its label.

Gardner et al., *Evaluating Models' Local Decision Boundaries via Contrast Sets*, Findings of EMNLP
2020, and Kaushik, Hovy & Lipton, *Learning the Difference that Makes a Difference with
Counterfactually-Augmented Data*, ICLR 2020, publish such pairs for IMDB as two TSV files with
matching rows.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sentiment.behaviour.checks import Predict, Proportion
from sentiment.behaviour.roles import Roles, class_of
from sentiment.runtime.errors import UserError
from sentiment.runtime.files import LONGEST_LINE, read_text

_LABELS, _TEXTS = ("sentiment", "label"), ("text",)  # names of the columns, in any case
_DELIMITERS = {".tsv": "\t", ".csv": ","}
_MAX_BYTES = 2**30


@dataclass(frozen=True)
class LabelledTexts:
    """The texts of one file and the indices of their classes."""

    path: Path
    texts: tuple[str, ...]
    labels: tuple[int, ...]


@dataclass(frozen=True)
class BrokenPair:
    """A pair with at least one misclassified text; values are (original, contrast)."""

    row: int  # from 1, without the header
    texts: tuple[str, str]
    labels: tuple[str, str]
    found: tuple[str, str]  # names of the predicted classes
    probabilities: tuple[float, float]  # of the predicted classes


@dataclass(frozen=True)
class PairsOutcome:
    """How a run classifies contrast pairs."""

    files: tuple[str, str]
    original: Proportion  # texts that are classified correctly
    contrast: Proportion
    consistent: Proportion  # pairs of which both texts are classified correctly
    flipped: Proportion  # pairs whose predictions differ, of those whose labels differ
    kept: Proportion  # pairs whose predictions are equal, of those whose labels are equal
    broken: tuple[BrokenPair, ...]  # the pairs that are not consistent, by row


def read_pairs(
    original: Path, contrast: Path, class_names: Sequence[str], roles: Roles | None
) -> tuple[LabelledTexts, LabelledTexts]:
    """Read two CSV or TSV files with columns ``Sentiment`` or ``label``, and ``Text``."""
    files = _read_file(original, class_names, roles), _read_file(contrast, class_names, roles)
    num_originals, num_contrasts = (len(file.texts) for file in files)
    if num_originals != num_contrasts:
        raise UserError(
            f"{original} has {num_originals} rows, but {contrast} has {num_contrasts}: row by row "
            "they must belong together"
        )
    return files


def run_pairs(
    files: tuple[LabelledTexts, LabelledTexts], predict: Predict, class_names: Sequence[str]
) -> PairsOutcome:
    """Classify the texts of all pairs in one call, each different text once."""
    original, contrast = files
    texts = list(dict.fromkeys(original.texts + contrast.texts))
    predictions = dict(zip(texts, predict(texts), strict=True))
    hits, flipped, kept, broken = [], [], [], []
    rows = zip(original.texts, contrast.texts, original.labels, contrast.labels, strict=True)
    for row, (text, edited, label, new_label) in enumerate(rows, 1):
        before, after = predictions[text], predictions[edited]
        labels = class_names[label], class_names[new_label]
        predicted = before.label, after.label
        hit = predicted[0] == labels[0], predicted[1] == labels[1]
        hits.append(hit)
        if label != new_label:
            flipped.append(predicted[0] != predicted[1])
        else:
            kept.append(predicted[0] == predicted[1])
        if not all(hit):
            probabilities = before.probability, after.probability
            broken.append(BrokenPair(row, (text, edited), labels, predicted, probabilities))
    return PairsOutcome(
        files=(str(original.path), str(contrast.path)),
        original=_proportion([hit[0] for hit in hits]),
        contrast=_proportion([hit[1] for hit in hits]),
        consistent=_proportion([all(hit) for hit in hits]),
        flipped=_proportion(flipped),
        kept=_proportion(kept),
        broken=tuple(broken),
    )


def _proportion(answers: Sequence[bool]) -> Proportion:
    return Proportion(sum(answers), len(answers))


def _read_file(path: Path, class_names: Sequence[str], roles: Roles | None) -> LabelledTexts:
    header, rows = _read_rows(path)
    label_column, text_column = _column(path, header, _LABELS), _column(path, header, _TEXTS)
    texts, labels = [], []
    for number, row in enumerate(rows, 1):
        if len(row) != len(header):
            raise UserError(
                f"{path}, row {number}: {len(row)} values, but the header names {len(header)} "
                "columns: quote a value that holds the delimiter"
            )
        if not row[text_column].strip():
            raise UserError(f"{path}, row {number}: no text: fill it in or delete the pair")
        label = class_of(row[label_column], class_names, roles)
        if label is None:
            raise UserError(
                f"{path}, row {number}: label {row[label_column]!r} is not one of the "
                f"classes {', '.join(class_names)}"
            )
        texts.append(row[text_column])
        labels.append(label)
    if not texts:
        raise UserError(f"{path} has no rows: pairs were expected")
    return LabelledTexts(path, tuple(texts), tuple(labels))


def _read_rows(path: Path) -> tuple[list[str], list[list[str]]]:
    """Header and rows without empty lines."""
    if (delimiter := _DELIMITERS.get(path.suffix.lower())) is None:
        raise UserError(f"{path}: pairs are read from .tsv and .csv files")
    text = io.StringIO(read_text(path, max_bytes=_MAX_BYTES), newline="")
    reader = csv.reader(text, delimiter=delimiter, strict=True)
    limit = csv.field_size_limit(LONGEST_LINE)  # by default, reviews over 128 KiB are refused
    try:
        return next(reader, []), [row for row in reader if row]
    except csv.Error as error:
        raise UserError(
            f"{path}, line {reader.line_num}: {error}: quote a value that holds quotes, "
            'delimiters or line breaks, and double the quotes inside ("")'
        ) from error
    finally:
        csv.field_size_limit(limit)


def _column(path: Path, header: Sequence[str], names: Sequence[str]) -> int:
    columns = [index for index, name in enumerate(header) if name.strip().lower() in names]
    if len(columns) != 1:
        found = ", ".join(map(repr, header)) or "none"
        raise UserError(f"{path} must have one column {' or '.join(names)}, but has: {found}")
    return columns[0]
