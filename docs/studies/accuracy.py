"""The table of docs/accuracy.md, from what its trainings came to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import mean, stdev
from typing import Any

PAGE = Path(__file__).parents[1] / "accuracy.md"
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
        "| what | validation accuracy, by seed | mean ± deviation | epochs, best | minutes | "
        "revision | `--only` |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, what in whats.items():
        if name not in results:
            continue
        runs = [results[name][seed] for seed in sorted(results[name], key=int)]
        shares = [100 * run["accuracy"] for run in runs]
        by_seed = ", ".join(
            f"{seed}: {100 * results[name][seed]['accuracy']:.2f}"
            for seed in sorted(results[name], key=int)
        )
        spread = f" ± {stdev(shares):.2f}" if len(shares) > 1 else ""
        epochs = ", ".join(f"{run['num_epochs']}, {run['best_epoch']}" for run in runs)
        minutes = ", ".join(f"{run['seconds'] / 60:.0f}" for run in runs)
        revisions = ", ".join(sorted({run["revision"] for run in runs}))
        lines.append(
            f"| {what} | {by_seed} % | {mean(shares):.2f}{spread} % | {epochs} | {minutes} | "
            f"{revisions} | {name} |"
        )
    return "\n".join(lines)
