"""A comparison as files: compare.json, and compare.html with its pictures and reviews."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sentiment.comparing.comparison import (
    Comparison,
    average,
    find_disagreements,
    list_opponents,
    name_runs,
)
from sentiment.comparing.report import (
    explain_figures,
    shown_p,
    shown_points,
    verdicts,
)
from sentiment.comparing.sides import Side, differing_settings
from sentiment.evaluation.breakdown import start_of
from sentiment.evaluation.evaluate import Predictions
from sentiment.pages import write_page
from sentiment.pictures import COLORS, as_svg, new_figure
from sentiment.places import write_json
from sentiment.text.reviews import Reviews

_MOST_DISAGREEMENTS = 10


def describe_comparison(
    comparison: Comparison,
    sides: Sequence[Side],
    calibrated: Mapping[str, Sequence[Predictions]],
    reviews: Reviews,
    *,
    split: str,
    checkpoint: str,
    notes: Sequence[str],
) -> dict[str, Any]:
    """Everything that compare.json holds: figures, what they are of, reviews that part them.

    Of these, ``row`` is the place in the split, from 0, and ``probability`` that of the class a
    side says, at the run's temperature; of several runs, the mean.

    Args:
        comparison: the figures.
        sides: the runs.
        calibrated: predictions of each side, by name, of each of its runs at its temperature.
        reviews: what they are of.
        split: of which split the reviews are.
        checkpoint: of which weights the predictions are.
        notes: sentences on what the figures cannot bear.
    """
    return {
        "split": split,
        "data": reviews.origin,
        "checkpoint": checkpoint,
        "class_names": list(reviews.class_names),
        **comparison.as_dict(),
        "runs": [
            {"name": name, "side": side.name, "path": str(run.path), "seed": run.seed,
             "epoch": run.epoch}
            for side in sides
            for name, run in name_runs(side.name, side.runs)
        ],
        "settings": _compared_settings(sides),
        "verdicts": verdicts(comparison),
        "notes": list(notes),
        "disagreements": _disagreements(calibrated, reviews),
    }  # fmt: skip


def write_comparison(
    folder: Path,
    comparison: Comparison,
    sides: Sequence[Side],
    reviews: Reviews,
    description: Mapping[str, Any],
) -> None:
    """Write compare.json and compare.html.

    Args:
        folder: where to.
        comparison: the figures.
        sides: the runs.
        reviews: what they are of.
        description: from :func:`describe_comparison`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "compare.json", dict(description))
    opponents = [each["name"] for each in description["runs"]]
    if len(sides) > 1:
        opponents = [side.name for side in sides]
    texts = [reviews.texts[each["row"]] for each in description["disagreements"]]
    write_page(
        folder / "compare.html",
        "compare.html",
        **description,
        sides_and_runs=[
            (
                figures,
                str(side.path),
                list(zip(figures.runs, name_runs(side.name, side.runs), strict=True)),
            )
            for figures, side in zip(comparison.sides, sides, strict=True)
        ],
        opponents=opponents,
        averages=len(sides) > 1 and any(len(side.runs) > 1 for side in sides[:2]),
        texts=[start_of(text) for text in texts],
        meanings=explain_figures(comparison),
        accuracies_picture=as_svg(draw_accuracies(comparison)),
        differences_picture=as_svg(draw_differences(comparison)),
        shown_p=shown_p,
        shown_points=shown_points,
    )


def draw_accuracies(comparison: Comparison) -> Any:
    """A figure with the accuracy of each run and its interval, and each folder's mean and ±."""
    rows: list[tuple[str, float, tuple[float, float], bool]] = []
    for side in comparison.sides:
        if side.accuracy_deviation is not None:
            spread = (
                side.accuracy - side.accuracy_deviation,
                side.accuracy + side.accuracy_deviation,
            )
            rows.append((f"{side.name} mean", side.accuracy, spread, True))
        rows += [(run.name, run.accuracy, run.accuracy_ci95, False) for run in side.runs]
    figure, axes = new_figure(5.0, 0.9 + 0.3 * len(rows))
    _draw_intervals(axes, rows)
    axes.set_xlabel("accuracy (%)")
    return figure


def draw_differences(comparison: Comparison) -> Any:
    """A figure with the difference of each two and its interval, around 0."""
    rows: list[tuple[str, float, tuple[float, float], bool]] = []
    for pair in comparison.pairs:
        name = f"{pair.second} less {pair.first}"
        interval = pair.difference_ci95 or (pair.difference, pair.difference)
        rows.append((name, pair.difference, interval, False))
    for seeds in comparison.seeds:
        name = f"{seeds.second} less {seeds.first}"
        interval = seeds.difference_ci95 or (seeds.difference, seeds.difference)
        rows.append((name, seeds.difference, interval, True))
    figure, axes = new_figure(5.0, 0.9 + 0.3 * len(rows))
    _draw_intervals(axes, rows)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_xlabel("difference of accuracies (points)")
    return figure


def _draw_intervals(
    axes: Any, rows: Sequence[tuple[str, float, tuple[float, float], bool]]
) -> None:
    """Rows from top to bottom: name, value, interval, and whether it is of several runs."""
    for place, (_, value, (low, high), is_mean) in enumerate(rows):
        axes.plot([100 * low, 100 * high], [place, place], color=COLORS[is_mean], linewidth=1.6)
        axes.plot(100 * value, place, "D" if is_mean else "o", color=COLORS[is_mean], markersize=5)
    axes.set_yticks(range(len(rows)), [name for name, *_ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")


def _compared_settings(sides: Sequence[Side]) -> dict[str, list[str]]:
    """Settings that differ between what is compared; of several runs, those of the first."""
    if len(sides) == 1:
        return differing_settings([run.settings for run in sides[0].runs])
    settings = differing_settings([side.runs[0].settings for side in sides])
    if any(len(side.runs) > 1 for side in sides):
        settings.pop("seed", None)
    return settings


def _disagreements(
    calibrated: Mapping[str, Sequence[Predictions]], reviews: Reviews
) -> list[dict[str, Any]]:
    """Reviews that the first two, runs or folders of runs, are farthest apart on."""
    (first, first_runs), (second, second_runs) = list(list_opponents(calibrated).items())[:2]
    one, other = average(first_runs), average(second_runs)
    names = reviews.class_names
    return [
        {
            "row": row,
            "right": names[reviews.labels[row]],
            "said": {
                name: {
                    "class": names[said.predicted[row]],
                    "probability": float(np.exp(said.log_probabilities[row].max())),
                }
                for name, said in ((first, one), (second, other))
            },
        }
        for row in find_disagreements(first_runs, second_runs, most=_MOST_DISAGREEMENTS).tolist()
    ]
