"""Rows that data.exclude lists are in no split; lists of other reviews are refused."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest
from helpers.corpus import write_corpus
from helpers.review_files import refusal, write

from sentiment.config.config import DataConfig
from sentiment.data.reviews import Reviews, load_split, load_training_splits
from sentiment.data.splits import row_digest
from sentiment.readers.sources import choose_reviews


def write_list(path: Path, rows: list[tuple[str, int, str]]) -> str:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["note", "split", "row", "digest"])
        writer.writerows([("a note", split, row, row_digest(text)) for split, row, text in rows])
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("held"), splits={"train": 60})


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> Path:
    """A folder with a validation split of its own."""
    return write_corpus(tmp_path_factory.mktemp("both"), splits={"train": 40, "validation": 20})


def identify(reviews: Reviews) -> list[tuple[int, str, int]]:
    assert reviews.rows is not None
    return list(zip(reviews.rows.tolist(), reviews.texts, reviews.labels.tolist(), strict=True))


@pytest.mark.parametrize("settings", [{}, {"validation": "stretches", "stretch_length": 5}])
def test_listed_rows_are_in_neither_part_and_the_hold_out_stays(folder, tmp_path, settings):
    data = DataConfig(path=str(folder), **settings)
    before = load_training_splits(data)
    listed = [identify(part)[index] for part in before for index in (0, 2)]
    path = write_list(tmp_path / "list.csv", [("train", row + 1, text) for row, text, _ in listed])
    data = DataConfig(path=str(folder), exclude=path, **settings)
    after = load_training_splits(data)
    for split, part, old in zip(("train", "validation"), after, before, strict=True):
        assert identify(part) == [review for review in identify(old) if review not in listed]
        for class_names in (None, old.class_names):
            assert identify(load_split(data, split, class_names)) == identify(part)


def test_rows_of_a_validation_split_are_left_out(both, tmp_path):
    plain = DataConfig(path=str(both))
    text = load_split(plain, "validation").texts[3]
    path = write_list(tmp_path / "list.csv", [("validation", 4, text)])
    train, validation = load_training_splits(DataConfig(path=str(both), exclude=path))
    assert len(train) == 40 and len(validation) == 19 and text not in validation.texts
    assert np.isin(3, train.rows) and not np.isin(3, validation.rows)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("train", 61, "x"), r"lists rows that are not among .* train \(1, first row 61\)"),
        (("train", 0, "x"), r"first row 0"),
        (("train", 1, "another text"), "lists row 1 of train with a text other than"),
        (("validation", 1, "x"), "lists rows of validation, but the reviews have no such split"),
        (("test", 1, "x"), "row 1: split 'test', row '1' names no review of train or validation"),
        (("train", "one", "x"), "row 'one' names no review"),
    ],
)
def test_other_rows_are_refused_with_what_to_do(folder, tmp_path, row, message):
    error = refusal(ValueError, folder, "train", exclude=write_list(tmp_path / "list.csv", [row]))
    assert re.search(message, error)
    assert "delete" in error or "set data.exclude to null" in error


def test_a_list_may_not_leave_one_class(folder, tmp_path):
    reviews = load_split(DataConfig(path=str(folder), validation_share=0.01), "train")
    rows = [("train", row + 1, text) for row, text, label in identify(reviews) if label == 0]
    path = write_list(tmp_path / "list.csv", rows)
    error = refusal(ValueError, folder, "train", exclude=path, validation_share=0.01)
    assert "leaves 29 of 58 reviews of train, not of the two classes" in error


def test_a_missing_list_or_column_is_named(folder, tmp_path):
    error = refusal(FileNotFoundError, folder, "train", exclude=str(tmp_path / "none.csv"))
    assert "none.csv, which does not exist" in error and "data.exclude" in error
    (tmp_path / "list.csv").write_text("split,row\ntrain,1\n")
    error = refusal(ValueError, folder, "train", exclude=str(tmp_path / "list.csv"))
    assert "no column 'digest'" in error


def test_a_spreadsheet_may_have_saved_the_list(folder, tmp_path):
    """With semicolons and an encoding of its own."""
    row, text, _ = identify(load_split(DataConfig(path=str(folder)), "train"))[0]
    path = tmp_path / "list.csv"
    lines = f"split;row;digest;text\r\ntrain;{row + 1};{row_digest(text)};déjà vu\r\n"
    path.write_bytes(lines.encode("cp1252"))
    assert text not in load_split(DataConfig(path=str(folder), exclude=str(path)), "train").texts


def test_rows_of_a_file_that_a_column_splits_keep_its_numbers(tmp_path):
    parts = ["train", "validation"] * 20
    texts = [f"film {number} {part}" for number, part in enumerate(parts)]
    labels = ["neg", "neg", "pos", "pos"] * 10
    file = write(tmp_path / "all.csv", {"text": texts, "label": labels, "part": parts})
    path = write_list(tmp_path / "list.csv", [("validation", 4, texts[3]), ("train", 7, texts[6])])
    settings = {"path": str(file), "split_column": "part"}
    before = load_training_splits(DataConfig(**settings))
    after = load_training_splits(DataConfig(**settings, exclude=path))
    gone = [{*old.texts} - {*new.texts} for old, new in zip(before, after, strict=True)]
    assert gone == [{texts[6]}, {texts[3]}]


def test_other_reviews_are_evaluated_without_the_list(folder, both):
    own = DataConfig(path=str(folder), exclude="list.csv")
    assert choose_reviews(own, "test", {})[0] == own
    assert choose_reviews(own, "test", {"path": str(both)})[0].exclude is None
