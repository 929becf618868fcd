"""Make the pictures and figures of docs/lstm.md anew.

    python -m studies [NAME ...]

Figures are kept in docs/lstm/figures.json and stand in the page between ``<!-- figures: NAME -->``
and ``<!-- end of figures -->``; nothing else of the page is touched.
"""

from __future__ import annotations

import argparse
import importlib
import json
from pathlib import Path
from typing import Any

from sentiment.runtime.environment import prepare_environment

NAMES = ("gradients", "distance", "packing", "clipping", "cells", "turns")
PAGE = Path(__file__).parents[1] / "docs" / "lstm.md"
FOLDER = PAGE.with_suffix("")
FIGURES = FOLDER / "figures.json"


def main() -> None:
    """Run the studies named, or all of them, and fill the page."""
    prepare_environment()  # before the studies import torch
    parser = argparse.ArgumentParser(prog="python -m studies", description=main.__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}")
    names = parser.parse_args().names or list(NAMES)
    unknown = sorted(set(names) - set(NAMES))
    if unknown:
        parser.error(f"no study {', '.join(unknown)}: there are {', '.join(NAMES)}")
    for name in names:
        print(f"study: {name}", flush=True)
        figures = json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.exists() else {}
        figures[name] = _module(name).study(FOLDER)
        FIGURES.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
        PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), figures), encoding="utf-8")


def filled(page: str, figures: dict[str, Any]) -> str:
    """The page with the tables of these figures in their places."""
    for name, values in figures.items():
        before, mark, rest = page.partition(f"<!-- figures: {name} -->\n")
        _, end, after = rest.partition("<!-- end of figures -->")
        assert mark and end, f"the page has no place for {name}"
        page = before + mark + _module(name).table(values) + "\n" + end + after
    return page


def _module(name: str) -> Any:
    return importlib.import_module(f"studies.{name}")


if __name__ == "__main__":
    main()
