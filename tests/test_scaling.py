"""docs/scaling.md shows the tables that follow from its constants, by the formulas it names."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from benchmarks.ranks import _rows, constants_of_ranks
from sentiment.config.config import ModelConfig, TrainingConfig
from sentiment.model import SentimentClassifier
from studies import scaling
from studies.scaling import (
    ASSUMED,
    PAGE,
    Constants,
    exchange_seconds,
    filled,
    read_constants,
)


@pytest.fixture(scope="module")
def constants() -> Constants:
    return read_constants()


def test_the_page_holds_the_tables_of_its_constants(constants):
    page = PAGE.read_text(encoding="utf-8")
    assert filled(page, constants) == page, "run python -m studies.scaling"
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
