"""Accuracy by how far from the end the decisive word stands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from studies.tasks import make_classifier, measure_accuracy, train

DISTANCES = (10, 50, 200)
SEEDS = (0, 1, 2)
NUM_UPDATES = 800
MODELS: dict[str, dict[str, Any]] = {
    "RNN, uniform start": {"cell": "rnn", "recurrent_init": "uniform", "input_init": "uniform"},
    "RNN, orthogonal start": {"cell": "rnn"},
    "GRU": {"cell": "gru"},
    "LSTM, forget bias 0": {"forget_bias": 0.0},
    "LSTM, forget bias 1": {"forget_bias": 1.0},
    "LSTM, forget bias 1, both directions": {"forget_bias": 1.0, "bidirectional": True},
    "LSTM, forget bias 1, max pooling": {"forget_bias": 1.0, "pooling": "max"},
}


def study(folder: Path) -> dict[str, Any]:
    """Accuracies of each model at each distance, a list over seeds."""
    accuracies: dict[str, dict[str, list[float]]] = {}
    for name, settings in MODELS.items():
        accuracies[name] = {}
        for distance in DISTANCES:
            accuracies[name][str(distance)] = [
                _accuracy(distance, seed, settings) for seed in SEEDS
            ]
            print(f"{name:<38} {distance:>3} words: {accuracies[name][str(distance)]}")
    return {"num_updates": NUM_UPDATES, "accuracies": accuracies}


def _accuracy(distance: int, seed: int, settings: dict[str, Any]) -> float:
    model = make_classifier(seed, **settings)
    train(model, distance, num_updates=NUM_UPDATES, seed=seed)
    return measure_accuracy(model, distance)


def table(figures: dict[str, Any]) -> str:
    """A row for each model: the mean over seeds, and the lowest and the highest."""
    header = " | ".join(f"{distance} words" for distance in DISTANCES)
    lines = [f"| read by its last state unless said | {header} |", "|---" * 4 + "|"]
    for name, by_distance in figures["accuracies"].items():
        cells = []
        for values in by_distance.values():
            mean = 100 * sum(values) / len(values)
            cells.append(f"{mean:.1f} % ({100 * min(values):.1f} to {100 * max(values):.1f})")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
