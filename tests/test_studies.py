"""The pages on accuracy, scaling and LSTMs show what their studies found; the studies are sound."""

import json
from dataclasses import asdict

import pytest
import torch
from helpers.corpus import ROOT

from benchmarks.ranks import _rows, constants_of_ranks
from sentiment.config.config import ModelConfig, TrainingConfig
from sentiment.config.parser import parse_training
from sentiment.model import SentimentClassifier
from studies import ablation, fill, scaling
from studies.ablation import VARIANTS, table
from studies.lstm import FIGURES, FOLDER, PAGE, STUDIES, filled
from studies.scaling import ASSUMED, Constants, exchange_seconds, read_constants
from studies.task import draw_sentences, make_classifier, measure_accuracy, train


def test_the_accuracy_page_holds_the_results():
    page = ablation.PAGE.read_text(encoding="utf-8")
    results = json.loads(ablation.RESULTS.read_text(encoding="utf-8"))
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
    runs["0"]["ensemble"] = {"accuracy": 0.93, "nll": 0.18}
    runs["2"]["ensemble"] = {"accuracy": 0.94, "nll": 0.20}
    last = table({"imdb": runs}).splitlines()[-1]
    assert "0: 90.00, 1: 92.00, 2: 91.00 % | 91.00 ± 1.00 %" in last
    assert "91.00 ± 1.00 % | 0.2100 | 0: 93.00, 2: 94.00 % | 0.1900 | 52 %, 30 % |" in last
    assert "| 52 %, 30 % | 2 of 4, 2 of 4, 2 of 4 | 5, 2 + 6, 7 | abc | imdb |" in last


def test_every_variant_has_valid_settings(monkeypatch):
    monkeypatch.chdir(ROOT)
    for variant in VARIANTS.values():
        config = parse_training(
            [f"--config=configs/{variant.config}.yaml", *variant.options], "test"
        ).config
        assert config.model.embedding_size == variant.dimension


@pytest.fixture(scope="module")
def constants() -> Constants:
    return read_constants()


def test_the_scaling_page_holds_the_tables_of_its_constants(constants):
    page = scaling.PAGE.read_text(encoding="utf-8")
    assert scaling.filled(page, constants) == page, "run python -m studies.scaling"
    for assumption in ASSUMED.values():
        assert f"| {assumption.what} | {assumption.shown} | {assumption.source} |" in page


def test_the_model_is_the_default_one(constants):
    model = ModelConfig(pooling="max")  # as the page says
    assert (TrainingConfig().batch_size, scaling.EPOCHS) == (64, 4)
    built = SentimentClassifier(vocabulary_size=30_002, num_classes=2, **asdict(model))
    assert constants["gradient_bytes"] == 4 * sum(
        parameter.numel() for parameter in built.parameters()
    )
    weights = [weight for weight in built.recurrence.parameters() if weight.dim() == 2]
    assert sum(weight.numel() for weight in weights) == scaling._PRODUCTS
    share = built.embedding.weight.numel() * 4 / constants["gradient_bytes"]
    assert share == pytest.approx(0.8, abs=0.01), "four fifths, the page says"


def test_an_exchange_within_a_machine_is_that_of_a_ring(constants):
    """Every GPU sends 7/8 of all bytes twice, in 14 messages."""
    size = constants["gradient_bytes"]
    expected = 14 * 3.4e-6 + 14 * (size / 8) / 450e9
    assert exchange_seconds(constants, 8) == pytest.approx(expected)
    assert exchange_seconds(constants, 1) == 0


def test_rounds_become_medians_and_ratios_of_pairs():
    one = {
        "tokens_per_second": 100.0, "seconds_per_update": 2.0, "exchange_seconds": 0.0,
        "gradient_bytes": 4e6, "tokens_per_batch": 200.0, "threads": 2, "precision": "float32",
    }  # fmt: skip
    rounds = {
        1: [{**one, "tokens_per_second": speed} for speed in (100.0, 50.0, 200.0)],
        2: [
            {**one, "tokens_per_second": speed, "exchange_seconds": 0.1}
            for speed in (90.0, 50.0, 100.0)
        ],
    }
    whole, exchange = _rows(rounds, {})
    assert (whole.ratio, whole.low, whole.high) == (0.9, 0.5, 1.0)
    assert exchange.ratio == 0.05 and exchange.value == "4.0 MB in 100.0 ms"
    assert constants_of_ranks(rounds)["tokens_per_second"].value == 100.0


def test_the_lstm_page_holds_the_figures_of_its_studies():
    figures = json.loads(FIGURES.read_text(encoding="utf-8"))
    assert set(figures) == set(STUDIES)
    page = PAGE.read_text(encoding="utf-8")
    assert filled(page, figures) == page
    for picture in FOLDER.glob("*.svg"):
        assert f"{FOLDER.name}/{picture.name}" in page
        assert str(ROOT) not in picture.read_text(encoding="utf-8")


def test_one_word_decides_the_class_at_the_given_distance_from_the_end():
    sentences = draw_sentences(500, 10, torch.Generator().manual_seed(0))
    position = sentences.lengths - 1 - 10
    words = sentences.tokens[torch.arange(500), position]
    assert ((words >= 6) == sentences.labels.bool()).all() and (words < 10).all()
    others = sentences.tokens.clone()
    others[torch.arange(500), position] = 0
    assert not ((others >= 2) & (others < 10)).any(), "no other word tells the class"
    assert 200 < sentences.labels.sum() < 300


def test_a_short_distance_is_learned_quickly():
    model = make_classifier(0)
    before = measure_accuracy(model, 3)
    curve = train(model, 3, num_updates=150, seed=0)
    assert before < 0.7 and measure_accuracy(model, 3) > 0.95
    assert curve[-1][0] < curve[0][0]
