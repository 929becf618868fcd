"""Pages of one HTML file each, that open without a network: templates filled by Jinja.

Everything a template shows is escaped unless it says otherwise, as texts come from anywhere, and
control characters in it become visible.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sentiment.display.console import visible


def render_page(template: str, **values: Any) -> str:
    """Fill ``templates/TEMPLATE``; a value the template names and nobody gives is an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("sentiment.display", "templates"),
        autoescape=True,
        finalize=_finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = _percent
    return environment.get_template(template).render(**values)


def write_page(path: Path, template: str, **values: Any) -> None:
    """Write a filled template in one step; ``values`` as for :func:`render_page`."""
    text = render_page(template, **values).encode("utf-8", "replace")
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    new.write_bytes(text)
    os.replace(new, path)


def _finalize(value: Any) -> Any:
    """What is shown of a value: plain text visibly; markup, which is ours, as it is."""
    return visible(value) if type(value) is str else value


def _percent(share: float, digits: int = 2) -> str:
    return f"{100 * share:.{digits}f} %"
