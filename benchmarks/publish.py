"""Put a results file's figures into README.md and docs/performance.md, and draw its plot.

    python -m benchmarks.publish [benchmarks/results/FILE.json]

Both pages hold a table between ``<!-- figures -->`` and ``<!-- end of figures -->``; nothing else
of them is touched.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PUBLISHED = ROOT / "benchmarks" / "results" / "amd-epyc-2-cores.json"
PAGES = {ROOT / "README.md": False, ROOT / "docs" / "performance.md": True}  # whether all rows


def main() -> None:
    from benchmarks.growth import plot

    path = Path(sys.argv[1]) if len(sys.argv) > 1 else PUBLISHED
    result = json.loads(path.read_text(encoding="utf-8"))
    for page, has_all in PAGES.items():
        page.write_text(filled(page.read_text(encoding="utf-8"), result, has_all), encoding="utf-8")
    plot(result["growth"], ROOT / "docs" / "growth.svg")


def filled(page: str, result: dict[str, Any], has_all: bool) -> str:
    """The page with the figures of a results file in their place."""
    before, mark, rest = page.partition("<!-- figures -->\n")
    _, end, after = rest.partition("<!-- end of figures -->")
    assert mark and end, "the page has no place for figures"
    return before + mark + figures(result, has_all) + end + after


def figures(result: dict[str, Any], has_all: bool) -> str:
    """A Markdown table of the rows."""
    torch = result["packages"]["torch"]
    lines = [
        f"Measured on {result['date']} on {result['device']}, torch {torch}, Python "
        f"{result['python']}, revision {result['revision']}; {result['reviews']} reviews.",
        "",
        "| what : against what | times, or share | among the rounds | medians | goal |",
        "|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        if row["ratio"] is None:
            if has_all:
                lines.append(f"| {row['name']} | – | | {row['value']} | |")
        elif has_all or row["headline"]:
            spread = f"{row['low']:.3g} to {row['high']:.3g}" if row["low"] is not None else ""
            goal = "" if row["goal"] is None else f"{row['goal']:.3g}"
            cells = (row["name"], f"{row['ratio']:.3g}", spread, row["value"], goal)
            lines.append("| " + " | ".join(cells) + " |")
    text = "\n".join(lines)
    return re.sub(r"\bnn\.LSTM\b", "`nn.LSTM`", text).replace("PackedLSTM", "`PackedLSTM`") + "\n"


if __name__ == "__main__":
    main()
