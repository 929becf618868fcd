"""Self-contained HTML pages from Jinja templates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sentiment.display.console import visible
from sentiment.runtime.files import atomic_write


def render_page(template: str, **values: Any) -> str:
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
    return environment.get_template(template).render(**values)


def write_page(path: Path, template: str, **values: Any) -> None:
    """Write a filled template; see :func:`render_page`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, render_page(template, **values).encode("utf-8", "replace"))
