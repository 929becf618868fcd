"""Contrast pairs: a review and a minimal edit of it, which usually changes its label.

Gardner et al., *Evaluating Models' Local Decision Boundaries via Contrast Sets*, Findings of EMNLP
2020, and Kaushik, Hovy & Lipton, *Learning the Difference that Makes a Difference with
Counterfactually-Augmented Data*, ICLR 2020, publish such pairs for IMDB as two TSV files with
matching rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sentiment.behaviour.checks import Predict, Proportion
from sentiment.behaviour.roles import Roles, class_of
from sentiment.data.blocks import NO_TEXT
from sentiment.data.columns import FileOptions
from sentiment.data.formats import open_source
from sentiment.runtime.errors import UserError

_BLOCK_ROWS = 1_000
_DEFAULTS = FileOptions(prefix="--")
_NO_TEXT = "no text: fill it in or delete the pair"


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
    original: Path,
    contrast: Path,
    class_names: Sequence[str],
    roles: Roles | None,
    options: FileOptions = _DEFAULTS,
) -> tuple[LabelledTexts, LabelledTexts]:
    """Read two files of labelled texts, whose rows belong together."""
    first, second = (_read_file(p, class_names, roles, options) for p in (original, contrast))
    num_originals, num_contrasts = (len(file.texts) for file in (first, second))
    if num_originals != num_contrasts:
        raise UserError(
            f"{original} has {num_originals} rows, but {contrast} has {num_contrasts}: each "
            "row of one must belong to the same row of the other"
        )
    return first, second


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


def _read_file(
    path: Path, class_names: Sequence[str], roles: Roles | None, options: FileOptions
) -> LabelledTexts:
    texts, labels = [], []
    source = open_source(path, options, with_label=True, others=[])
    for block in source.blocks(_BLOCK_ROWS):
        for index, problem in block.bad_rows.items():
            raise UserError(f"{block.place(index)}: {_NO_TEXT if problem == NO_TEXT else problem}")
        names = block.values(str(source.label_column))
        for index, (text, name) in enumerate(zip(block.texts, names, strict=True)):
            if not text or not text.strip():
                raise UserError(f"{block.place(index)}: {_NO_TEXT}")
            label = class_of(str(name), class_names, roles)
            if label is None:
                raise UserError(
                    f"{block.place(index)}: label {name!r} is not one of the classes "
                    f"{', '.join(class_names)}"
                )
            texts.append(text)
            labels.append(label)
    if not texts:
        raise UserError(f"{path} has no rows: pairs were expected")
    return LabelledTexts(path, tuple(texts), tuple(labels))
