"""Write the tables of all results files into README.md and docs/performance.md, and draw the plot.

    python -m benchmarks.publish

The tables go between ``<!-- figures -->`` and ``<!-- end of figures -->``. The plot shows the
growth in the newest results.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.growth import plot
from benchmarks.measure import Row
from studies import fill, markdown_table

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def main() -> None:
    results = load_results()
    for page, figures in PAGES.items():
        text = page.read_text(encoding="utf-8")
        page.write_text(fill(text, figures(results)), encoding="utf-8")
    newest = max(results, key=lambda result: result["date"])
    plot(newest["growth"], ROOT / "docs" / "growth.svg")


def load_results() -> list[dict[str, Any]]:
    """The results files of all machines, sorted by name."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))]


def machines_side_by_side(results: Sequence[dict[str, Any]]) -> str:
    """The headline rows, with a column of ratios for each machine."""
    columns = [{row.name: row for row in _rows(result) if row.headline} for result in results]
    names = list(dict.fromkeys(name for column in columns for name in column))
    headings = [f"{machine(result)}, {result['date']}" for result in results]
    lines = [f"{description(result)}\n" for result in results]
    compared = []
    for name in names:
        rows = [column.get(name) for column in columns]
        goal = next((_goal(row) for row in rows if row is not None and row.goal is not None), "")
        compared.append((name, *("–" if row is None else ratio(row) for row in rows), goal))
    lines.append(markdown_table(("comparison", *headings, "goal"), compared))
    return _as_code("\n".join(lines) + "\n")


def one_table_a_machine(results: Sequence[dict[str, Any]]) -> str:
    """All rows of each machine, in one table per machine."""
    tables = []
    for result in results:
        heading = (
            "comparison", "ratio", "range over rounds", "medians", "goal",
            "oneDNN kernels",
        )  # fmt: skip
        rows = []
        for row in _rows(result):
            spread = "" if row.low is None else f"{row.low:.3g} to {row.high:.3g}"
            rows.append((row.name, ratio(row), spread, row.value, _goal(row), row.kernel))
        tables.append(f"{description(result)}\n\n{markdown_table(heading, rows)}\n")
    return _as_code("\n".join(tables))


# How each page shows the results.
PAGES: dict[Path, Callable[[Sequence[dict[str, Any]]], str]] = {
    ROOT / "README.md": machines_side_by_side,
    ROOT / "docs" / "performance.md": one_table_a_machine,
}


def machine(result: dict[str, Any]) -> str:
    """The machine of a results file: processor with family and model, threads, and GPU."""
    name = result["device"].removeprefix("cpu (").removesuffix(")")
    processor = result.get("processor", {})  # missing in files of earlier versions
    if processor.get("family") is not None:
        full_name = (
            f"{processor['name']} (family {processor['family']}, model {processor['model']})"
        )
        name = name.replace(processor["name"], full_name)
    return name if result["gpu"] is None else f"{name}, {result['gpu']}"


def description(result: dict[str, Any]) -> str:
    """Date, machine and versions of a results file."""
    flags = result.get("processor", {}).get("flags", ())
    instructions = f" with {', '.join(flags)}" if flags else ""
    return (
        f"Measured on {result['date']} on {machine(result)}{instructions}; torch "
        f"{result['packages']['torch']}, Python {result['python']}, revision "
        f"{result['revision']}; {result['reviews']} reviews."
    )


def ratio(row: Row) -> str:
    """The ratio of a row, and its goal if missed."""
    if row.ratio is None:
        return "–"
    return f"{row.ratio:.3g}" + (f" (goal {_goal(row)} missed)" if row.misses_goal else "")


def _rows(result: dict[str, Any]) -> list[Row]:
    return [Row(**row) for row in result["rows"]]


def _goal(row: Row) -> str:
    return "" if row.goal is None else f"{row.goal:.3g}"


def _as_code(text: str) -> str:
    return re.sub(r"\bnn\.LSTM\b", "`nn.LSTM`", text).replace("PackedLSTM", "`PackedLSTM`")


if __name__ == "__main__":
    main()
