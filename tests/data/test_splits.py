"""Copies of one review in two splits, and neighbouring reviews of one film."""

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.corpus import SHARED, needs_imdb
from helpers.review_files import write as write_columns
from hypothesis import given
from hypothesis import strategies as st

from sentiment.config.config import Config, DataConfig
from sentiment.data.pipeline import prepare_training, tokenize_reviews
from sentiment.data.reviews import Reviews, load_split, load_training_splits, load_unlabelled
from sentiment.data.splits import find_overlaps, measure_similarity, warn_of_similar_neighbours
from sentiment.data.tokenizer import tokenize

TRAIN = [f"review {number}" for number in range(20)]
VALIDATION = [f"other {number}" for number in range(6)]
TEST = [f"third {number}" for number in range(8)]


def write(folder: Path, split: str, texts: Sequence[str], labels: Sequence[Any] | None = None):
    """Write a split as CSV, its classes alternating unless labels are given."""
    names = labels or [("neg", "pos")[number % 2] for number in range(len(texts))]
    write_columns(folder / f"{split}.csv", {"text": texts, "label": names})


def load(folder: Path, **settings: Any) -> tuple[Reviews, Reviews]:
    return load_training_splits(DataConfig(path=str(folder), **settings))


def refusal(folder: Path, **settings: Any) -> str:
    with pytest.raises(ValueError) as raised:
        load(folder, **settings)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.fixture
def overlapping(tmp_path: Path) -> Path:
    """train holds two reviews of validation and three of test, validation one of test."""
    copies = ["OTHER 1!", "other<br />2", "Third 0", "third 1", "third 1."]
    write(tmp_path, "train", [*TRAIN, *copies])
    write(tmp_path, "validation", [*VALIDATION, "third 7"])
    write(tmp_path, "test", TEST)
    return tmp_path


def test_shared_reviews_are_reported(overlapping, caplog):
    load(overlapping, shared_reviews="ignore")
    assert not caplog.messages
    train, validation = load(overlapping)
    assert caplog.messages == [
        "train and validation share 2 reviews (data.shared_reviews drop leaves them out of train)",
        "train and test share 3 reviews (data.shared_reviews drop leaves them out of train)",
        "validation and test share 1 review (data.shared_reviews drop leaves them out of "
        "validation)",
    ]
    assert (len(train), len(validation)) == (25, 7), "reporting changes nothing"


@pytest.mark.parametrize("class_names", [None, ("neg", "pos")])
def test_shared_reviews_are_dropped_also_when_evaluating(overlapping, class_names, caplog):
    train, validation = load(overlapping, shared_reviews="drop")
    assert (train.texts, train.labels.tolist()) == (TRAIN, [0, 1] * 10)
    assert validation.texts == VALIDATION
    dropped = ["train", "train", "validation"]
    assert [line.rsplit(" (")[1] for line in caplog.messages] == [
        f"left out of {split})" for split in dropped
    ]
    caplog.clear()
    data = DataConfig(path=str(overlapping), shared_reviews="drop")
    for split, texts in (("train", TRAIN), ("validation", VALIDATION), ("test", TEST)):
        assert load_split(data, split, class_names).texts == texts
    assert not caplog.messages, "it was said in training"


def test_what_is_held_out_does_not_depend_on_the_test_split(tmp_path):
    """Dropping takes reviews out of both sides and moves none across."""
    write(tmp_path, "train", TRAIN)
    train, validation = load(tmp_path, validation_share=0.3)
    write(tmp_path, "test", [*TEST, *TRAIN[:9]])
    for before, after in zip(
        (train, validation),
        load(tmp_path, validation_share=0.3, shared_reviews="drop"),
        strict=True,
    ):
        assert after.texts == [text for text in before.texts if text not in TRAIN[:9]]
        assert len(after) < len(before)


@given(*[st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=6) for _ in range(3)])
def test_shared_reviews_are_those_of_set_arithmetic(tmp_path_factory, train, validation, test):
    folder = tmp_path_factory.getbasetemp() / "sets"
    write(folder, "test", [f"{text.upper()}!" for text in test])
    texts = {"train": train, "validation": validation, "test": test}
    pairs = [("train", "validation"), ("train", "test"), ("validation", "test")]
    expected = {
        pair: [text in texts[pair[1]] for text in texts[pair[0]]]
        for pair in pairs
        if set(texts[pair[0]]) & set(texts[pair[1]])
    }
    data = DataConfig(path=str(folder))
    if any(all(is_shared) for is_shared in expected.values()):
        with pytest.raises(ValueError, match=" are in "):
            find_overlaps(data, train, validation)
        return
    found = find_overlaps(data, train, validation)
    assert {pair: is_shared.tolist() for pair, is_shared in found.items()} == expected


@pytest.mark.parametrize("mode", ["report", "drop"])
@pytest.mark.parametrize(
    ("split", "other", "advice"),
    [
        ("validation", "test", "give others, or none to hold reviews out of train"),
        ("train", "test", "give other reviews to train on"),
        ("train", "validation", "give other reviews to train on"),
    ],
)
def test_a_copied_file_is_refused(tmp_path, split, other, advice, mode):
    for name, texts in (("train", TRAIN), ("validation", VALIDATION), ("test", TEST)):
        write(tmp_path, name, texts)
    shutil.copy(tmp_path / f"{other}.csv", tmp_path / f"{split}.csv")
    count = {"test": 8, "validation": 6}[other]
    assert refusal(tmp_path, shared_reviews=mode) == (
        f"{tmp_path}: all {count} reviews of {split} are in {other} too: {advice} "
        "(--data.shared_reviews ignore trains anyway)"
    )
    train, validation = load(tmp_path, shared_reviews="ignore")
    assert (len(train), len(validation)) == (
        count if split == "train" else 20,
        count if split == "validation" else 6,
    )


def test_dropping_that_leaves_one_class_is_refused(tmp_path):
    write(tmp_path, "train", TRAIN)
    write(tmp_path, "validation", VALIDATION)
    write(tmp_path, "test", TRAIN[::2])
    expected = "drop leaves 10 of 20 reviews of train, not of the two classes"
    assert expected in refusal(tmp_path, shared_reviews="drop")
    assert len(load(tmp_path)[0]) == 20


@pytest.mark.parametrize("labels", [[""] * 20, ["?"] * 20, list(range(7, 27))])
def test_labels_of_the_test_split_are_not_read(tmp_path, labels, caplog):
    write(tmp_path, "train", TRAIN)
    write(tmp_path, "test", [*TEST, *TRAIN[:9], *TEST[:3]], labels)
    load(tmp_path)
    assert any("train and test share" in line for line in caplog.messages)


def test_no_test_split_is_needed(tmp_path, caplog):
    write(tmp_path, "train", TRAIN)
    for mode in ("report", "drop", "ignore"):
        train, validation = load(tmp_path, shared_reviews=mode)
        assert (len(train), len(validation)) == (18, 2)
    assert not caplog.messages


def test_an_unreadable_test_split_is_said_but_stops_only_dropping(tmp_path, caplog):
    write(tmp_path, "train", TRAIN)
    (tmp_path / "test.csv").write_bytes(b"text,label\n\xff,pos\n")
    assert len(load(tmp_path)[0]) == 18
    (line,) = caplog.messages
    assert line.startswith("the test split can't be compared with the others: ")
    assert "row 1: not UTF-8" in line
    message = refusal(tmp_path, shared_reviews="drop")
    assert message == f"{line} (or set data.shared_reviews to report)"


def test_nothing_of_the_test_split_reaches_training(tmp_path):
    """Whatever stands in test, training gets the same reviews, words and ids."""
    write(tmp_path, "train", TRAIN)
    config = Config(data=DataConfig(path=str(tmp_path)))
    alone = prepare_training(config)
    write(tmp_path, "test", ["never seen"] * 50 + TRAIN[:10], ["strange"] * 60)
    beside = prepare_training(config)
    assert beside.vocabulary.itos == alone.vocabulary.itos
    assert beside.class_names == alone.class_names
    assert beside.validation_reviews.texts == alone.validation_reviews.texts
    assert len(beside.train) == len(alone.train)


def test_the_hub_is_asked_for_what_it_has_in_its_cache_alone(tmp_path, monkeypatch):
    huggingface_hub = pytest.importorskip("huggingface_hub")
    asked: list[tuple[str, str]] = []
    place: list[Any] = [None]

    def try_to_load(repository: str, name: str, repo_type: str) -> Any:
        asked.append((repository, name))
        return place[0]

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", try_to_load)
    data = DataConfig(source="imdb")
    assert find_overlaps(data, TRAIN, VALIDATION) == {}
    pq.write_table(pa.table({"text": TRAIN[:3]}), tmp_path / "test.parquet")
    place[0] = str(tmp_path / "test.parquet")
    ((pair, is_shared),) = find_overlaps(data, TRAIN, VALIDATION).items()
    assert (pair, is_shared.sum()) == (("train", "test"), 3)
    assert set(asked) == {("stanfordnlp/imdb", "plain_text/test-00000-of-00001.parquet")}


@pytest.fixture
def with_unlabelled(tmp_path: Path) -> Path:
    write(tmp_path, "train", ["bad one", "good one"])
    write(tmp_path, "validation", ["A fine film!", "a poor film"])
    write(tmp_path, "test", ["seen at last", "never again"])
    texts = ["a fine<br />film", "NEVER again.", "nobody has seen this", "good one"]
    write_columns(tmp_path / "unsupervised.csv", {"text": texts})
    return tmp_path


@pytest.mark.parametrize(
    ("shared", "expected"),
    [
        ("report", ["NEVER again.", "nobody has seen this", "good one"]),
        ("drop", ["nobody has seen this", "good one"]),
        ("ignore", ["NEVER again.", "nobody has seen this", "good one"]),
    ],
)
def test_unlabelled_copies_are_left_out(with_unlabelled, shared, expected, caplog):
    data = DataConfig(path=str(with_unlabelled), shared_reviews=shared)
    with caplog.at_level(logging.INFO):
        found = load_unlabelled(data, *load_training_splits(data))
    assert found.texts == expected
    assert set(found.labels.tolist()) == {-1}
    assert "1 unlabelled review repeats a validation review (left out)" in caplog.text
    assert ("repeats a test review" in caplog.text) == (shared != "ignore")


def test_unlabelled_reviews_that_are_all_copies_are_refused(with_unlabelled):
    write_columns(with_unlabelled / "unsupervised.csv", {"text": ["a poor film"]})
    data = DataConfig(path=str(with_unlabelled))
    with pytest.raises(ValueError, match="every review has a copy in another split"):
        load_unlabelled(data, *load_training_splits(data))


@pytest.mark.parametrize("has_split", [True, False])
def test_rows_of_train_without_a_label_are_added(with_unlabelled, has_split, caplog):
    texts = ["good one", "bad one", "no idea", "a poor film"]
    write(with_unlabelled, "train", texts, ["pos", "neg", "", " "])
    if not has_split:
        (with_unlabelled / "unsupervised.csv").unlink()
    data = DataConfig(path=str(with_unlabelled), shared_reviews="ignore")
    with caplog.at_level(logging.INFO):
        train, validation = load_training_splits(data)
        found = load_unlabelled(data, train, validation)
    assert train.texts == texts[:2]
    assert found.texts[-1] == "no idea"
    assert len(found) == (4 if has_split else 1)
    assert "2 of 4 reviews without a label: left out" in caplog.text


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
    texts, labels = film_texts(3)  # a few shared names may be chance
    assert not measure_similarity(tokenize(texts, num_processes=1), labels).is_suspicious


@pytest.mark.parametrize("labels", [[0, 1, 0, 1], [0], []])
def test_without_neighbours_of_one_class_there_is_nothing_to_say(labels):
    tokenized = tokenize([f"a film {n}" for n in range(len(labels))], num_processes=1)
    found = measure_similarity(tokenized, np.array(labels, dtype=np.int64))
    assert (found.num_pairs, found.is_suspicious) == (0, False)


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


def test_unlabelled_reviews_keep_their_stretches(with_unlabelled):
    """Those without a copy in validation; a row of train without a label is a group of its own."""
    write(with_unlabelled, "train", ["good one", "bad one", "no idea"], ["pos", "neg", ""])
    data = DataConfig(path=str(with_unlabelled), validation="stretches", stretch_length=2)
    found = load_unlabelled(data, *load_training_splits(data))
    assert found.texts == ["NEVER again.", "nobody has seen this", "good one", "no idea"]
    assert found.groups is not None
    assert found.groups.tolist() == [0, 1, 1, 2]
    data = DataConfig(path=str(with_unlabelled))
    alone = load_unlabelled(data, *load_training_splits(data))
    assert alone.groups is not None
    assert len(set(alone.groups.tolist())) == len(alone)
