"""What limits growth: the tables of docs/scaling.md, from measured constants and assumptions.

    python -m studies.scaling

The formulas are those of growth.py. The tables stand in the page between
``<!-- figures: NAME -->`` and ``<!-- end of figures -->``; nothing else of it is touched.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from studies.growth import (
    ASSUMED,
    BATCH,
    EPOCHS,
    RECIPE_UPDATES,
    Constants,
    binding,
    compute_seconds,
    epoch_seconds,
    exchange_seconds,
    limits,
    piece_bytes,
    read_constants,
    tokenizing_speed,
)

PAGE = Path(__file__).parents[1] / "docs" / "scaling.md"

REVIEWS = tuple(10**power for power in range(5, 10))
GPUS = (1, 8, 64, 1024)


def measured_table(constants: Constants) -> str:
    """What was measured, and by what."""
    origin = constants.origin
    torch = origin["packages"]["torch"]
    lines = [
        f"Measured on {origin['date']} on {origin['device']}, torch {torch}, revision "
        f"{origin['revision']}, {origin['reviews']} reviews, by `{origin['command']}`.",
        "",
        "| what | value |",
        "|---|---|",
    ]
    for name, each in origin["constants"].items():
        value = f"{constants[name]:,.10g}"
        lines.append(f"| {each['what']} | {value} {each['unit']} |".replace("  |", " |"))
    return "\n".join(lines)


def assumed_table(constants: Constants) -> str:
    """What was not measured, and whose figure it is."""
    lines = ["| assumed, not measured | value | source |", "|---|---|---|"]
    lines += [f"| {each.what} | {each.shown} | {each.source} |" for each in ASSUMED.values()]
    return "\n".join(lines)


def corpus_table(constants: Constants) -> str:
    """What preparing a corpus takes, once."""
    lines = [
        "| reviews | tokens | on disk | tokenizing | memory meanwhile | of it different pieces "
        "| counting the vocabulary |",
        "|---|---|---|---|---|---|---|",
    ]
    for reviews in REVIEWS:
        tokens = reviews * constants["tokens_per_review"]
        pieces = piece_bytes(constants, tokens)
        cells = [
            f"{reviews:,}", _short(tokens), _size(tokens * constants["disk"]),
            _time(tokens / tokenizing_speed(constants)),
            _size(tokens * constants["tokenizing_memory"] + pieces), _size(pieces),
            _time(tokens / constants["counting"]),
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def limits_table(constants: Constants) -> str:
    """How many reviews a machine of 8 GPUs holds, what is full first on top."""
    lines = ["| what is full | at so many reviews |", "|---|---|"]
    found = sorted(limits(constants).items(), key=lambda item: item[1])
    lines += [f"| {name} | {_short(most)} |" for name, most in found]
    return "\n".join(lines)


def exchange_table(constants: Constants) -> str:
    """An update on more and more GPUs, 64 reviews each."""
    lines = [
        "| GPUs | reviews in a batch | compute, at least | exchange | share of exchange "
        "| reviews for as many updates as on IMDB |",
        "|---|---|---|---|---|---|",
    ]
    compute = compute_seconds(constants)
    for gpus in GPUS:
        exchange = exchange_seconds(constants, gpus) if gpus > 1 else 0.0
        cells = [
            f"{gpus:,}", f"{BATCH * gpus:,}", _time(compute), _time(exchange),
            f"{100 * exchange / (compute + exchange):.0f} %",
            _short(RECIPE_UPDATES / EPOCHS * BATCH * gpus),
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def epochs_table(constants: Constants) -> str:
    """Time of an epoch, and what binds first, for each size."""
    titles = [f"{gpus:,} GPU{'s' * (gpus > 1)}" for gpus in GPUS]
    lines = [f"| reviews | {' | '.join(titles)} |", "|---" * (len(GPUS) + 1) + "|"]
    for reviews in REVIEWS:
        cells = []
        for gpus in GPUS:
            name = binding(constants, reviews, gpus)
            seconds = sum(epoch_seconds(constants, reviews, gpus).values())
            fits = reviews <= min(limits(constants, gpus).values())
            cells.append(f"{_time(seconds)}: {name}" if fits else f"does not fit: {name}")
        lines.append(f"| {reviews:,} | {' | '.join(cells)} |")
    return "\n".join(lines)


TABLES: dict[str, Callable[[Constants], str]] = {
    "measured": measured_table,
    "assumed": assumed_table,
    "corpus": corpus_table,
    "limits": limits_table,
    "exchange": exchange_table,
    "epochs": epochs_table,
}


def _short(number: float) -> str:
    """Three digits and a unit: 27.2 billion."""
    for size, name in ((1e9, "billion"), (1e6, "million")):
        if number >= size:
            return f"{float(f'{number / size:.3g}'):,g} {name}"
    return f"{float(f'{number:.3g}'):,.0f}"


def _size(num_bytes: float) -> str:
    for size, name in ((1e12, "TB"), (1e9, "GB")):
        if num_bytes >= size:
            return f"{float(f'{num_bytes / size:.2g}'):g} {name}"
    return f"{float(f'{num_bytes / 1e6:.2g}'):g} MB"


def _time(seconds: float) -> str:
    for size, name in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"), (1e-3, "ms")):
        if seconds >= size:
            return f"{float(f'{seconds / size:.2g}'):g} {name}"
    return f"{float(f'{seconds * 1e6:.2g}'):g} µs"


def filled(page: str, constants: Constants) -> str:
    """The page with all tables in their places."""
    for name, table in TABLES.items():
        before, mark, rest = page.partition(f"<!-- figures: {name} -->\n")
        _, end, after = rest.partition("<!-- end of figures -->")
        assert mark and end, f"the page has no place for {name}"
        page = before + mark + table(constants) + "\n" + end + after
    return page


def main() -> None:
    """Fill the page."""
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(filled(page, read_constants()), encoding="utf-8")


if __name__ == "__main__":
    main()
