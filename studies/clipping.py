"""Gradients that explode now and then, and what clipping makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sentiment.display.plots import new_figure, save_figure
from studies.tasks import make_classifier, measure_accuracy, train

SEEDS = range(10)
NUM_UPDATES = 400
_CLIPS = {"clipped to norm 1": 1.0, "not clipped": float("inf")}
_TASKS: dict[str, dict[str, Any]] = {
    "RNN, 10 words": {"cell": "rnn", "distance": 10, "momentum_rate": 0.1},
    "LSTM, 20 words": {"cell": "lstm", "distance": 20, "momentum_rate": 0.3},
}
_LEARNED = 0.95


def study(folder: Path) -> dict[str, Any]:
    """How many seeds learn the task with and without clipping, and one course of the norm."""
    learned: dict[str, dict[str, int]] = {}
    figure, axes = new_figure(6.4, 3.2)
    for task, settings in _TASKS.items():
        learned[task] = {}
        for name, clip in _CLIPS.items():
            results = [_run(settings, clip, seed) for seed in SEEDS]
            learned[task][name] = sum(accuracy > _LEARNED for accuracy, _ in results)
            if settings["cell"] == "rnn":
                norms = results[0][1]
                axes.plot(range(1, len(norms) + 1), norms, linewidth=1, label=name)
    axes.axhline(1, color="black", linewidth=0.8, linestyle="--")
    axes.set_yscale("log")
    axes.set_xlabel("update")
    axes.set_ylabel("gradient's norm before clipping")
    axes.legend(title="RNN, 10 words, seed 0")
    save_figure(figure, folder / "clipping.svg")
    return {"num_seeds": len(SEEDS), "num_updates": NUM_UPDATES, "learned": learned}


def _run(settings: dict[str, Any], clip: float, seed: int) -> tuple[float, list[float]]:
    """Accuracy after training, and the gradient's norms."""
    model = make_classifier(seed, cell=settings["cell"])
    course = train(
        model,
        settings["distance"],
        num_updates=NUM_UPDATES,
        seed=seed,
        gradient_clip=clip,
        momentum_rate=settings["momentum_rate"],
    )
    return measure_accuracy(model, settings["distance"]), [norm for _, norm in course]


def table(figures: dict[str, Any]) -> str:
    """A row for each task: the seeds that learn it."""
    lines = [
        f"| seeds of {figures['num_seeds']} that learn | {' | '.join(_CLIPS)} |",
        "|---|---|---|",
    ]
    for task, by_clip in figures["learned"].items():
        lines.append(f"| {task} | " + " | ".join(map(str, by_clip.values())) + " |")
    return "\n".join(lines)
