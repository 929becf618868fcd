"""How much of a gradient reaches a word, by how far before the end the word stands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from sentiment.display.plots import new_figure, save_figure
from sentiment.model import SentimentClassifier

DISTANCES = (0, 10, 50, 100, 200)
SEEDS = range(3)
_TIME, _BATCH, _EMBEDDING, _HIDDEN = 201, 16, 100, 256
MODELS: dict[str, dict[str, Any]] = {
    "RNN, uniform start": {"cell": "rnn", "recurrent_init": "uniform", "input_init": "uniform"},
    "RNN, orthogonal start": {"cell": "rnn"},
    "GRU": {"cell": "gru"},
    "LSTM, forget bias 0": {"forget_bias": 0.0},
    "LSTM, forget bias 1": {"forget_bias": 1.0},
}
LOWEST = 1e-12  # below, a curve leaves the picture


def study(folder: Path) -> dict[str, Any]:
    """Norms of the gradient with regard to each word, before any training."""
    norms = {name: _norms(settings) for name, settings in MODELS.items()}
    figure, axes = new_figure(6.4, 3.8)
    for name, curve in norms.items():
        shown = curve / curve[0]
        axes.plot(torch.arange(_TIME)[shown > LOWEST], shown[shown > LOWEST], label=name)
    axes.set_yscale("log")
    axes.set_ylim(LOWEST, 10)
    axes.set_xlabel("words between this one and the end")
    axes.set_ylabel("gradient's norm, that of the last word = 1")
    axes.legend(loc="center right")
    save_figure(figure, folder / "gradients.svg")
    return {
        name: {str(distance): float(curve[distance] / curve[0]) for distance in DISTANCES}
        for name, curve in norms.items()
    }


def _norms(settings: dict[str, Any]) -> torch.Tensor:
    """(time,) mean norm by distance from the end, over reviews and seeds."""
    curves = []
    for seed in SEEDS:
        torch.manual_seed(seed)
        model = SentimentClassifier(
            vocabulary_size=2, num_classes=2, embedding_size=_EMBEDDING, hidden_size=_HIDDEN,
            bidirectional=False, pooling="last", **settings,
        ).double()  # fmt: skip  # some gradients are too small for fp32
        words = 0.3 * torch.randn(_BATCH, _TIME, _EMBEDDING, dtype=torch.float64)
        words.requires_grad_()
        logits = model.classify(words, torch.full((_BATCH,), _TIME))
        (logits[:, 1] - logits[:, 0]).sum().backward()
        assert words.grad is not None
        curves.append(words.grad.norm(dim=2).mean(dim=0).flip(0))
    return torch.stack(curves).mean(dim=0)


def table(figures: dict[str, Any]) -> str:
    """A row for each model: what is left of the gradient by distance."""
    header = " | ".join(f"{distance} words" for distance in DISTANCES)
    lines = [f"| before any training | {header} |", "|---" * (len(DISTANCES) + 1) + "|"]
    for name, by_distance in figures.items():
        cells = " | ".join(
            f"{value:.2g}" if value > 1e-3 else f"{value:.0e}" for value in by_distance.values()
        )
        lines.append(f"| {name} | {cells} |")
    return "\n".join(lines)
