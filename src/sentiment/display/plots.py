"""Figures in one style, as SVG or PNG."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

if TYPE_CHECKING:
    from matplotlib.figure import Figure


# Tell apart in print and with every kind of colour vision (Okabe & Ito 2008), first to last.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
AGAINST, FOR = "#d55e00", "#0072b2"  # towards the first, towards the second of two classes

_STYLE: dict[str, Any] = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": "medium",
    "figure.constrained_layout.use": True,
    "font.size": 9,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "savefig.dpi": 150,
    "svg.fonttype": "none",  # text stays text: small, searchable, read aloud
    "svg.hashsalt": "sentiment",  # equal pictures, equal files
}


def new_figure(
    width: float = 5.0, height: float = 3.6, *, rows: int = 1, columns: int = 1
) -> tuple[Figure, Any]:
    """A figure of so many inches, and its axes: one, or an array of them where there are more."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure  # half a second, which a start need not wait for
    from matplotlib.rcsetup import cycler

    with rc_context({**_STYLE, "axes.prop_cycle": cycler(color=COLORS)}):
        figure = Figure(figsize=(width, height))
        return figure, figure.subplots(rows, columns)


def as_svg(figure: Figure) -> str:
    """The figure as an ``<svg>`` element, to stand inside a page."""
    from matplotlib import rc_context

    buffer = io.StringIO()
    with rc_context(_STYLE):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    # Ids are unique within a figure only, and a page holds several.
    mark = f"f{crc32(text.encode()):08x}-"
    text = re.sub(r'(\bid="|url\(#|xlink:href="#)', rf"\g<1>{mark}", text)
    return text[text.index("<svg") :]


def save_figure(figure: Figure, path: Path) -> None:
    """Write the figure in the format of the path's ending, in one step."""
    from matplotlib import rc_context

    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    metadata = {"Date": None} if path.suffix == ".svg" else None
    with rc_context(_STYLE):
        figure.savefig(new, format=path.suffix[1:], metadata=metadata)
    os.replace(new, path)
