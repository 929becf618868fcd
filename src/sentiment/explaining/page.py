"""An explanation as a page of one file, to be read by hovering over its words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from sentiment.explaining.explain import Explanation
from sentiment.explaining.gates import GateCourse
from sentiment.explaining.words import shown
from sentiment.pages import write_page

_FAINTEST = 0.03  # share of the largest attribution from which a word is coloured


def write_explanation(path: Path, explanation: Explanation, *, origin: str) -> None:
    """Write the page in one step.

    Args:
        path: the HTML file.
        explanation: what to show.
        origin: which model said it, for the heading.
    """
    found, words = explanation.attribution, explanation.words
    order = np.argsort(-explanation.probabilities, kind="stable")
    write_page(
        path,
        "explain.html",
        origin=origin,
        label=shown(explanation.label),
        shares=[
            (shown(explanation.class_names[each]), float(explanation.probabilities[each]))
            for each in order
        ],
        towards=shown(explanation.towards),
        against=shown(explanation.against),
        words=_marked_words(explanation),
        num_words=len(words),
        num_total=words.num_total,
        num_cut=words.num_cut,
        num_cut_off=words.num_cut_off,
        num_unknown=int(words.is_unknown.sum()),
        stride=explanation.opinion.stride,
        no_gates=explanation.no_gates,
        attribution=found,
        is_of_two=len(explanation.class_names) == 2,
        data=_figures(explanation),
    )


def _marked_words(explanation: Explanation) -> list[dict[str, Any]]:
    """Each word's text, what stands before it, its side and how strong it is."""
    words = explanation.words
    rows = zip(
        words.written,
        words.is_spaced.tolist(),
        words.num_skipped.tolist(),
        words.is_unknown.tolist(),
        explanation.strengths.tolist(),
        strict=True,
    )
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
    """What the page's script draws and tells, each list with an entry for each word."""
    opinions = explanation.opinion.at_words()
    order = np.argsort(-explanation.probabilities, kind="stable")[:6]
    curves = [1] if len(explanation.class_names) == 2 else order.tolist()
    return {
        "words": [shown(word) for word in explanation.words.written],
        "ids": explanation.words.ids.tolist(),
        "unknown": explanation.words.is_unknown.tolist(),
        "towards": shown(explanation.towards),
        "against": shown(explanation.against),
        "opinion": [
            {"name": shown(explanation.class_names[each]), "values": _round(opinions[:, each])}
            for each in curves
        ],
        "isOfTwo": len(explanation.class_names) == 2,
        "attribution": _round(explanation.attribution.values),
        "attention": None if explanation.attention is None else _round(explanation.attention),
        "gates": [] if explanation.gates is None else _gate_curves(explanation.gates),
        "cells": None if explanation.gates is None else _cells(explanation.gates),
    }


def _gate_curves(gates: GateCourse) -> list[dict[str, Any]]:
    num_layers = len(gates.forget)
    return [
        {
            "name": ("forward", "backward")[direction]
            + (f", layer {layer + 1}" if num_layers > 1 else ""),
            "forget": _round(gates.forget[layer, direction]),
            "input": _round(gates.input[layer, direction]),
            "output": _round(gates.output[layer, direction]),
        }
        for layer in range(num_layers)
        for direction in range(gates.directions)
    ]


def _cells(gates: GateCourse) -> dict[str, Any]:
    return {
        "units": [gates.unit_name(unit) for unit in gates.units],
        "values": [_round(values, 2) for values in gates.cell],
        "strongest": [
            [[gates.unit_name(unit), round(float(value), 2)] for unit, value in pairs]
            for pairs in (
                zip(units, values, strict=True)
                for units, values in zip(gates.strongest, gates.strongest_cell, strict=True)
            )
        ],
    }


def _round(values: np.ndarray, digits: int = 4) -> list[float]:
    return [round(float(value), digits) for value in values]
