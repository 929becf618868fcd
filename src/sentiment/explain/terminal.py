"""An explanation as text for a terminal, at most 80 columns wide, with or without colours."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import zip_longest
from typing import TextIO

import numpy as np

from sentiment.display.console import COLUMNS, fitting_start, pad, truncate, width
from sentiment.explain.attribution import shown
from sentiment.explain.explain import Explanation

_MOST_WORDS = 800  # shown of the text
_STRONGEST = 6  # words per column of the table
# Backgrounds for black text, from faint to strong.
_BLUES, _ORANGES = (195, 153, 117, 75, 39), (230, 223, 216, 215, 208)
_FAINTEST = 0.08  # share of the largest attribution below which a word is not marked
_BLOCKS = "▁▂▃▄▅▆▇█"


def wants_colors(stream: TextIO) -> bool:
    """Whether it is a terminal with colours, and ``NO_COLOR`` (no-color.org) is not set."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def render(explanation: Explanation, *, colors: bool) -> str:
    """The explanation in lines of at most 80 columns.

    Words are marked with ANSI's 256 colours or, without ``colors``, with ``+`` and ``-``.
    """
    parts = [
        _verdict(explanation),
        _text(explanation, colors),
        _strongest(explanation),
        _curves(explanation),
        _units(explanation),
        _completeness(explanation),
    ]
    return "\n\n".join(part for part in parts if part)


def _verdict(explanation: Explanation) -> str:
    names, probabilities = explanation.class_names, explanation.probabilities
    shares = [f"{names[label]} {probabilities[label]:.1%}" for label in explanation.ranking[:5]]
    lines = [truncate(f"{shares[0]}   ({', '.join(shares[1:])})", COLUMNS)]
    words = explanation.words
    if words.num_total == 0:
        lines.append("no words: the text counts as one unknown word")
    else:
        read = f"{len(words):,} words" if len(words) != 1 else "1 word"
        if words.num_cut:
            read += f" read of {words.num_total:,}: {words.num_cut:,} cut off"
        lines.append(read)
        unknown = [shown(words.written[index]) for index in np.flatnonzero(words.is_unknown)]
        if unknown:
            listed = ", ".join(dict.fromkeys(unknown))
            lines.append(truncate(f"{len(unknown):,} unknown: {listed}", COLUMNS))
    return "\n".join(lines)


def _text(explanation: Explanation, colors: bool) -> str:
    part = explanation.strongest_part(_MOST_WORDS)
    lines, line, column = [], "", 0
    for plain, marked in _pieces(explanation, part, colors):
        if column and column + 1 + width(plain) > COLUMNS:
            lines.append(line)
            line, column = "", 0
        while width(plain) > COLUMNS:  # longer than a line: loses its marks
            lines.append(fitting_start(plain, COLUMNS))
            marked = plain = plain[len(lines[-1]) :]
        line += " " * (column > 0) + marked
        column += (column > 0) + width(plain)
    lines.append(line)
    if part.stop - part.start < len(explanation.words):
        where = f"words {part.start + 1:,} to {part.stop:,}"
        lines.append(f"({where}, which hold the strongest; the page shows all)")
    return "\n".join([*lines, "", _key(explanation, colors)])


def _pieces(explanation: Explanation, part: slice, colors: bool) -> Iterator[tuple[str, str]]:
    """Text between white space, as (plain, with marks)."""
    words, strengths = explanation.words, explanation.strengths
    num_skipped, is_unknown = words.num_skipped, words.is_unknown
    plain = marked = ""
    for index in range(part.start, part.stop):
        skipped = int(num_skipped[index])
        if plain and (words.is_spaced[index] or skipped):
            yield plain, marked
            plain = marked = ""
        if skipped:
            gap = f"[… {skipped:,} words cut …]"
            yield gap, gap
        word, strength = shown(words.written[index]), float(strengths[index])
        if colors:
            plain += word
            marked += _colored(word, strength, bool(is_unknown[index]))
        else:
            level = (abs(strength) >= 0.25) + (abs(strength) >= 0.6)
            mark = ("+" if strength > 0 else "-") * level
            plain = marked = f"{plain}{mark}{word}{mark}"
    yield plain, marked
    if part.stop == len(words) and words.num_cut_off:
        rest = f"[… {words.num_cut_off:,} words cut]"
        yield rest, rest


def _colored(word: str, strength: float, is_unknown: bool) -> str:
    codes = ["4"] if is_unknown else []
    if abs(strength) >= _FAINTEST:
        scale = _BLUES if strength > 0 else _ORANGES
        level = min(len(scale) - 1, int(abs(strength) * len(scale)))
        codes += ["38;5;16", f"48;5;{scale[level]}"]
    return f"\x1b[{';'.join(codes)}m{word}\x1b[0m" if codes else word


def _key(explanation: Explanation, colors: bool) -> str:
    against, towards = truncate(explanation.against, 22), truncate(explanation.towards, 22)
    if colors:
        left, right = _colored(f" {against} ", -1, False), _colored(f" {towards} ", 1, False)
        return f"{left} {right}  underlined: unknown"
    return f"++ and + speak for {towards}, -- and - for {against}"


def _strongest(explanation: Explanation) -> str:
    """The strongest words against and for the target, with their attributions."""
    values = explanation.attribution.values
    order = np.argsort(values, kind="stable")
    left, right = [f"for {explanation.against}"], [f"for {explanation.towards}"]
    left += [_cell(explanation, index) for index in order[:_STRONGEST] if values[index] < 0]
    right += [_cell(explanation, index) for index in order[::-1][:_STRONGEST] if values[index] > 0]
    return "\n".join(
        f"{pad(truncate(one, 38), 40)}{truncate(other, 38)}".rstrip()
        for one, other in zip_longest(left, right, fillvalue="")
    )


def _cell(explanation: Explanation, index: int) -> str:
    word = truncate(shown(explanation.words.written[index]), 16)
    bar = "█" * max(1, round(abs(float(explanation.strengths[index])) * 10))
    return f"{explanation.attribution.values[index]:+7.2f} {pad(word, 17)}{bar}"


def _curves(explanation: Explanation) -> str:
    """Predictions, attention and gates after each word, drawn with block characters."""
    names, probabilities = explanation.class_names, explanation.prefixes.at_words()
    rows = [
        (truncate(f"P({names[label]})", 12), probabilities[:, label], (0.0, 1.0))
        for label in explanation.curves(4)
    ]
    if explanation.attention is not None:
        rows.append(("attention", explanation.attention, (0.0, float(explanation.attention.max()))))
    gates = explanation.gates
    if gates is not None:
        for name in ("forget", "input", "output"):
            for direction in range(gates.directions):
                values = getattr(gates, name)[-1, direction]
                label = f"{name} {'→←'[direction]}" if gates.directions == 2 else name
                rows.append((label, values, (float(values.min()), float(values.max()))))
    num_columns = min(len(explanation.words), COLUMNS - 30)
    lines = [
        f"{pad(name, 13)}{_blocks(values, num_columns, scale)}  "
        f"{values.min():.2f} to {values.max():.2f}"
        for name, values, scale in rows
    ]
    per_column = len(explanation.words) / num_columns
    every = f", a column for each {per_column:.1f} words" if per_column > 1 else ""
    layer = f", gates of layer {len(gates.forget)}" if gates and gates.layer else ""
    lines.insert(0, f"word after word{every}{layer}")
    if explanation.prefixes.stride > 1:
        lines.append(f"(predictions after every {explanation.prefixes.stride:,} words)")
    if explanation.no_gates:
        lines.append(f"(no gates: {explanation.no_gates})")
    return "\n".join(lines)


def _blocks(values: np.ndarray, num_columns: int, scale: tuple[float, float]) -> str:
    means = [part.mean() for part in np.array_split(values, num_columns)]
    low, high = scale
    shares = (np.array(means) - low) / max(high - low, 1e-12)
    return "".join(_BLOCKS[min(7, max(0, int(8 * share)))] for share in shares)


def _units(explanation: Explanation) -> str:
    """The words at which the strongest units have their largest cell states."""
    gates = explanation.gates
    if gates is None:
        return ""
    entries = []
    for unit, cell in list(zip(gates.units, gates.cell, strict=True))[:5]:
        index = int(np.abs(cell).argmax())
        word = truncate(shown(explanation.words.written[index]), 14)
        entries.append(f"{gates.unit_name(unit)} {cell[index]:+.1f} {word}")
    lines = ["strongest cell states, by unit:"]
    for entry in entries:
        if width(lines[-1]) + 3 + width(entry) > COLUMNS:
            lines.append(" ")
        lines[-1] += f"  {entry}"
    return "\n".join(lines)


def _completeness(explanation: Explanation) -> str:
    attribution = explanation.attribution
    share = "" if attribution.relative_error is None else f" ({attribution.relative_error:.2%})"
    logits = f"logit of {explanation.towards}"
    if len(explanation.class_names) == 2:
        logits += f" less that of {explanation.against}"
    return (
        f"score, {truncate(logits, 34)}: {attribution.baseline_score:+.3f} as padding, "
        f"{attribution.score:+.3f} as words\n"
        f"completeness gap {abs(attribution.error):.4f}{share}, "
        f"in {attribution.num_steps:,} steps{'' if attribution.is_good else '; use more'}"
    )
