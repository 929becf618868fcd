"""An evaluation as a page of one file."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sentiment.evaluation.cutting import Cut
from sentiment.evaluation.intervals import FEWEST_TO_RESAMPLE, NUM_RESAMPLES
from sentiment.evaluation.measure import Evaluation
from sentiment.evaluation.plots import draw_groups
from sentiment.pages import write_page
from sentiment.pictures import as_svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
