"""Figures in one style, as SVG, as PNG and in TensorBoard, and the HTML pages that hold them."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

from sentiment.display.console import visible
from sentiment.runtime.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch.utils.tensorboard import SummaryWriter

# Distinct in print and with every kind of colour vision (Okabe & Ito 2008).
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
AGAINST, FOR = "#d55e00", "#0072b2"  # for the first and for the second of two classes

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
    "svg.fonttype": "none",  # text stays text: small, searchable, accessible to screen readers
    "svg.hashsalt": "sentiment",  # equal figures give equal files
}


def new_figure(width: float = 5.0, height: float = 3.6, *, rows: int = 1) -> tuple[Figure, Any]:
    """A figure, sized in inches, with its axes: one, or an array of several."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure  # takes half a second to import
    from matplotlib.rcsetup import cycler

    with rc_context({**_STYLE, "axes.prop_cycle": cycler(color=COLORS)}):
        figure = Figure(figsize=(width, height))
        return figure, figure.subplots(rows)


def as_svg(figure: Figure) -> str:
    """The figure as an ``<svg>`` element for a page."""
    buffer = io.StringIO()
    with _rendering():
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    # Matplotlib's ids are unique in one figure only, but a page holds several.
    prefix = f"f{crc32(text.encode()):08x}-"
    text = re.sub(r'(\bid="|url\(#|xlink:href="#)', rf"\g<1>{prefix}", text)
    return text[text.index("<svg") :]


def save_figure(figure: Figure, path: Path) -> None:
    """Write the figure in the format of the path's suffix."""
    buffer = io.BytesIO()
    metadata = {"Date": None} if path.suffix == ".svg" else None
    with _rendering():
        figure.savefig(buffer, format=path.suffix[1:], metadata=metadata)
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, buffer.getvalue())


def add_figure(writer: SummaryWriter, tag: str, figure: Figure, step: int) -> None:
    """Show a figure in TensorBoard under ``pictures/TAG``."""
    figure.set_dpi(120)
    with _ignoring_missing_glyphs():
        writer.add_figure(f"pictures/{tag}", figure, step)


@contextmanager
def _rendering() -> Iterator[None]:
    from matplotlib import rc_context

    with rc_context(_STYLE), _ignoring_missing_glyphs():
        yield


@contextmanager
def _ignoring_missing_glyphs() -> Iterator[None]:
    """A class name may be in a script that the font lacks, but a browser's fonts have."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def write_page(path: Path, template: str, **values: Any) -> None:
    """Fill ``templates/TEMPLATE``; a value that it uses but is not given is an error.

    Values are escaped unless the template says ``safe``; control characters become symbols.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("sentiment.display", "templates"),
        autoescape=True,
        finalize=lambda value: visible(value) if type(value) is str else value,  # not Markup
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda share, digits=2: f"{100 * share:.{digits}f} %"
    page = environment.get_template(template).render(**values)
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, page.encode("utf-8", "replace"))
