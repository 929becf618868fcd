"""The programs that compute the figures and tables of docs/."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table in Markdown."""
    lines = [f"| {' | '.join(map(str, cells))} |" for cells in (header, *rows)]
    return "\n".join([lines[0], "|---" * len(header) + "|", *lines[1:]])


def fill(page: str, table: str, name: str = "") -> str:
    """The page with a table between ``<!-- figures: NAME -->`` and ``<!-- end of figures -->``.

    Without a name, the table follows ``<!-- figures -->``.
    """
    begin = f"<!-- figures: {name} -->\n" if name else "<!-- figures -->\n"
    before, mark, rest = page.partition(begin)
    _, end, after = rest.partition("<!-- end of figures -->")
    assert mark and end, f"the page has no {begin.strip()}"
    return f"{before}{mark}{table.rstrip()}\n{end}{after}"
