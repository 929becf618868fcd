"""Run the benchmarks: print a table and write a JSON file.

    python -m benchmarks.run [--imdb FOLDER] [--only recurrence,training] [--output FILE]

The file is written to ``benchmarks/results`` and named after the machine; with ``--only``, only if
``--output`` names it. Reviews are synthetic unless ``--imdb`` names a folder with train.parquet.
Run it on an otherwise idle machine: other work slows both sides of a ratio, but not equally.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from benchmarks import (
    growth,
    inference,
    peers,
    ranks,
    recurrence,
    text,
    training,
)
from benchmarks.gpu import speed
from benchmarks.machine import describe_machine, find_processor, num_cores, results_name
from benchmarks.measure import Row, Worker
from benchmarks.publish import RESULTS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--imdb", type=Path, help="folder with IMDB's train.parquet")
    parser.add_argument("--only", help="sections, separated by commas")
    parser.add_argument("--output", type=Path, help="JSON file to write the results to")
    options = parser.parse_args()
    output = options.output
    if output is None and options.only is None:
        output = RESULTS / results_name(find_processor(), num_cores())
    started = time.perf_counter()
    rows, points = _measure(options)
    result = describe_machine() | {
        "reviews": "IMDB" if options.imdb else "synthetic",
        "minutes": round((time.perf_counter() - started) / 60, 1),
        "rows": [asdict(row) for row in rows],
        "growth": points,
    }
    print(table(rows))
    print(f"\n{result['device']}; {result['minutes']} minutes")
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(result, indent=2, ensure_ascii=False) + "\n"
        output.write_text(text, encoding="utf-8")
        print(output)


def _measure(options: argparse.Namespace) -> tuple[list[Row], dict[str, list[float]]]:
    points: dict[str, list[float]] = {}
    rows: list[Row] = []
    with Worker(prepared=True) as prepared, Worker(prepared=False) as plain:
        available = sections(prepared, plain, options.imdb, points)
        for name in options.only.split(",") if options.only else available:
            started = time.perf_counter()
            rows += available[name]()
            print(f"{name}: {time.perf_counter() - started:.0f} s", flush=True)
    return rows, points


def sections(
    prepared: Worker, plain: Worker, folder: Path | None, points: dict[str, list[float]]
) -> dict[str, Callable[[], list[Row]]]:
    """The function that measures the rows of each section.

    Args:
        prepared, plain: workers with the program's and with torch's environment.
        folder: with train.parquet; None means synthetic reviews.
        points: filled with the points of the plot.
    """

    def grow() -> list[Row]:
        results, measured = growth.rows()
        points.update(measured)
        return results

    return {
        "recurrence": recurrence.rows,
        "emulated": recurrence.emulated_rows,
        "busy": recurrence.busy_rows,
        "denormals": recurrence.denormal_rows,
        "cells": recurrence.cell_rows,
        "training": lambda: training.rows(prepared),
        "pretraining": lambda: training.pretraining_rows(prepared),
        "text": lambda: text.rows(prepared, folder),
        "evaluating": lambda: inference.evaluation_rows(prepared, folder),
        "predicting": lambda: inference.prediction_rows(prepared, folder),
        "growth": grow,
        "peers": lambda: peers.rows(prepared, plain),
        "ranks": lambda: ranks.rows(folder),
        "cuda": speed.rows,
    }


def table(rows: list[Row]) -> str:
    """The rows as lines of at most 120 characters."""
    lines = []
    section = None
    for row in rows:
        if row.section != section:
            section = row.section
            lines += ["", f"{section:<82}{'ratio':>7}  {'spread':<13} goal"]
        ratio = "" if row.ratio is None else f"{row.ratio:.3g}"
        spread = "" if row.low is None or row.high is None else f"{row.low:.3g}–{row.high:.3g}"
        goal = "" if row.goal is None else f"{row.goal:.3g}{' missed' if row.misses_goal else ''}"
        name = row.name if len(row.name) <= 80 else row.name[:79] + "…"
        lines.append(f"  {name:<80}{ratio:>7}  {spread:<13} {goal}")
        details = "; ".join(filter(None, (row.value, row.kernel)))
        if details:
            lines.append(f"    {details}"[:120])
    return "\n".join(lines)


if __name__ == "__main__":
    main()
