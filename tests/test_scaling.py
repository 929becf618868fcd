"""docs/scaling.md shows the tables that follow from its constants, by the formulas it names."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from benchmarks.ranks import Size, _rows, constants_of_ranks
from sentiment.config.config import ModelConfig, TrainingConfig
from sentiment.config.parser import load_config
from sentiment.runs.run import build_model
from studies import scaling
from studies.scaling import (
    ASSUMED,
    GPUS,
    PAGE,
    REVIEWS,
    TABLES,
    Constants,
    binding,
    epoch_seconds,
    exchange_seconds,
    filled,
    limits,
    read_constants,
)


@pytest.fixture(scope="module")
def constants() -> Constants:
    return read_constants()


def test_the_page_holds_the_tables_of_its_constants(constants):
    page = PAGE.read_text(encoding="utf-8")
    assert filled(page, constants) == page, "run python -m studies.scaling"


def computed(constants: Constants) -> list[object]:
    """The results; the tables that repeat the constants are left out."""
    computed_tables = TABLES.keys() - {"measured", "assumed"}
    return [
        *[TABLES[name](constants) for name in sorted(computed_tables)],
        scaling.step_seconds(constants),
        exchange_seconds(constants, 1024),
        limits(constants),
    ]


@pytest.mark.parametrize(
    "name",
    [
        "gradient_bytes", "tokens_per_batch", "tokens_per_review", "digesting", "tokens", "pieces",
        "pieces_growth", "tokenizing", "text_memory", "tokenizing_memory", "piece_memory", "disk",
        "counting", "planning", "review_memory",
    ],
)  # fmt: skip
def test_constants_decide_tables(constants, name):
    factor = 1.5 if name == "pieces_growth" else 10
    other = replace(constants, values={**constants.values, name: factor * constants[name]})
    assert computed(other) != computed(constants)


def test_assumptions_are_on_the_page_and_decide_tables(constants, monkeypatch):
    page = PAGE.read_text(encoding="utf-8")
    before = computed(constants)
    for name, assumption in ASSUMED.items():
        row = f"| {assumption.what} | {assumption.shown} | {assumption.source} |"
        assert row in page
        with monkeypatch.context() as patch:
            patch.setitem(ASSUMED, name, assumption._replace(value=assumption.value / 4))
            assert computed(constants) != before, name


def test_the_model_is_that_of_the_recipe(constants):
    config = load_config(PAGE.parents[1] / "configs" / "imdb.yaml")
    training: TrainingConfig = config.training
    model: ModelConfig = replace(config.model, pooling="max")  # as the page says
    assert (training.batch_size, scaling.EPOCHS) == (64, 4)
    built = build_model(model, vocabulary_size=30_002, num_classes=2)
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


def test_an_exchange_grows_with_machines_by_the_logarithm(constants):
    inside = exchange_seconds(constants, 8)
    size = constants["gradient_bytes"] / 8
    for machines in (2, 8, 128):
        expected = 2 * math.log2(machines) * 8.5e-6 + 2 * (1 - 1 / machines) * size / 50e9
        assert exchange_seconds(constants, 8 * machines) - inside == pytest.approx(expected)


def test_the_binding_limit(constants):
    """Each limit is reached by making its cause large."""

    def at(reviews: int, gpus: int, **values: float) -> str:
        changed = replace(constants, values={**constants.values, **values})
        return binding(changed, reviews, gpus)

    assert at(100_000, 1) == "compute"
    assert at(100_000, 1024) == "batch"
    assert at(10**7, 64, planning=1e3) == "planning"
    assert at(10**7, 64, digesting=1e5) == "digests"
    assert at(10**7, 64, gradient_bytes=1e12) == "exchange"
    assert at(10**9, 8) == "memory of a GPU"
    assert at(10**6, 8, text_memory=1e9) == "memory: texts in all ranks"
    assert at(10**6, 8, tokenizing_memory=1e9) == "memory: tokenizing"
    assert at(10**6, 8, review_memory=1e9) == "memory: tables in all ranks"
    assert at(10**6, 8, disk=1e9) == "disk of tokens"


def test_more_gpus_divide_the_computing_time_alone(constants):
    one, eight = (epoch_seconds(constants, 10**7, gpus) for gpus in (1, 8))
    assert one["compute"] == pytest.approx(8 * eight["compute"], rel=1e-3)
    assert (one["planning"], one["digests"]) == (eight["planning"], eight["digests"])


def test_tables_have_a_row_for_each_size(constants):
    for name, sizes in (("corpus", REVIEWS), ("epochs", REVIEWS), ("exchange", GPUS)):
        rows = TABLES[name](constants).splitlines()
        assert len(rows) == 2 + len(sizes)
        assert {row.count("|") for row in rows} == {rows[0].count("|")}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(3e-7, "0.3 µs"), (0.0024, "2.4 ms"), (59.0, "59 s"), (90.0, "1.5 min"), (2e5, "2.3 d")],
)
def test_times(seconds, text):
    assert scaling._time(seconds) == text


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


def test_the_constants_file_says_how_it_was_made(constants):
    values = json.loads(scaling.CONSTANTS.read_text(encoding="utf-8"))
    assert "benchmarks.ranks" in values["command"] and values["date"]
    assert Size().rounds >= 5
