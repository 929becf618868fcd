"""A comparison as tables for the terminal, as JSON and as an HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sentiment.comparison.compare import (
    Comparison,
    RunResult,
    average,
    find_disagreements,
    list_opponents,
    name_runs,
)
from sentiment.comparison.run_groups import Classifier, RunGroup, differing_settings
from sentiment.comparison.significance import (
    FEW_DISCORDANT,
    PairComparison,
    SeedsComparison,
    excludes_zero,
    format_p,
    format_points,
)
from sentiment.data.reviews import Reviews
from sentiment.display.console import format_table, wrap_text
from sentiment.display.plots import COLORS, as_svg, new_figure, write_page
from sentiment.evaluation.evaluate import Predictions
from sentiment.evaluation.metrics import FEWEST_TO_RESAMPLE, NUM_RESAMPLES, Interval
from sentiment.evaluation.slices import shorten_review
from sentiment.runtime.files import write_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FEW_SEEDS = 10

Row = tuple[str, ...]


def comparison_table(
    comparison: Comparison, groups: Sequence[RunGroup], *, title: str, notes: Sequence[str]
) -> str:
    """Title, results, verdicts, notes and explanations as text of at most 80 columns."""
    rows = [row[:5] for row in _accuracy_rows(comparison, groups)]
    parts = [wrap_text(title), format_table(rows, align="<<>", flexible=1, keep_end=True)]
    parts += map(format_table, _difference_tables(comparison))
    explanations = [f"{name}: {text}." for name, text in explain_terms(comparison).items()]
    for sentences in (verdicts(comparison), [f"- {note}" for note in notes], explanations):
        if sentences:
            parts.append("\n".join(wrap_text(sentence, indent="  ") for sentence in sentences))
    return "\n\n".join(parts)


def verdicts(comparison: Comparison) -> list[str]:
    """A sentence on each comparison that claims no more than the numbers."""
    pairs, seeds = comparison.pairs, comparison.seeds
    return [*map(_pair_verdict, pairs), *filter(None, map(_nll_verdict, pairs)),
            *map(_seeds_verdict, seeds)]  # fmt: skip


def explain_terms(comparison: Comparison) -> dict[str, str]:
    """The meaning of each term in the comparison, by name."""
    meanings = {
        "accuracy": "share of reviews classified correctly; its 95 % interval (bootstrap, or "
        f"Wilson's if fewer than {FEWEST_TO_RESAMPLE} reviews are right, or wrong) is for the "
        "same run on other reviews of this kind",
        "NLL": "mean negative log-likelihood of the right class in nats, at each run's "
        "temperature; lower is better",
    }
    if any(len(group.runs) > 1 for group in comparison.groups):
        meanings["±"] = "standard deviation over the runs of a folder, with n - 1"
        meanings["averaged"] = (
            "accuracy of the runs' predictions averaged, as by evaluate with --ensemble: the mean "
            "of the logarithms of their probabilities"
        )
    if comparison.pairs:
        meanings["difference"] = (
            "difference of the accuracies, in points; its interval by a paired bootstrap over the "
            f"reviews with {NUM_RESAMPLES:,} resamples, undefined if all resamples are alike"
        )
        meanings["McNemar p"] = (
            "probability, if both runs were equally good, that the reviews which only one of them "
            "classifies correctly divide between them at least this unevenly; exact (binomial) for "
            f"fewer than {FEW_DISCORDANT} such reviews, else chi-square with continuity correction"
        )
        meanings["paired t p"] = (
            "likewise for the NLLs of single reviews; it tells smaller differences from chance, as "
            "a review counts by how probable its class was"
        )
        meanings["agreement"] = "share of reviews with the same predicted class, right or wrong"
        meanings["kappa"] = "Cohen's kappa: agreement beyond chance, from 0 (none) to 1 (all)"
    if comparison.seeds:
        meanings["mean difference"] = (
            "difference of two folders' mean accuracies, in points; interval and p by Welch's t, "
            "for other seeds on the same reviews"
        )
    return meanings


def caveats(comparison: Comparison) -> list[str]:
    """What the results do not show."""
    notes = []
    if comparison.pairs:
        notes.append(
            "A difference between two runs is a difference between their weights, not their "
            "recipes: to compare recipes, give folders with several runs each."
        )
    num_runs = {len(group.runs) for group in comparison.groups}
    if comparison.seeds and (fewest := min(num_runs - {1})) < _FEW_SEEDS:
        notes.append(
            f"{fewest} seeds are few: the interval assumes normally distributed accuracies, whose "
            "variance is hard to estimate from so few."
        )
    if (num_tests := len(comparison.pairs) + len(comparison.seeds)) > 1:
        notes.append(
            f"The {num_tests} comparisons are not corrected for their number: without any real "
            f"difference, one in 20 shows one by chance. To correct, multiply p by {num_tests} "
            "(Bonferroni)."
        )
    return notes


def _pair_verdict(pair: PairComparison) -> str:
    if pair.only_first == pair.only_second == 0:
        return f"{pair.first} and {pair.second} are right on the same reviews: no difference here."
    test = f"McNemar p {format_p(pair.mcnemar_p)}"
    if pair.difference_ci95 is None:  # one is right on every review, and the other on none
        points = format_points(pair.difference)
        return f"{_difference_name(pair)}: {points} points, without an interval ({test})."
    text = _verdict(pair, pair.difference_ci95, f"; {test}")
    if pair.is_significant != (excludes_zero(pair.difference_ci95) or pair.mcnemar_p < 0.05):
        text += " Interval and test disagree."
    return text


def _nll_verdict(pair: PairComparison) -> str | None:
    """Which run has the better probabilities, where their accuracies are not shown to differ."""
    if pair.is_significant or pair.nll_p is None or pair.nll_p >= 0.05:
        return None
    assert pair.nll_difference_ci95 is not None
    better, worse = pair.second, pair.first
    low, high = pair.nll_difference_ci95
    if pair.nll_difference > 0:
        better, worse, low, high = worse, better, -high, -low
    return (
        f"The probabilities of {better} are better than those of {worse}: an NLL lower by "
        f"{abs(pair.nll_difference):.4f} (95 %: {-high:.4f} to {-low:.4f}; paired t p "
        f"{format_p(pair.nll_p)})."
    )


def _seeds_verdict(seeds: SeedsComparison) -> str:
    numbers = "{} and {} runs".format(*seeds.num_runs)
    if seeds.difference_ci95 is None or seeds.p_value is None:
        return (
            f"{seeds.first} and {seeds.second}: {format_points(seeds.difference)} points, but the "
            f"runs of each have equal accuracies, so their variance is unknown ({numbers})."
        )
    evidence = f"; Welch's t p {format_p(seeds.p_value)}; {numbers}"
    return _verdict(seeds, seeds.difference_ci95, evidence, mean=" on average")


def _verdict(
    result: PairComparison | SeedsComparison, interval: Interval, evidence: str, *, mean: str = ""
) -> str:
    better, worse = result.second, result.first
    low, high = (100 * bound for bound in interval)
    if result.difference < 0:
        better, worse, low, high = worse, better, -high, -low
    points = f"{100 * abs(result.difference):.2f} points"
    numbers = f"(95 %: {low:.2f} to {high:.2f}{evidence})"
    if result.is_significant:
        return f"{better} is better than {worse} by {points}{mean} {numbers}."
    names = f"{result.first} and {result.second}"
    if result.difference == 0:
        return f"No difference shown between {names}: 0 points{mean} {numbers}."
    return f"No difference shown between {names}: {better} is {points} ahead{mean} {numbers}."


def _accuracy_rows(comparison: Comparison, groups: Sequence[RunGroup]) -> list[Row]:
    """Rows for the page, of which a terminal has room for all but the last two columns."""
    rows: list[Row] = [("", "", "accuracy", "95 % interval", "NLL", "seed", "epoch")]
    for result, group in zip(comparison.groups, groups, strict=True):
        if len(group.runs) == 1:
            rows.append(_run_row(result.runs[0], str(group.runs[0].path), group.runs[0]))
            continue
        accuracy = f"{100 * result.accuracy:.2f} ± {100 * (result.accuracy_deviation or 0):.2f} %"
        nll = f"{result.nll:.4f} ± {result.nll_deviation or 0:.4f}"
        title = f"{group.path} ({len(group.runs)} runs)"
        rows.append((result.name, title, accuracy, "", nll, "", ""))
        for run_result, run in zip(result.runs, group.runs, strict=True):
            rows.append(_run_row(run_result, f"  {run.path.name} (seed {run.seed})", run))
        averaged = f"{100 * (result.ensemble_accuracy or 0):.2f} %"
        rows.append(("", "  averaged", averaged, "", "", "", ""))
    return rows


def _run_row(result: RunResult, description: str, run: Classifier) -> Row:
    interval = "{:.2f} to {:.2f}".format(*(100 * bound for bound in result.accuracy_ci95))
    figures = (f"{100 * result.accuracy:.2f} %", interval, f"{result.nll:.4f}")
    seed, epoch = ("–" if value is None else str(value) for value in (run.seed, run.epoch))
    return (result.name, description, *figures, seed, epoch)


def _difference_tables(comparison: Comparison) -> list[list[Row]]:
    """Differences of runs, the reviews that each has right, and differences of groups of runs."""
    tables: list[list[Row]] = []
    if pairs := comparison.pairs:
        rows: list[Row] = [("difference", "points", "95 % interval", "McNemar p", "test")]
        rows += [_difference_row(pair, pair.mcnemar_p, pair.mcnemar_test) for pair in pairs]
        titles = ("right", "both", "1st only", "2nd only", "neither", "agreement", "kappa")
        losses = [("NLL difference", "nats", "95 % interval", "paired t p"), *map(_nll_row, pairs)]
        tables += [rows, losses, [titles, *map(_count_row, pairs)]]
    if comparison.seeds:
        rows = [("mean difference", "points", "95 % interval", "Welch p", "runs")]
        for seeds in comparison.seeds:
            rows.append(_difference_row(seeds, seeds.p_value, "{} and {}".format(*seeds.num_runs)))
        tables.append(rows)
    return tables


def _count_row(pair: PairComparison) -> Row:
    counts = (pair.both_right, pair.only_first, pair.only_second, pair.neither)
    cells = (f"{count:,}" for count in counts)
    kappa = "undefined" if pair.kappa is None else f"{pair.kappa:.3f}"
    return (f"{pair.first}, {pair.second}", *cells, f"{100 * pair.agreement:.2f} %", kappa)


def _nll_row(pair: PairComparison) -> Row:
    interval, p_text = "undefined", "undefined"
    if pair.nll_difference_ci95 is not None and pair.nll_p is not None:
        interval = "{:+.4f} to {:+.4f}".format(*pair.nll_difference_ci95)
        p_text = format_p(pair.nll_p).removeprefix("= ")
    return _difference_name(pair), f"{pair.nll_difference:+.4f}", interval, p_text


def _difference_row(
    result: PairComparison | SeedsComparison, p_value: float | None, last: str
) -> Row:
    interval, p_text = "undefined", "undefined"
    if result.difference_ci95 is not None:
        interval = " to ".join(map(format_points, result.difference_ci95))
    if p_value is not None:
        p_text = format_p(p_value).removeprefix("= ")
    return _difference_name(result), format_points(result.difference), interval, p_text, last


def _difference_name(result: PairComparison | SeedsComparison) -> str:
    return f"{result.second} minus {result.first}"


def write_comparison(
    folder: Path,
    comparison: Comparison,
    groups: Sequence[RunGroup],
    predictions: Mapping[str, Sequence[Predictions]],
    reviews: Reviews,
    *,
    split: str,
    checkpoint: str,
    notes: Sequence[str],
) -> None:
    """Write compare.json and compare.html; ``predictions`` are at each run's temperature.

    In ``disagreements``, ``row`` is that of the split's files, from 1, and ``probability`` that of
    the predicted class, averaged over the runs of a group.
    """
    opponents = {name: average(runs) for name, runs in list_opponents(predictions).items()}
    settings = _compared_settings(groups)
    first_two = dict(list(opponents.items())[:2])
    shown = find_disagreements(*first_two.values(), most=10).tolist()
    values: dict[str, Any] = {
        "split": split,
        "data": reviews.origin,
        "checkpoint": checkpoint,
        "class_names": list(reviews.class_names),
        **comparison.as_dict(),
        "runs": [
            {"name": name, "side": group.name, "path": str(run.path), "seed": run.seed,
             "epoch": run.epoch}
            for group in groups
            for name, run in name_runs(group.name, group.runs)
        ],
        "settings": settings,
        "verdicts": verdicts(comparison),
        "notes": list(notes),
        "disagreements": [_disagreement(index, first_two, reviews) for index in shown],
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "compare.json", values)
    write_page(
        folder / "compare.html",
        "compare.html",
        **values,
        accuracy_rows=_accuracy_rows(comparison, groups),
        opponents=list(opponents),
        settings_rows=[("setting", *opponents), *((key, *row) for key, row in settings.items())],
        difference_tables=_difference_tables(comparison),
        averages=len(groups) > 1 and any(len(group.runs) > 1 for group in groups[:2]),
        texts=[shorten_review(reviews.texts[index]) for index in shown],
        meanings=explain_terms(comparison),
        accuracies_figure=as_svg(draw_accuracies(comparison)),
        differences_figure=as_svg(draw_differences(comparison)),
    )


def _disagreement(
    index: int, predictions: Mapping[str, Predictions], reviews: Reviews
) -> dict[str, Any]:
    """A review's row and class, and what each run or group predicted, by its name."""
    names = reviews.class_names
    return {
        "row": int(reviews.row_numbers()[index]),
        "right": names[reviews.labels[index]],
        "said": {
            name: {
                "class": names[averaged.predicted[index]],
                "probability": float(np.exp(averaged.log_probabilities[index].max())),
            }
            for name, averaged in predictions.items()
        },
    }


def draw_accuracies(comparison: Comparison) -> Figure:
    """Accuracies of all runs with their intervals, and of groups with their deviations."""
    rows: list[tuple[str, float, Interval, bool]] = []
    for group in comparison.groups:
        mean, deviation = group.accuracy, group.accuracy_deviation
        if deviation is not None:
            rows.append((f"{group.name} mean", mean, (mean - deviation, mean + deviation), True))
        rows += [(run.name, run.accuracy, run.accuracy_ci95, False) for run in group.runs]
    figure, axes = _draw_intervals(rows)
    axes.set_xlabel("accuracy (%)")
    return figure


def draw_differences(comparison: Comparison) -> Figure:
    """Differences with their intervals, around 0."""
    rows: list[tuple[str, float, Interval, bool]] = []
    results: list[PairComparison | SeedsComparison] = [*comparison.pairs, *comparison.seeds]
    for result in results:
        interval = result.difference_ci95 or (result.difference, result.difference)
        is_mean = isinstance(result, SeedsComparison)
        rows.append((_difference_name(result), result.difference, interval, is_mean))
    figure, axes = _draw_intervals(rows)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_xlabel("difference of accuracies (points)")
    return figure


def _draw_intervals(rows: Sequence[tuple[str, float, Interval, bool]]) -> tuple[Figure, Any]:
    """Rows from top to bottom: name, value, interval, and whether it is a mean."""
    figure, axes = new_figure(5.0, 0.9 + 0.3 * len(rows))
    for height, (_, value, (low, high), is_mean) in enumerate(rows):
        axes.plot([100 * low, 100 * high], [height] * 2, color=COLORS[is_mean], linewidth=1.6)
        axes.plot(100 * value, height, "D" if is_mean else "o", color=COLORS[is_mean], markersize=5)
    axes.set_yticks(range(len(rows)), [name for name, *_ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    return figure, axes


def _compared_settings(groups: Sequence[RunGroup]) -> dict[str, list[str]]:
    """The settings that differ between groups, by their first runs, or between a group's runs."""
    if len(groups) == 1:
        return differing_settings([run.settings for run in groups[0].runs])
    settings = differing_settings([group.runs[0].settings for group in groups])
    if any(len(group.runs) > 1 for group in groups):
        settings.pop("seed", None)
    return settings
