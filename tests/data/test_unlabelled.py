"""Unlabelled reviews to learn from hold no copy of a review to be measured on."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from helpers.review_files import write

from sentiment.config.config import DataConfig
from sentiment.data.reviews import load_training_splits, load_unlabelled


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    labels = ["pos", "neg"]
    write(tmp_path / "train.csv", {"text": ["good one", "bad one"], "label": labels})
    write(tmp_path / "validation.csv", {"text": ["A fine film!", "a poor film"], "label": labels})
    write(tmp_path / "test.csv", {"text": ["seen at last", "never again"], "label": labels})
    texts = ["a fine<br />film", "NEVER again.", "nobody has seen this", "good one"]
    write(tmp_path / "unsupervised.csv", {"text": texts})
    return tmp_path


@pytest.mark.parametrize(
    ("shared", "expected"),
    [
        ("report", ["NEVER again.", "nobody has seen this", "good one"]),
        ("drop", ["nobody has seen this", "good one"]),
        ("ignore", ["NEVER again.", "nobody has seen this", "good one"]),
    ],
)
def test_copies_are_left_out(reviews, shared, expected, caplog):
    data = DataConfig(path=str(reviews), shared_reviews=shared)
    with caplog.at_level(logging.INFO):
        found = load_unlabelled(data, *load_training_splits(data))
    assert found.texts == expected
    assert set(found.labels.tolist()) == {-1}
    assert "1 unlabelled review repeats a validation review (left out)" in caplog.text
    assert ("repeats a test review" in caplog.text) == (shared != "ignore")


def test_nothing_remains(reviews):
    write(reviews / "unsupervised.csv", {"text": ["a poor film"]})
    data = DataConfig(path=str(reviews))
    with pytest.raises(ValueError, match="every review has a copy in another split"):
        load_unlabelled(data, *load_training_splits(data))


def test_no_such_split(reviews):
    (reviews / "unsupervised.csv").unlink()
    data = DataConfig(path=str(reviews))
    with pytest.raises(FileNotFoundError, match="has no unsupervised split"):
        load_unlabelled(data, *load_training_splits(data))


@pytest.mark.parametrize("has_split", [True, False])
def test_rows_of_train_without_a_label_are_added(reviews, has_split, caplog):
    texts = ["good one", "bad one", "no idea", "a poor film"]
    write(reviews / "train.csv", {"text": texts, "label": ["pos", "neg", "", " "]})
    if not has_split:
        (reviews / "unsupervised.csv").unlink()
    data = DataConfig(path=str(reviews), shared_reviews="ignore")
    with caplog.at_level(logging.INFO):
        train, validation = load_training_splits(data)
        found = load_unlabelled(data, train, validation)
    assert train.texts == texts[:2]
    assert found.texts[-1] == "no idea"
    assert len(found) == (4 if has_split else 1)
    assert "2 of 4 reviews without a label: left out" in caplog.text
