"""The tables and pictures of docs/lstm.md.

    python -m studies [NAME ...]

``NAME_study(folder)`` computes the figures of a study and draws its picture into the folder;
``NAME_table(figures)`` formats them. Figures are kept in docs/lstm/figures.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from sentiment import load
from sentiment.cli import main as cli
from sentiment.display.plots import new_figure, save_figure
from sentiment.explain.explain import explain
from sentiment.explain.page import draw
from sentiment.model import PackedLSTM, SentimentClassifier
from sentiment.model.classifier import Cell
from studies import fill, markdown_table
from studies.task import make_classifier, measure_accuracy, train

PAGE = Path(__file__).parents[1] / "docs" / "lstm.md"
FOLDER = PAGE.with_suffix("")
FIGURES = FOLDER / "figures.json"
Figures = dict[str, Any]

# What the RNN, GRU and LSTM rows of two tables are made of.
_CELLS: dict[str, dict[str, Any]] = {
    "RNN, uniform init": {"cell": "rnn", "recurrent_init": "uniform", "input_init": "uniform"},
    "RNN, orthogonal init": {"cell": "rnn"},
    "GRU": {"cell": "gru"},
    "LSTM, forget bias 0": {"forget_bias": 0.0},
    "LSTM, forget bias 1": {"forget_bias": 1.0},
}


# Gradient norm by distance

_GRADIENT_DISTANCES = (0, 10, 50, 100, 200)
_LOWEST = 1e-12  # lower values are not drawn


def gradients_study(folder: Path) -> Figures:
    """Norms of the gradient with respect to each word, before any training."""
    norms = {name: _norms(settings) for name, settings in _CELLS.items()}
    figure, axes = new_figure(6.4, 3.8)
    for name, curve in norms.items():
        relative = curve / curve[0]
        is_drawn = relative > _LOWEST
        axes.plot(torch.arange(len(curve))[is_drawn], relative[is_drawn], label=name)
    axes.set_yscale("log")
    axes.set_ylim(_LOWEST, 10)
    axes.set_xlabel("words between this one and the end")
    axes.set_ylabel("gradient norm, relative to the last word's")
    axes.legend(loc="center right")
    save_figure(figure, folder / "gradients.svg")
    return {
        name: {str(distance): float(curve[distance] / curve[0]) for distance in _GRADIENT_DISTANCES}
        for name, curve in norms.items()
    }


def _norms(settings: dict[str, Any]) -> torch.Tensor:
    """(time,) mean norm by distance from the end, over reviews and seeds."""
    batch, num_steps, embedding, hidden = 16, 201, 100, 256
    curves = []
    for seed in range(3):
        torch.manual_seed(seed)
        model = SentimentClassifier(
            vocabulary_size=2, num_classes=2, embedding_size=embedding, hidden_size=hidden,
            bidirectional=False, pooling="last", **settings,
        ).double()  # fmt: skip  # some gradients are too small for fp32
        words = 0.3 * torch.randn(batch, num_steps, embedding, dtype=torch.float64)
        words.requires_grad_()
        logits = model.classify(words, torch.full((batch,), num_steps))
        (logits[:, 1] - logits[:, 0]).sum().backward()
        assert words.grad is not None
        curves.append(words.grad.norm(dim=2).mean(dim=0).flip(0))
    return torch.stack(curves).mean(dim=0)


def gradients_table(figures: Figures) -> str:
    header = ("before any training", *(f"{distance} words" for distance in _GRADIENT_DISTANCES))
    return markdown_table(
        header,
        [
            (name, *(f"{x:.2g}" if x > 1e-3 else f"{x:.0e}" for x in by_distance.values()))
            for name, by_distance in figures.items()
        ],
    )


# Accuracy by distance of the decisive word from the end

_DISTANCES = (10, 50, 200)
_NUM_UPDATES = 800
_MODELS = _CELLS | {
    "LSTM, forget bias 1, bidirectional": {"forget_bias": 1.0, "bidirectional": True},
    "LSTM, forget bias 1, max pooling": {"forget_bias": 1.0, "pooling": "max"},
}


def distance_study(folder: Path) -> Figures:
    """Accuracies of each model at each distance, a list over seeds."""
    accuracies: dict[str, dict[str, list[float]]] = {}
    for name, settings in _MODELS.items():
        accuracies[name] = {}
        for distance in _DISTANCES:
            by_seed = [_accuracy(distance, seed, settings) for seed in range(3)]
            accuracies[name][str(distance)] = by_seed
            print(f"{name:<38} {distance:>3} words: {by_seed}")
    return {"num_updates": _NUM_UPDATES, "accuracies": accuracies}


def _accuracy(distance: int, seed: int, settings: dict[str, Any]) -> float:
    model = make_classifier(seed, **settings)
    train(model, distance, num_updates=_NUM_UPDATES, seed=seed)
    return measure_accuracy(model, distance)


def distance_table(figures: Figures) -> str:
    """The mean over seeds, the lowest and the highest."""
    rows: list[tuple[object, ...]] = []
    for name, by_distance in figures["accuracies"].items():
        cells = [
            f"{100 * sum(values) / len(values):.1f} % "
            f"({100 * min(values):.1f} to {100 * max(values):.1f})"
            for values in by_distance.values()
        ]
        rows.append((name, *cells))
    header = ("last state, one direction unless noted", *(f"{each} words" for each in _DISTANCES))
    return markdown_table(header, rows)


# Final states with padding

_LENGTHS = (230, 180, 90, 20)


def packing_study(folder: Path) -> Figures:
    """Final states of padded reviews, relative to those of each review alone."""
    torch.manual_seed(0)
    lstm = nn.LSTM(100, 256, batch_first=True, bidirectional=True)
    packed = PackedLSTM(100, 256, bidirectional=True)
    packed.load_state_dict(lstm.state_dict())
    lengths = torch.tensor(_LENGTHS)
    x = 0.3 * torch.randn(len(lengths), int(lengths.max()), 100)
    x[torch.arange(x.shape[1]) >= lengths.unsqueeze(1)] = 0  # <pad> has an embedding of zeros
    with torch.inference_mode():
        alone = torch.cat(
            [lstm(row[:length].unsqueeze(0))[1][0] for row, length in zip(x, lengths, strict=True)],
            dim=1,
        )  # (directions, batch, hidden)
        finals = {
            "nn.LSTM on the padded batch": lstm(x)[1][0],
            "nn.LSTM on the PackedSequence": lstm(pack_padded_sequence(x, lengths, True))[1][0],
            "PackedLSTM": packed(x, lengths)[1][0],
        }
    return {
        name: [float((final - alone).norm(dim=2)[:, row].max() / alone.norm(dim=2)[:, row].max())
               for row in range(len(lengths))]
        for name, final in finals.items()
    }  # fmt: skip


def packing_table(figures: Figures) -> str:
    header = ("relative error of the final states", *(f"{length} words" for length in _LENGTHS))
    return markdown_table(
        header,
        [
            (name, *(f"{error:.0e}" if error < 0.01 else f"{error:.2f}" for error in errors))
            for name, errors in figures.items()
        ],
    )


# Exploding gradients and clipping

_CLIP_SEEDS = 10
_CLIP_UPDATES = 400
_CLIPS = {"clipped to norm 1": 1.0, "not clipped": float("inf")}
_TASKS: dict[str, dict[str, Any]] = {
    "RNN, 10 words": {"cell": "rnn", "distance": 10, "momentum_rate": 0.1},
    "LSTM, 20 words": {"cell": "lstm", "distance": 20, "momentum_rate": 0.3},
}
_LEARNED = 0.95  # accuracy above which a task counts as learned


def clipping_study(folder: Path) -> Figures:
    """How many seeds learn the task with and without clipping, and the gradient norm of one."""
    learned: dict[str, dict[str, int]] = {}
    figure, axes = new_figure(6.4, 3.2)
    for task, settings in _TASKS.items():
        learned[task] = {}
        for name, clip in _CLIPS.items():
            results = [_clipped_run(settings, clip, seed) for seed in range(_CLIP_SEEDS)]
            learned[task][name] = sum(accuracy > _LEARNED for accuracy, _ in results)
            if settings["cell"] == "rnn":
                norms = results[0][1]
                axes.plot(range(1, len(norms) + 1), norms, linewidth=1, label=name)
    axes.axhline(1, color="black", linewidth=0.8, linestyle="--")
    axes.set_yscale("log")
    axes.set_xlabel("update")
    axes.set_ylabel("gradient norm before clipping")
    axes.legend(title="RNN, 10 words, seed 0")
    save_figure(figure, folder / "clipping.svg")
    return {"num_seeds": _CLIP_SEEDS, "num_updates": _CLIP_UPDATES, "learned": learned}


def _clipped_run(settings: dict[str, Any], clip: float, seed: int) -> tuple[float, list[float]]:
    """Accuracy after training, and the gradient norm of each update."""
    model = make_classifier(seed, cell=settings["cell"])
    history = train(
        model,
        settings["distance"],
        num_updates=_CLIP_UPDATES,
        seed=seed,
        gradient_clip=clip,
        momentum_rate=settings["momentum_rate"],
    )
    return measure_accuracy(model, settings["distance"]), [norm for _, norm in history]


def clipping_table(figures: Figures) -> str:
    header = (f"seeds of {figures['num_seeds']} that learn the task", *_CLIPS)
    return markdown_table(
        header, [(task, *by_clip.values()) for task, by_clip in figures["learned"].items()]
    )


# Weights and speed of the cells

_CELL_NAMES: tuple[Cell, ...] = ("lstm", "gru", "rnn")


def cells_study(folder: Path) -> Figures:
    """Weights of the recurrence and time of a training step, measured alternately."""
    batch, num_steps, rounds = 64, 230, 7
    models = {
        cell: SentimentClassifier(
            vocabulary_size=2,
            num_classes=2,
            embedding_size=100,
            hidden_size=256,
            cell=cell,
        )
        for cell in _CELL_NAMES
    }
    seconds: dict[str, list[float]] = {cell: [] for cell in _CELL_NAMES}
    words = 0.3 * torch.randn(batch, num_steps, 100)
    lengths = torch.linspace(num_steps, 0.9 * num_steps, batch).long()
    for round_ in range(rounds + 2):
        for cell, model in models.items():
            started = time.perf_counter()
            model.classify(words.clone().requires_grad_(), lengths).sum().backward()
            if round_ >= 2:  # the first steps allocate memory
                seconds[cell].append(time.perf_counter() - started)
    base = statistics.median(seconds["lstm"])
    return {
        cell: {
            "num_weights": sum(weight.numel() for weight in model.recurrence.parameters()),
            "time": statistics.median(seconds[cell]) / base,
        }
        for cell, model in models.items()
    }


def cells_table(figures: Figures) -> str:
    return markdown_table(
        ("bidirectional, 100 → 256", "weights", "relative time of a training step"),
        [
            (cell.upper(), f"{row['num_weights']:,}", f"{row['time']:.2f}")
            for cell, row in figures.items()
        ],
    )


# Gates over two sentences that turn

_PRAISE, _BLAME = "the script is witty", "the plot falls apart"
_TEXTS = {
    "turn-against": f"Although {_PRAISE}, {_BLAME}.",
    "turn-for": f"Although {_BLAME}, {_PRAISE}.",
}


def turns_study(folder: Path) -> Figures:
    """Train the quickstart recipe, and explain two sentences of the same words."""
    with tempfile.TemporaryDirectory() as temporary:
        run = Path(temporary) / "quickstart"
        if cli.train(["--config=configs/quickstart.yaml", f"--output_dir={run}"]):
            raise RuntimeError("training the quickstart recipe failed")
        predictor = load(run)
    probabilities = {}
    for name, text in _TEXTS.items():
        explanation = explain(predictor, text)
        save_figure(draw(explanation), folder / f"{name}.svg")
        after_word = explanation.prefixes.at_words()[:, 1]
        comma = explanation.words.written.index(",")
        probabilities[text] = [float(after_word[comma]), float(after_word[-1])]
    return probabilities


def turns_table(figures: Figures) -> str:
    return markdown_table(
        ("probability of a positive review", "at the comma", "at the end"),
        [(text, *(f"{100 * value:.1f} %" for value in values)) for text, values in figures.items()],
    )


STUDIES: dict[str, tuple[Callable[[Path], Figures], Callable[[Figures], str]]] = {
    "gradients": (gradients_study, gradients_table),
    "distance": (distance_study, distance_table),
    "packing": (packing_study, packing_table),
    "clipping": (clipping_study, clipping_table),
    "cells": (cells_study, cells_table),
    "turns": (turns_study, turns_table),
}


def filled(page: str, figures: dict[str, Figures]) -> str:
    """The page with the tables of these figures."""
    for name, values in figures.items():
        page = fill(page, STUDIES[name][1](values), name)
    return page


def main() -> None:
    """Run the named studies, or all of them, and update the page."""
    parser = argparse.ArgumentParser(prog="python -m studies", description=main.__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(STUDIES)}")
    names = parser.parse_args().names or list(STUDIES)
    unknown = sorted(set(names) - set(STUDIES))
    if unknown:
        parser.error(f"no study {', '.join(unknown)}: choose from {', '.join(STUDIES)}")
    for name in names:
        print(f"study: {name}", flush=True)
        figures = json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.exists() else {}
        figures[name] = STUDIES[name][0](FOLDER)
        FIGURES.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
        PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), figures), encoding="utf-8")
