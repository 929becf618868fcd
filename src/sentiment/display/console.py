"""Text for terminals and pages: control characters, tables, hints; and progress bars."""

from __future__ import annotations

import difflib
import re
import sys
import textwrap
import unicodedata
from bisect import bisect_right
from collections.abc import Collection, Iterable, Sequence
from itertools import accumulate, zip_longest
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tqdm.auto import tqdm

COLUMNS = 80  # of every report on a terminal
# Join or separate letters and emoji, which is harmless.
_JOINERS = "\N{ZERO WIDTH JOINER}\N{ZERO WIDTH NON-JOINER}"
# Not allowed in HTML: control characters other than white space, and lone surrogates.
_NOT_HTML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


def sanitize(text: str) -> str:
    """One line that cannot control a terminal.

    Control characters, including line breaks and tabs, become their symbols (␛ for escape);
    direction marks and other invisible characters become �.
    """
    return text if text.isprintable() else "".join(map(_printable_character, text))


def visible(text: str) -> str:
    """Text for a page: control characters become symbols; tabs and line breaks stay."""
    return _NOT_HTML.sub(lambda match: _symbol(match[0]), text)


def width(text: str) -> int:
    """Terminal columns of printable text; East Asian characters and emoji take two."""
    return len(text) if text.isascii() else sum(map(_character_width, text))


def truncate(text: str, columns: int, *, keep_end: bool = False) -> str:
    """Sanitized text of at most ``columns`` (1 or more) columns, shortened with an ellipsis.

    ``keep_end`` cuts off the start instead of the end, as suits paths.
    """
    longest = 20 * columns  # no need to look at megabytes
    text = sanitize(text[-longest:] if keep_end else text[:longest])
    if width(text) <= columns:
        return text
    characters = text[::-1] if keep_end else text
    kept = fitting_start(characters, columns - 1)
    return f"…{kept[::-1]}" if keep_end else f"{kept.rstrip()}…"


def fitting_start(text: str, columns: int) -> str:
    """The longest start of printable text that takes at most so many columns."""
    ends = list(accumulate(map(_character_width, text)))
    return text[: bisect_right(ends, columns)]


def pad(text: str, columns: int, *, right: bool = False) -> str:
    """Text padded to a number of columns; ``right`` aligns it to the right."""
    spaces = " " * (columns - width(text))
    return spaces + text if right else text + spaces


def format_table(
    rows: Iterable[Sequence[str]],
    *,
    align: str = "<>",
    min_widths: Sequence[int] = (),
    flexible: int = 0,
    keep_end: bool = False,
    wrap: bool = False,
    indent: int = 2,
) -> str:
    """Rows in aligned columns, on lines of at most 80 columns; an empty row is a blank line.

    ``align`` holds ``<`` or ``>`` for each column; its last character counts for all columns that
    follow. Where a line would be too long, the column number ``flexible`` is truncated (at its
    start with ``keep_end``) or, with ``wrap``, continued on the next line.
    """
    cells = [[sanitize(cell) for cell in row] for row in rows]
    columns = list(zip_longest(*cells, fillvalue=""))
    widths = [max(map(width, column)) for column in columns]
    widths = [max(pair) for pair in zip_longest(widths, min_widths[: len(widths)], fillvalue=0)]
    others = indent + sum(widths) + 2 * (len(widths) - 1) - widths[flexible]
    widths[flexible] = min(widths[flexible], max(8, COLUMNS - others))
    sides = align.ljust(len(widths), align[-1])
    lines = []
    for row in zip(*columns, strict=True):
        line = list(row)
        parts = [truncate(line[flexible], widths[flexible], keep_end=keep_end)]
        if wrap:
            parts = textwrap.wrap(line[flexible], widths[flexible]) or [""]
        for part in parts:
            line[flexible] = part
            padded = [
                pad(cell, columns, right=side == ">")
                for cell, columns, side in zip(line, widths, sides, strict=True)
            ]
            lines.append((" " * indent + "  ".join(padded)).rstrip())
            line = [""] * len(widths)
    return "\n".join(lines)


def wrap_text(text: str, *, indent: str = "") -> str:
    """Text in lines of at most 80 columns, all but the first indented."""
    lines = textwrap.wrap(sanitize(text), COLUMNS, subsequent_indent=indent, break_on_hyphens=False)
    return "\n".join(lines)


def _printable_character(character: str) -> str:
    if character.isprintable() or character in _JOINERS:
        return character
    return " " if unicodedata.category(character) == "Zs" else _symbol(character)


def _symbol(character: str) -> str:
    """Unicode's symbol for an ASCII control character, or �."""
    if character == "\x7f":
        return "\N{SYMBOL FOR DELETE}"
    return chr(0x2400 + ord(character)) if character < " " else "\N{REPLACEMENT CHARACTER}"


def _character_width(character: str) -> int:
    if character.isascii():
        return 1
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):  # drawn over the previous one
        return 0
    return 1 + (unicodedata.east_asian_width(character) in "WF")


def did_you_mean(name: str, choices: Collection[str], *, list_all: bool = False) -> str:
    """A hint at the choice most similar to an unknown name, ignoring case.

    If none is similar, an empty text, or with ``list_all`` the choices, if there are at most 20.
    """
    by_lower = {choice.lower(): choice for choice in choices}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1)
    if not near:  # a key given without its section: compare the last parts
        by_last = {key.rsplit(".", 1)[-1]: key for key in by_lower}
        last = name.lower().rsplit(".", 1)[-1]
        near = [by_last[key] for key in difflib.get_close_matches(last, by_last, n=1)]
    if near:
        return f" (did you mean {by_lower[near[0]]}?)"
    return f" (one of {', '.join(choices)})" if list_all and 0 < len(choices) <= 20 else ""


_SECONDS_PER_LINE = 300.0  # between the lines on progress in a file
_LINE = "{desc}: {percentage:.0f} %, {elapsed} so far, {remaining} left{postfix}"
_LINE_WITHOUT_TOTAL = "{desc}: {n_fmt} in {elapsed}{postfix}"


class _LineFile:
    """Standard error as tqdm's file, where a line takes the place of a bar that moves."""

    encoding = "utf-8"

    def write(self, text: str) -> None:
        if line := text.strip("\r\n "):
            sys.stderr.write(f"{line}\n")

    def flush(self) -> None:
        sys.stderr.flush()


def progress_bar(*, is_hidden: bool = False, **options: Any) -> tqdm:
    """A bar on a terminal or in a notebook, a line every five minutes in a file.

    ``options`` are tqdm's.
    """
    from tqdm.auto import tqdm  # which --help need not wait for

    # Streams that take standard error's place may lack isatty.
    is_drawn = "ipykernel" in sys.modules or getattr(sys.stderr, "isatty", bool)()
    if not is_drawn:
        has_total = options.get("total") is not None or hasattr(options.get("iterable"), "__len__")
        options |= {
            "bar_format": _LINE if has_total else _LINE_WITHOUT_TOTAL,
            "file": _LineFile(), "leave": False,
            "delay": _SECONDS_PER_LINE, "mininterval": _SECONDS_PER_LINE,
            # So that tqdm's monitor, which repeats lines, sees nothing to do.
            "miniters": 1,
        }  # fmt: skip
    return tqdm(disable=is_hidden, **options)
