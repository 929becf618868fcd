"""The table and the curves of docs/accuracy.md, from what its trainings came to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from sentiment.display.plots import COLORS, new_figure, save_figure

PAGE = Path(__file__).parents[1] / "docs" / "accuracy.md"
PICTURE = Path(__file__).parents[1] / "docs" / "accuracy.svg"
RESULTS = Path(__file__).with_name("accuracy.json")

_BEGIN, _END = "<!-- figures -->\n", "<!-- end of figures -->"


def filled(page: str, results: Mapping[str, Any], whats: Mapping[str, str]) -> str:
    """The page with the table of these results in its place."""
    before, mark, rest = page.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    assert mark and end, "the page has no place for the table"
    return before + mark + table(results, whats) + "\n" + end + after


def table(results: Mapping[str, Any], whats: Mapping[str, str]) -> str:
    """A row for each variant that was trained.

    Args:
        results: by variant and seed.
        whats: the variants in words, in the order of the rows.
    """
    lines = [
        "| what | validation accuracy, by seed | mean ± deviation | mean NLL | best epoch of | "
        "minutes before + in training | revision | `--only` |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, what in whats.items():
        if name not in results:
            continue
        seeds = sorted(results[name], key=int)
        runs = [results[name][seed] for seed in seeds]
        shares = [100 * run["accuracy"] for run in runs]
        by_seed = ", ".join(
            f"{seed}: {share:.2f}" for seed, share in zip(seeds, shares, strict=True)
        )
        spread = f" ± {stdev(shares):.2f}" if len(shares) > 1 else ""
        nll = mean(run["nll"] for run in runs)
        epochs = ", ".join(f"{run['best_epoch']} of {run['num_epochs']}" for run in runs)
        minutes = ", ".join(_minutes(run) for run in runs)
        revisions = ", ".join(sorted({run["revision"] for run in runs}))
        lines.append(
            f"| {what} | {by_seed} % | {mean(shares):.2f}{spread} % | {nll:.4f} | {epochs} | "
            f"{minutes} | {revisions} | {name} |"
        )
    return "\n".join(lines)


def _minutes(run: Mapping[str, Any]) -> str:
    """Of the language model and the teachers, where there are any, and of the training itself."""
    before = f"{run['seconds_before'] / 60:.0f} + " if run["seconds_before"] else ""
    return f"{before}{run['seconds'] / 60:.0f}"


def draw(results: Mapping[str, Any], path: Path = PICTURE) -> None:
    """Validation accuracy from epoch to epoch: the mean over the seeds, and each of them, thin."""
    figure, axes = new_figure(7.0, 4.2)
    for number, (name, by_seed) in enumerate(results.items()):
        color = COLORS[number % len(COLORS)]
        style = ("-", "--", ":")[number // len(COLORS) % 3]
        curves = [[100 * share for share in run["curve"]] for run in by_seed.values()]
        for curve in curves:
            axes.plot(range(1, len(curve) + 1), curve, color=color, alpha=0.3, linewidth=0.7)
        means = [mean(shares) for shares in zip(*curves, strict=False)]
        axes.plot(range(1, len(means) + 1), means, style, color=color, marker=".", label=name)
    axes.set_xlabel("epoch over the labelled reviews")
    axes.set_ylabel("validation accuracy, %")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    save_figure(figure, path)
