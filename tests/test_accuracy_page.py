"""docs/accuracy.md holds what its trainings came to, and the recipes' settings are what it says."""

from __future__ import annotations

import json
from pathlib import Path

from docs.studies.ablation import VARIANTS
from docs.studies.accuracy import PAGE, RESULTS, filled, table
from sentiment.settings import parse_training

ROOT = Path(__file__).resolve().parents[1]
WHATS = {name: each.what for name, each in VARIANTS.items()}


def test_the_page_holds_the_results():
    page = PAGE.read_text(encoding="utf-8")
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    assert set(results) <= set(VARIANTS)
    assert filled(page, results, WHATS) == page, "run python -m docs.studies.ablation"


def test_means_and_deviations():
    runs = {
        seed: {
            "accuracy": accuracy, "best_epoch": 2, "num_epochs": 4, "seconds": 60.0 * minutes,
            "revision": "abc",
        }
        for seed, accuracy, minutes in (("0", 0.90, 5), ("1", 0.92, 6), ("2", 0.91, 7))
    }  # fmt: skip
    last = table({"imdb": runs}, WHATS).splitlines()[-1]
    assert "0: 90.00, 1: 92.00, 2: 91.00 % | 91.00 ± 1.00 %" in last
    assert "| 4, 2, 4, 2, 4, 2 | 5, 6, 7 | abc | imdb |" in last


def test_every_variant_is_one_of_valid_settings(monkeypatch):
    monkeypatch.chdir(ROOT)
    for variant in VARIANTS.values():
        config = parse_training(
            [f"--config=configs/{variant.config}.yaml", *variant.options], "test"
        ).config
        assert config.model.embedding_size == variant.dimension
