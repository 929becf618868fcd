"""The gates over "although ..., ...", in an LSTM trained on the embedded corpus."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from sentiment import load
from sentiment.cli import main as cli
from sentiment.display.plots import save_figure
from sentiment.explain.explain import explain
from sentiment.explain.page import draw

_PRAISE, _BLAME = "the script is witty", "the plot falls apart"
TEXTS = {
    "turn-against": f"Although {_PRAISE}, {_BLAME}.",
    "turn-for": f"Although {_BLAME}, {_PRAISE}.",
}


def study(folder: Path) -> dict[str, Any]:
    """Train the quickstart recipe, and explain two sentences of the same words."""
    with tempfile.TemporaryDirectory() as temporary:
        run = Path(temporary) / "quickstart"
        if cli.train(["--config=configs/quickstart.yaml", f"--output_dir={run}"]):
            raise RuntimeError("the quickstart recipe was not trained")
        predictor = load(run)
    opinions = {}
    for name, text in TEXTS.items():
        explanation = explain(predictor, text)
        save_figure(draw(explanation), folder / f"{name}.svg")
        after_word = explanation.opinion.at_words()[:, 1]
        turn = explanation.words.written.index(",")
        opinions[text] = [float(after_word[turn]), float(after_word[-1])]
    return opinions


def table(figures: dict[str, Any]) -> str:
    """A row for each sentence: the probability of praise at its comma and at its end."""
    lines = ["| probability of praise | at the comma | at the end |", "|---|---|---|"]
    for text, values in figures.items():
        lines.append(f"| {text} | " + " | ".join(f"{100 * value:.1f} %" for value in values) + " |")
    return "\n".join(lines)
