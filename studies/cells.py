"""LSTM against GRU and RNN: their weights, and what a training step costs."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

import torch

from sentiment.model import SentimentClassifier
from sentiment.model.classifier import Cell

_BATCH, _TIME, _EMBEDDING, _HIDDEN = 64, 230, 100, 256
_ROUNDS = 7
CELLS: tuple[Cell, ...] = ("lstm", "gru", "rnn")


def study(folder: Path) -> dict[str, Any]:
    """Weights of the recurrence and seconds of a step, measured in turns."""
    models = {cell: _make(cell) for cell in CELLS}
    seconds: dict[str, list[float]] = {cell: [] for cell in CELLS}
    words = 0.3 * torch.randn(_BATCH, _TIME, _EMBEDDING)
    lengths = torch.linspace(_TIME, 0.9 * _TIME, _BATCH).long()
    for round_ in range(_ROUNDS + 2):
        for cell, model in models.items():
            started = time.perf_counter()
            model.classify(words.clone().requires_grad_(), lengths).sum().backward()
            if round_ >= 2:  # the first steps pay for memory
                seconds[cell].append(time.perf_counter() - started)
    base = statistics.median(seconds["lstm"])
    return {
        cell: {
            "num_weights": sum(each.numel() for each in models[cell].recurrence.parameters()),
            "time": statistics.median(seconds[cell]) / base,
        }
        for cell in CELLS
    }


def _make(cell: Cell) -> SentimentClassifier:
    return SentimentClassifier(
        vocabulary_size=2, num_classes=2, embedding_size=_EMBEDDING, hidden_size=_HIDDEN, cell=cell
    )


def table(figures: dict[str, Any]) -> str:
    """A row for each cell."""
    lines = ["| both directions, 100 → 256 | weights | time of a training step |", "|---|---|---|"]
    for cell, row in figures.items():
        lines.append(f"| {cell.upper()} | {row['num_weights']:,} | {row['time']:.2f} |")
    return "\n".join(lines)
