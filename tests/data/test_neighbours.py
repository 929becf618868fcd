"""Neighbouring reviews of one film: found where there are any, and not by chance."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from helpers.corpus import SHARED, needs_imdb

from sentiment.config.config import DataConfig
from sentiment.data.pipeline import tokenize_reviews
from sentiment.data.reviews import Reviews, load_training_splits
from sentiment.data.splits import measure_similarity, warn_of_similar_neighbours
from sentiment.data.tokenizer import tokenize


def film_texts(num_films: int, seed: int = 0) -> tuple[list[str], np.ndarray]:
    """Four reviews of each film, all of one class, which share its two names and common words."""
    generator = np.random.default_rng(seed)
    texts, labels = [], []
    for film in range(num_films):
        for _ in range(4):
            common = " ".join(f"word{n}" for n in generator.integers(0, 300, 20))
            texts.append(f"{common} actor{film} director{film}")
            labels.append(film % 2)
    return texts, np.array(labels)


def test_neighbours_of_one_film_are_found():
    texts, labels = film_texts(100)
    found = measure_similarity(tokenize(texts, num_processes=1), labels)
    assert found.is_suspicious
    assert found.factor > 10
    # Of four reviews three have a neighbour of their film before them, with whom they share two.
    assert found.num_pairs == 300
    assert found.of_neighbours == pytest.approx(2, abs=0.2)


def test_measuring_leaves_the_tokens_as_they_are():
    texts = ["a b a c a", "c c b", "a a a b"]
    tokenized = tokenize(texts, num_processes=1)
    measure_similarity(tokenized, np.zeros(3, dtype=np.int64))
    assert [" ".join(tokenized.words(index)) for index in range(3)] == texts


def test_the_same_reviews_in_another_order_are_not_alike():
    texts, labels = film_texts(100)
    order = np.random.default_rng(1).permutation(len(texts))
    found = measure_similarity(tokenize([texts[n] for n in order], num_processes=1), labels[order])
    assert not found.is_suspicious


@pytest.mark.parametrize("labels", [[0, 1, 0, 1], [0], []])
def test_without_neighbours_of_one_class_there_is_nothing_to_say(labels):
    tokenized = tokenize([f"a film {n}" for n in range(len(labels))], num_processes=1)
    found = measure_similarity(tokenized, np.array(labels, dtype=np.int64))
    assert (found.num_pairs, found.is_suspicious) == (0, False)


def test_a_few_shared_names_may_be_chance():
    texts, labels = film_texts(3)
    assert not measure_similarity(tokenize(texts, num_processes=1), labels).is_suspicious


def tell(reviews: Reviews, data: DataConfig, caplog) -> str:
    with caplog.at_level(logging.WARNING):
        warn_of_similar_neighbours(tokenize_reviews(reviews, data), reviews.labels)
    return caplog.text


def test_the_embedded_corpus_is_not_warned_of(caplog):
    data = DataConfig()
    train, _ = load_training_splits(data)
    assert tell(train, data, caplog) == ""


@needs_imdb
def test_imdb_is_warned_of_unless_it_is_shuffled(caplog):
    data = DataConfig(path=str(SHARED / "imdb"), validation="random")
    train, _ = load_training_splits(data)
    shuffled = train.select(np.random.default_rng(0).permutation(len(train)))
    assert tell(shuffled, data, caplog) == ""
    text = tell(train, data, caplog)
    assert "times as many rare words as others of their class" in text
    assert "--data.validation stretches" in text
