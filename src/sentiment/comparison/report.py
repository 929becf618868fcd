"""A comparison as a table, JSON and an HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

import numpy as np

from sentiment.comparison.compare import (
    Comparison,
    RunFigures,
    SideFigures,
    average,
    find_disagreements,
    list_opponents,
    name_runs,
)
from sentiment.comparison.run_groups import RunGroup, differing_settings
from sentiment.comparison.significance import (
    FEW_DISCORDANT,
    PairComparison,
    SeedsComparison,
    leaves_out_zero,
)
from sentiment.data.reviews import Reviews
from sentiment.display.console import pad, sanitize, truncate, width
from sentiment.display.pages import write_page
from sentiment.display.plots import COLORS, as_svg, new_figure
from sentiment.evaluation.evaluate import Predictions
from sentiment.evaluation.metrics import FEWEST_TO_RESAMPLE, NUM_RESAMPLES, Interval
from sentiment.evaluation.slices import start_of
from sentiment.runtime.files import write_json

_WIDTH = 80
_FEW_SEEDS = 10


def comparison_table(
    comparison: Comparison, sides: Sequence[RunGroup], *, title: str, notes: Sequence[str]
) -> str:
    """The figures, verdicts and notes as text of at most 80 columns.

    Args:
        comparison: the figures.
        sides: the runs, in the same order.
        title: what was compared on what.
        notes: sentences to end with.
    """
    parts = [_wrapped(title), "\n".join(_accuracy_lines(comparison, sides))]
    if comparison.pairs:
        parts += ["\n".join(_difference_lines(comparison)), "\n".join(_count_lines(comparison))]
    if comparison.seeds:
        parts.append("\n".join(_seeds_lines(comparison)))
    parts.append("\n".join(_wrapped(each, indent="  ") for each in verdicts(comparison)))
    if notes:
        parts.append("\n".join(_wrapped(f"- {note}", indent="  ") for note in notes))
    meanings = explain_figures(comparison).items()
    parts.append("\n".join(_wrapped(f"{name}: {text}.", indent="  ") for name, text in meanings))
    return "\n\n".join(parts)


def verdicts(comparison: Comparison) -> list[str]:
    """A sentence for each two that were compared, which says no more than the figures."""
    return [*map(_pair_verdict, comparison.pairs), *map(_seeds_verdict, comparison.seeds)]


def explain_figures(comparison: Comparison) -> dict[str, str]:
    """What each figure that the comparison holds means, by name."""
    meanings = {
        "accuracy": "share of reviews classified rightly; its interval (95 %; bootstrap, or "
        f"Wilson's where fewer than {FEWEST_TO_RESAMPLE} are right, or wrong) is for other reviews "
        "of this kind, the run being the same",
        "NLL": "mean negative log-likelihood of the right class in nats, at temperature 1; less "
        "is better",
    }
    if any(len(side.runs) > 1 for side in comparison.sides):
        meanings["±"] = "standard deviation over the runs of a folder, by n - 1"
        meanings["averaged"] = (
            "accuracy of the mean of the runs' probabilities, each at its run's temperature"
        )
    if comparison.pairs:
        meanings["difference"] = (
            "accuracy of one run less that of the other, in points; its interval by a paired "
            f"bootstrap over the reviews, {NUM_RESAMPLES:,} resamples; undefined where these are "
            "all alike"
        )
        meanings["McNemar p"] = (
            "how often chance alone would split the reviews that only one run has right so "
            "unequally, or more; by the binomial distribution (exact) where they are fewer than "
            f"{FEW_DISCORDANT}, else by chi-square with continuity correction"
        )
        meanings["agreement"] = "share of reviews given the same class, right or wrong"
        meanings["kappa"] = "Cohen's: agreement beyond chance; 0 is none, 1 is all"
    if comparison.seeds:
        meanings["mean difference"] = (
            "of two folders' mean accuracies, in points; interval and p by Welch's t, for other "
            "seeds on these same reviews"
        )
    return meanings


def caveats(comparison: Comparison) -> list[str]:
    """What the figures cannot bear."""
    found = []
    num_runs = {len(side.runs) for side in comparison.sides}
    if comparison.pairs:
        found.append(
            "A difference of two runs is of these weights, not of their recipes: what other seeds "
            "would do takes folders of several runs on both sides."
        )
    if comparison.seeds and (fewest := min(num_runs - {1})) < _FEW_SEEDS:
        found.append(
            f"{fewest} seeds are few: the interval takes their accuracies for draws from a normal "
            "distribution, whose spread so few hardly tell."
        )
    num_tests = len(comparison.pairs) + len(comparison.seeds)
    if num_tests > 1:
        found.append(
            f"Each of the {num_tests} comparisons stands for itself; where there is no difference, "
            f"one in 20 shows one by chance. To allow for it, take p times {num_tests} "
            "(Bonferroni)."
        )
    return found


def shown_p(p_value: float) -> str:
    """``p`` to three figures, as ``= 0.0213``."""
    return "< 0.001" if p_value < 0.001 else f"= {p_value:.3g}"


def shown_points(share: float) -> str:
    """A difference of accuracies in points with its sign."""
    return f"{100 * share:+.2f}" if round(100 * share, 2) else "0.00"


def _pair_verdict(pair: PairComparison) -> str:
    if pair.only_first == pair.only_second == 0:
        return f"{pair.first} and {pair.second} have the same reviews right: no difference here."
    test = f"McNemar p {shown_p(pair.mcnemar_p)}"
    if pair.difference_ci95 is None:
        better, worse = pair.second, pair.first
        if pair.only_first:
            better, worse = worse, better
        return f"{better} is right on every review and {worse} on none: no interval ({test})."
    text = _verdict(pair, pair.difference_ci95, f"; {test}")
    if pair.is_shown != (leaves_out_zero(pair.difference_ci95) or pair.mcnemar_p < 0.05):
        text += " Interval and test do not agree."
    return text


def _seeds_verdict(seeds: SeedsComparison) -> str:
    numbers = "{} and {} runs".format(*seeds.num_runs)
    if seeds.difference_ci95 is None or seeds.p_value is None:
        return (
            f"{seeds.first} and {seeds.second}: {shown_points(seeds.difference)} points, but the "
            f"runs of each are all alike, so nothing is known of their spread ({numbers})."
        )
    evidence = f"; Welch's t p {shown_p(seeds.p_value)}; {numbers}"
    return _verdict(seeds, seeds.difference_ci95, evidence, mean=" on average")


def _verdict(
    compared: PairComparison | SeedsComparison,
    interval: Interval,
    evidence: str,
    *,
    mean: str = "",
) -> str:
    better, worse = compared.second, compared.first
    low, high = (100 * bound for bound in interval)
    if compared.difference < 0:
        better, worse, low, high = worse, better, -high, -low
    points = f"{100 * abs(compared.difference):.2f} points"
    figures = f"(95 %: {low:.2f} to {high:.2f}{evidence})"
    if compared.is_shown:
        return f"{better} is better than {worse} by {points}{mean} {figures}."
    if compared.difference == 0:
        return f"No difference shown between {worse} and {better}: 0 points{mean} {figures}."
    names = f"{compared.first} and {compared.second}"
    return f"No difference shown between {names}: {better} is {points} ahead{mean} {figures}."


def _accuracy_lines(comparison: Comparison, sides: Sequence[RunGroup]) -> list[str]:
    rows: list[tuple[str, ...]] = [("", "", "accuracy", "95 % interval", "NLL")]
    for figures, side in zip(comparison.sides, sides, strict=True):
        if len(side.runs) == 1:
            rows.append(_run_row(figures.runs[0], str(side.runs[0].path)))
            continue
        rows.append(_group_row(figures, str(side.path)))
        for run, loaded in zip(figures.runs, side.runs, strict=True):
            rows.append(_run_row(run, f"  {loaded.path.name} (seed {loaded.seed})"))
        rows.append(("", "  averaged", f"{100 * (figures.ensemble_accuracy or 0):.2f} %", "", ""))
    return _aligned(rows, left=2)


def _run_row(run: RunFigures, place: str) -> tuple[str, ...]:
    interval = "{:.2f} to {:.2f}".format(*(100 * bound for bound in run.accuracy_ci95))
    return run.name, place, f"{100 * run.accuracy:.2f} %", interval, f"{run.nll:.4f}"


def _group_row(side: SideFigures, place: str) -> tuple[str, ...]:
    accuracy = f"{100 * side.accuracy:.2f} ± {100 * (side.accuracy_deviation or 0):.2f} %"
    nll = f"{side.nll:.4f} ± {side.nll_deviation or 0:.4f}"
    return side.name, f"{place} ({len(side.runs)} runs)", accuracy, "", nll


def _difference_lines(comparison: Comparison) -> list[str]:
    rows = [("difference", "points", "95 % interval", "McNemar p", "test")]
    for pair in comparison.pairs:
        interval = _span(pair.difference_ci95)
        p_value = shown_p(pair.mcnemar_p).removeprefix("= ")
        names = f"{pair.second} less {pair.first}"
        rows.append((names, shown_points(pair.difference), interval, p_value, pair.mcnemar_test))
    return _aligned(rows, left=1)


def _count_lines(comparison: Comparison) -> list[str]:
    rows: list[tuple[str, ...]] = [
        ("right", "both", "1st only", "2nd only", "neither", "agreement", "kappa")
    ]
    for pair in comparison.pairs:
        counts = (pair.both_right, pair.only_first, pair.only_second, pair.neither)
        kappa = "undefined" if pair.kappa is None else f"{pair.kappa:.3f}"
        shown = (f"{count:,}" for count in counts)
        names = f"{pair.first}, {pair.second}"
        rows.append((names, *shown, f"{100 * pair.agreement:.2f} %", kappa))
    return _aligned(rows, left=1)


def _seeds_lines(comparison: Comparison) -> list[str]:
    rows = [("mean difference", "points", "95 % interval", "Welch p", "runs")]
    for seeds in comparison.seeds:
        interval = _span(seeds.difference_ci95)
        p_value = "undefined" if seeds.p_value is None else shown_p(seeds.p_value)
        runs = "{} and {}".format(*seeds.num_runs)
        points = shown_points(seeds.difference)
        names = f"{seeds.second} less {seeds.first}"
        rows.append((names, points, interval, p_value.removeprefix("= "), runs))
    return _aligned(rows, left=1)


def _span(interval: Interval | None) -> str:
    return "undefined" if interval is None else " to ".join(map(shown_points, interval))


def _aligned(rows: Sequence[Sequence[str]], *, left: int) -> list[str]:
    """Rows in columns, the first ``left`` of them to the left; the last of these gives way."""
    rows = [[sanitize(cell) for cell in row] for row in rows]
    widths = [max(map(width, column)) for column in zip(*rows, strict=True)]
    taken = sum(widths) + 2 * len(widths) - widths[left - 1]
    widths[left - 1] = max(8, min(widths[left - 1], _WIDTH - taken))
    lines = []
    for row in rows:
        cells = [
            pad(truncate(cell, columns, keep_end=True), columns, right=index >= left)
            for index, (cell, columns) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append(("  " + "  ".join(cells)).rstrip())
    return lines


def _wrapped(text: str, *, indent: str = "") -> str:
    lines = wrap(sanitize(text), _WIDTH, subsequent_indent=indent, break_on_hyphens=False)
    return "\n".join(lines)


_MOST_DISAGREEMENTS = 10


def describe_comparison(
    comparison: Comparison,
    sides: Sequence[RunGroup],
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
    sides: Sequence[RunGroup],
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


def _compared_settings(sides: Sequence[RunGroup]) -> dict[str, list[str]]:
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
