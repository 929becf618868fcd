"""Contrast pairs: reviews, and what little must change for the label to change.

Gardner et al., *Evaluating Models' Local Decision Boundaries via Contrast Sets*, Findings of EMNLP
2020, and Kaushik, Hovy & Lipton, *Learning the Difference that Makes a Difference with
Counterfactually-Augmented Data*, ICLR 2020, publish such pairs for IMDB, as two TSV files whose
rows belong together.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sentiment.behaviour.checks import Predict, Proportion
from sentiment.behaviour.roles import Roles, class_of
from sentiment.runtime.errors import UserError

if TYPE_CHECKING:
    from sentiment.inference.predictor import Prediction


_LABELS, _TEXTS = ("sentiment", "label"), ("text",)  # names of the columns, in any case
_DELIMITERS = {".tsv": "\t", ".csv": ","}
_LONGEST_VALUE = 2**31 - 1  # the largest limit that csv takes on every platform


@dataclass(frozen=True)
class Side:
    """The texts of one file and the indices of their classes."""

    path: Path
    texts: tuple[str, ...]
    labels: tuple[int, ...]


@dataclass(frozen=True)
class BrokenPair:
    """A pair of which one text or both are classified wrong.

    Attributes:
        row: its row in both files, from 1 without the header.
        texts: of the original and of the contrast.
        labels: names of their right classes.
        found: names of the classes found.
        probabilities: of the classes found.
    """

    row: int
    texts: tuple[str, str]
    labels: tuple[str, str]
    found: tuple[str, str]
    probabilities: tuple[float, float]


@dataclass(frozen=True)
class PairsOutcome:
    """What a run makes of contrast pairs.

    Attributes:
        files: the two files.
        original: texts of the original file that are classified right.
        contrast: the same of the contrast file.
        consistent: pairs of which both are.
        flipped: pairs whose predictions differ, of those whose labels do.
        kept: pairs whose predictions are the same, of those whose labels are.
        broken: the pairs that are not consistent, in their order.
    """

    files: tuple[str, str]
    original: Proportion
    contrast: Proportion
    consistent: Proportion
    flipped: Proportion
    kept: Proportion
    broken: tuple[BrokenPair, ...]


def read_pairs(
    original: Path, contrast: Path, class_names: Sequence[str], roles: Roles | None
) -> tuple[Side, Side]:
    """Read two CSV or TSV files with columns ``Sentiment`` or ``label``, and ``Text``.

    Raises:
        FileNotFoundError: a file is not there.
        UserError: a file or a row is not as it must be, or one file has more rows.
    """
    sides = (
        _read_side(original, class_names, roles),
        _read_side(contrast, class_names, roles),
    )
    num_originals, num_contrasts = (len(side.texts) for side in sides)
    if num_originals != num_contrasts:
        raise UserError(
            f"{original} has {num_originals} rows, but {contrast} has {num_contrasts}: row by row "
            "they must belong together"
        )
    return sides


def run_pairs(
    sides: tuple[Side, Side], predict: Predict, class_names: Sequence[str]
) -> PairsOutcome:
    """Classify both texts of each pair, all in one go, each text once."""
    texts = list(dict.fromkeys(sides[0].texts + sides[1].texts))
    predictions = dict(zip(texts, predict(texts), strict=True))
    found = [[predictions[text] for text in side.texts] for side in sides]
    labels = [[class_names[label] for label in side.labels] for side in sides]
    hits = [
        [prediction.label == label for prediction, label in zip(*columns, strict=True)]
        for columns in zip(found, labels, strict=True)
    ]
    both = [one and other for one, other in zip(*hits, strict=True)]
    has_flipped = [one.label != other.label for one, other in zip(*found, strict=True)]
    must_flip = [one != other for one, other in zip(*labels, strict=True)]
    answers = list(zip(must_flip, has_flipped, strict=True))
    return PairsOutcome(
        files=(str(sides[0].path), str(sides[1].path)),
        original=_tally(hits[0]),
        contrast=_tally(hits[1]),
        consistent=_tally(both),
        flipped=_tally(flipped for must, flipped in answers if must),
        kept=_tally(not flipped for must, flipped in answers if not must),
        broken=tuple(_broken(sides, row, labels, found) for row, ok in enumerate(both) if not ok),
    )


def _tally(answers: Iterable[bool]) -> Proportion:
    answers = list(answers)
    return Proportion(sum(answers), len(answers))


def _broken(
    sides: tuple[Side, Side],
    row: int,
    labels: Sequence[Sequence[str]],
    found: Sequence[Sequence[Prediction]],
) -> BrokenPair:
    one, other = found[0][row], found[1][row]
    return BrokenPair(
        row=row + 1,
        texts=(sides[0].texts[row], sides[1].texts[row]),
        labels=(labels[0][row], labels[1][row]),
        found=(one.label, other.label),
        probabilities=(one.probability, other.probability),
    )


def _read_side(path: Path, class_names: Sequence[str], roles: Roles | None) -> Side:
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
        raise UserError(f"{path}: no rows, where pairs were expected")
    return Side(path, tuple(texts), tuple(labels))


def _read_rows(path: Path) -> tuple[list[str], list[list[str]]]:
    """Header and rows, empty lines left out."""
    if path.suffix.lower() not in _DELIMITERS:
        raise UserError(f"{path}: pairs are read from .tsv and .csv files")
    try:
        text = path.read_bytes().decode("utf-8").removeprefix("\ufeff")
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is not there") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 at byte {error.start}: save it as UTF-8") from error
    delimiter = _DELIMITERS[path.suffix.lower()]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    limit = csv.field_size_limit(_LONGEST_VALUE)  # else longer reviews than 128 KiB are refused
    try:
        header = next(reader, [])
        return header, [row for row in reader if row]
    except csv.Error as error:
        raise UserError(
            f"{path}, line {reader.line_num}: {error}: quote a value that holds quotes, "
            'delimiters or line breaks, and double the quotes inside ("")'
        ) from error
    finally:
        csv.field_size_limit(limit)


def _column(path: Path, header: Sequence[str], names: Sequence[str]) -> int:
    places = [place for place, name in enumerate(header) if name.strip().lower() in names]
    if len(places) != 1:
        found = ", ".join(map(repr, header)) or "none"
        raise UserError(f"{path}: one column {' or '.join(names)} needed, but found: {found}")
    return places[0]
