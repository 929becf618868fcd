"""An explanation as a figure and an HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sentiment.display.plots import AGAINST, COLORS, FOR, new_figure, write_page
from sentiment.explain.attribution import shown
from sentiment.explain.explain import Explanation, GateTrace

if TYPE_CHECKING:
    from matplotlib.figure import Figure


_MOST_WORDS = 64  # whose names can be read side by side
_LONGEST_WORD = 18  # letters
_GATES = {"forget": COLORS[2], "input": COLORS[3], "output": COLORS[5]}


def draw(explanation: Explanation) -> Figure:
    """Plot predictions, attributions, gates and cell states over the words.

    For a long text, the top axes show the whole text and the others its strongest part.
    """
    part = explanation.strongest_part(_MOST_WORDS)
    num_words = part.stop - part.start
    gates = explanation.gates
    heights = [1.2] if num_words < len(explanation.words) else []
    heights += [1.5, 1.6]
    if explanation.attention is not None:
        heights.append(0.8)
    if gates is not None:
        heights += [1.2] * gates.directions + [1.7]
    width = max(6.5, 1.8 + 0.17 * num_words)
    figure, axes = new_figure(width, 1.6 + sum(heights), rows=len(heights))
    axes[0].get_gridspec().set_height_ratios(heights)
    rows = iter(axes)
    if num_words < len(explanation.words):
        _draw_overview(next(rows), explanation, part)
    _draw_opinion(next(rows), explanation, part)
    _draw_attributions(next(rows), explanation, part)
    if explanation.attention is not None:
        _draw_attention(next(rows), explanation.attention, part)
    if gates is not None:
        for direction in range(gates.directions):
            _draw_gates(next(rows), gates, part, direction)
        _draw_cells(next(rows), gates, part)
    probability = float(explanation.probabilities.max())
    title = f"{_drawn(explanation.label)} {probability:.1%}"
    figure.suptitle(title, parse_math=False, x=0.01, horizontalalignment="left", weight="bold")
    return figure


def _draw_overview(axes: Any, explanation: Explanation, part: slice) -> None:
    _draw_curves(axes, explanation, slice(0, len(explanation.words)))
    axes.axvspan(part.start - 0.5, part.stop - 0.5, color="black", alpha=0.08, linewidth=0)
    axes.set_title("prediction over the whole text, by words read; shaded: part below", loc="left")
    axes.set_xlim(-0.5, len(explanation.words) - 0.5)


def _draw_opinion(axes: Any, explanation: Explanation, part: slice) -> None:
    _draw_curves(axes, explanation, part)
    axes.set_title("prediction after each word", loc="left")
    _set_words(axes, part)


def _draw_curves(axes: Any, explanation: Explanation, part: slice) -> None:
    places = np.arange(part.start, part.stop)
    probabilities = explanation.prefixes.at_words()[part]
    names = explanation.class_names
    marker = "o" if len(places) <= _MOST_WORDS else ""
    if len(names) == 2:
        curve = probabilities[:, 1]
        axes.plot(places, curve, color="black", marker=marker, markersize=3, linewidth=1)
        for side, color in ((curve >= 0.5, FOR), (curve <= 0.5, AGAINST)):
            axes.fill_between(places, 0.5, curve, where=side, color=color,
                              alpha=0.25, interpolate=True, linewidth=0)  # fmt: skip
        axes.set_ylabel(f"P({_drawn(names[1], 20)})", parse_math=False)
    else:
        for label in explanation.curves(len(COLORS)):
            axes.plot(places, probabilities[:, label], label=_drawn(names[label], 20), linewidth=1)
        _add_legend(axes)
        axes.set_ylabel("probability")
    axes.set_ylim(0, 1)


def _draw_attributions(axes: Any, explanation: Explanation, part: slice) -> None:
    places = np.arange(part.start, part.stop)
    values = explanation.attribution.values[part]
    axes.bar(places, values, color=np.where(values > 0, FOR, AGAINST), width=0.8)
    axes.axhline(0, color="black", linewidth=0.6)
    title = f"attribution: up for {explanation.towards}, down for {explanation.against}"
    axes.set_title(_drawn(title, 90), loc="left", parse_math=False)
    axes.set_ylabel("of the score")
    axes.set_xlim(part.start - 0.5, part.stop - 0.5)
    words = explanation.words
    axes.set_xticks(places, [_drawn(word, _LONGEST_WORD) for word in words.written[part]])
    for label, is_unknown in zip(axes.get_xticklabels(), words.is_unknown[part], strict=True):
        label.set(rotation=90, parse_math=False, fontsize=8)
        if is_unknown:
            label.set_color("#9a9fa5")


def _draw_attention(axes: Any, weights: np.ndarray, part: slice) -> None:
    axes.bar(np.arange(part.start, part.stop), weights[part], color=COLORS[3], width=0.8)
    axes.set_title("attention weight of each word", loc="left")
    axes.set_ylim(0, 1.05 * float(weights.max()))
    _set_words(axes, part)


def _draw_gates(axes: Any, gates: GateTrace, part: slice, direction: int) -> None:
    places = np.arange(part.start, part.stop)
    for name, color in _GATES.items():
        values = getattr(gates, name)[-1, direction, part]
        axes.plot(places, values, label=name, color=color, marker="o", markersize=2, linewidth=1)
    way = ("forward", "backward")[direction]
    axes.set_title(f"gates, reading {way}{gates.layer}", loc="left")
    axes.set_ylabel("openness")
    axes.set_ylim(0, 1)
    _add_legend(axes)
    _set_words(axes, part)


def _draw_cells(axes: Any, gates: GateTrace, part: slice) -> None:
    cell = gates.cell[:, part]
    highest = float(np.abs(gates.cell).max())
    extent = (part.start - 0.5, part.stop - 0.5, len(cell) - 0.5, -0.5)
    image = axes.imshow(cell, aspect="auto", interpolation="nearest", cmap="PRGn",
                        vmin=-highest, vmax=highest, extent=extent)  # fmt: skip
    axes.set_yticks(range(len(cell)), [gates.unit_name(unit) for unit in gates.units], fontsize=7)
    axes.set_title(f"cell states of the strongest units{gates.layer}", loc="left")
    # Beside the axes and outside the layout, so that all axes stay equally wide.
    axes.figure.colorbar(image, cax=axes.inset_axes((1.005, 0, 0.012, 1)))
    axes.set_xticks([])
    axes.grid(False)


def _add_legend(axes: Any) -> None:
    legend = axes.legend(loc="lower right", bbox_to_anchor=(1, 0.98), ncols=7, frameon=False,
                         fontsize=8, borderpad=0, handlelength=1.2)  # fmt: skip
    for text in legend.get_texts():
        text.set_parse_math(False)


def _set_words(axes: Any, part: slice) -> None:
    """A line for each word, without ticks: the words are written under the attributions."""
    axes.set_xlim(part.start - 0.5, part.stop - 0.5)
    axes.set_xticks([])
    lines = axes.vlines(range(part.start, part.stop), 0, 1, colors="black", alpha=0.06, zorder=0)
    lines.set(transform=axes.get_xaxis_transform(), linewidth=0.8)


def _drawn(text: str, longest: int = 60) -> str:
    text = shown(text)
    return text if len(text) <= longest else text[: longest - 1] + "…"


_FAINTEST = 0.03  # share of the largest attribution below which a word is not coloured


def write_explanation(path: Path, explanation: Explanation, *, origin: str) -> None:
    """Write the page atomically; ``origin`` names the model in the heading."""
    names, probabilities = explanation.class_names, explanation.probabilities
    write_page(
        path,
        "explain.html",
        origin=origin,
        explanation=explanation,
        shares=[(names[label], float(probabilities[label])) for label in explanation.ranking],
        words=_marked_words(explanation),
        data=_figures(explanation),
    )


def _marked_words(explanation: Explanation) -> list[dict[str, Any]]:
    """Each word with its gap, colour and opacity."""
    words = explanation.words
    columns = (words.is_spaced, words.num_skipped, words.is_unknown, explanation.strengths)
    rows = zip(words.written, *(column.tolist() for column in columns), strict=True)
    return [
        {
            "text": shown(word),
            "is_spaced": is_spaced,
            "num_skipped": num_skipped,
            "is_unknown": is_unknown,
            "side": "" if abs(strength) < _FAINTEST else "for" if strength > 0 else "against",
            # Eyes tell faint colours apart better than strong ones.
            "opacity": round(0.6 * abs(strength) ** 0.7, 3),
        }
        for word, is_spaced, num_skipped, is_unknown, strength in rows
    ]


def _figures(explanation: Explanation) -> dict[str, Any]:
    """Data for the page's script, with an entry per word in each list."""
    probabilities = explanation.prefixes.at_words()
    gates = explanation.gates
    return {
        "ids": explanation.words.ids.tolist(),
        "towards": explanation.towards,
        "against": explanation.against,
        "opinion": [
            {"name": explanation.class_names[label], "values": _round(probabilities[:, label])}
            for label in explanation.curves(6)
        ],
        "isOfTwo": len(explanation.class_names) == 2,
        "attribution": _round(explanation.attribution.values),
        "attention": None if explanation.attention is None else _round(explanation.attention),
        "gates": [] if gates is None else _gate_curves(gates),
        "cells": None if gates is None else _cells(gates),
    }


def _gate_curves(gates: GateTrace) -> list[dict[str, Any]]:
    num_layers = len(gates.forget)
    return [
        {
            "name": ("forward", "backward")[direction]
            + (f", layer {layer + 1}" if num_layers > 1 else ""),
            **{gate: _round(getattr(gates, gate)[layer, direction]) for gate in _GATES},
        }
        for layer in range(num_layers)
        for direction in range(gates.directions)
    ]


def _cells(gates: GateTrace) -> dict[str, Any]:
    return {
        "units": [gates.unit_name(unit) for unit in gates.units],
        "values": [_round(values, 2) for values in gates.cell],
        "strongest": [
            [
                [gates.unit_name(unit), round(float(value), 2)]
                for unit, value in zip(units, values, strict=True)
            ]
            for units, values in zip(gates.strongest, gates.strongest_cell, strict=True)
        ],
    }


def _round(values: np.ndarray, digits: int = 4) -> list[float]:
    return [round(float(value), digits) for value in values]
