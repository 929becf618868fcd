"""docs/accuracy.md shows the results of its trainings, and its recipes have valid settings."""

from __future__ import annotations

import json

from helpers.corpus import ROOT

from sentiment.config.parser import parse_training
from studies import fill
from studies.ablation import PAGE, RESULTS, VARIANTS, table


def test_the_page_holds_the_results():
    page = PAGE.read_text(encoding="utf-8")
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    assert set(results) <= set(VARIANTS)
    assert fill(page, table(results)) == page, "run python -m studies.ablation"


def test_means_and_deviations():
    runs = {
        seed: {
            "accuracy": accuracy, "best_epoch": 2, "num_epochs": 4, "seconds": 60.0 * minutes,
            "revision": "abc", "nll": accuracy - 0.7, "curve": [0.5, accuracy],
            "seconds_before": 120.0 if seed == "1" else 0.0,
        }
        for seed, accuracy, minutes in (("0", 0.90, 5), ("1", 0.92, 6), ("2", 0.91, 7))
    }  # fmt: skip
    runs["0"]["failures"] = {"turns": 0.2, "negation": 0.6, "subjects": 0.0}
    runs["1"]["failures"] = {"turns": 0.4, "negation": 0.44, "subjects": 0.0}
    last = table({"imdb": runs}).splitlines()[-1]
    assert "0: 90.00, 1: 92.00, 2: 91.00 % | 91.00 ± 1.00 %" in last
    assert "| 0.2100 | 52 %, 30 % | 2 of 4, 2 of 4, 2 of 4 | 5, 2 + 6, 7 | abc | imdb |" in last


def test_every_variant_has_valid_settings(monkeypatch):
    monkeypatch.chdir(ROOT)
    for variant in VARIANTS.values():
        config = parse_training(
            [f"--config=configs/{variant.config}.yaml", *variant.options], "test"
        ).config
        assert config.model.embedding_size == variant.dimension
