"""Reviews from folders of files into memory."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.review_files import load, refusal, write, write_text_folder

from sentiment.config.config import DataConfig
from sentiment.data.reviews import load_training_splits

TEXTS = ['He said "no",\nand left.', "ok", "a\tb\u2028c\x85d, é 😀", "  fine\r\n"]
NAMES = ["neg", "pos", "pos", "neg"]
FORMATS = ["parquet", "csv", "tsv", "jsonl"]


@pytest.mark.parametrize("suffix", FORMATS)
def test_formats_keep_texts_and_labels(tmp_path: Path, suffix: str) -> None:
    columns: dict[str, list[Any]] = {"id": [7, 8, 9, 10], "label": NAMES, "text": TEXTS}
    path = write(tmp_path / f"test.{suffix}", columns)
    reviews = load(tmp_path)
    assert reviews.texts == TEXTS
    assert reviews.class_names == ("neg", "pos")
    assert reviews.labels.dtype == np.int64
    assert reviews.labels.tolist() == [0, 1, 1, 0]
    assert reviews.origin == str(path)
    assert len(reviews) == 4


@pytest.mark.parametrize(
    "kind", [pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())]
)
def test_string_types_of_parquet(tmp_path: Path, kind: pa.DataType) -> None:
    table = pa.table({"text": pa.array(TEXTS, pa.string()), "label": pa.array(NAMES, kind)})
    pq.write_table(table, tmp_path / "test.parquet")
    assert load(tmp_path).labels.tolist() == [0, 1, 1, 0]


def test_byte_order_mark_and_long_reviews(tmp_path: Path) -> None:
    long = "word, " * 100_000
    (tmp_path / "test.csv").write_text(f'\ufefftext,label\r\n"{long}",0\r\nb,1\r\n', "utf-8")
    assert load(tmp_path).texts == [long, "b"]


def test_shards_are_one_split(tmp_path: Path) -> None:
    write(tmp_path / "test-00001-of-00002.parquet", {"text": ["c"], "label": [1]})
    write(tmp_path / "test-00000-of-00002.parquet", {"text": ["a", "b"], "label": [0, 1]})
    assert load(tmp_path).texts == ["a", "b", "c"]
    write(tmp_path / "test-00001-of-00002.parquet", {"text": ["c"], "label": [2]})
    expected = "test-00001-of-00002.parquet, row 1: label 2, but the classes are 0 to 1 (a, b)"
    assert refusal(ValueError, tmp_path, class_names=("a", "b")).startswith(expected)


def test_text_folders_by_class(tmp_path: Path) -> None:
    texts = {
        "train/pos/10_9.txt": "ten",
        "train/pos/2_7.txt": "two",
        "train/neg/0_1.txt": "zero é",
        "train/unsup/1_0.txt": "one",
        "train/unsup/0_0.txt": "nought",
        "train/urls_pos.txt": "not a review",
        "train/labeledBow.feat": "not a review",
        "test/neg/0_2.txt": "bad",
        "test/so-so/0_5.txt": "so-so",
    }
    write_text_folder(tmp_path, texts)
    unsupervised = load(tmp_path, "unsupervised")
    assert unsupervised.texts == ["nought", "one"]
    assert unsupervised.labels.tolist() == [-1, -1]
    write_text_folder(tmp_path, {"validation/pos/0_10.txt": "good"})
    train, validation = load_training_splits(DataConfig(path=str(tmp_path)))
    assert train.texts == ["zero é", "two", "ten"]
    assert train.labels.tolist() == [0, 1, 1]
    assert train.class_names == validation.class_names == ("neg", "pos")
    assert validation.labels.tolist() == [1]
    assert refusal(ValueError, tmp_path, class_names=("neg", "pos")).startswith(
        f"test{os.sep}so-so{os.sep}0_5.txt: label 'so-so' is not one of the classes neg, pos: "
    )


def test_unsupervised_needs_no_label(tmp_path: Path) -> None:
    write(tmp_path / "unsupervised.csv", {"text": ["a", "b"]})
    reviews = load(tmp_path, "unsupervised")
    assert (reviews.texts, reviews.labels.tolist()) == (["a", "b"], [-1, -1])
    assert reviews.class_names == ()
    write(tmp_path / "unsupervised.csv", {"text": ["a"], "label": ["?"]})
    assert load(tmp_path, "unsupervised", ("neg", "pos")).class_names == ("neg", "pos")


def test_class_names_decide_what_labels_mean(tmp_path: Path) -> None:
    write(tmp_path / "test.csv", {"text": ["a", "b"], "label": ["pos ", "pos"]})
    assert load(tmp_path, class_names=("pos", "neg")).labels.tolist() == [0, 0]
    assert load(tmp_path, "test", ("neg", "pos")).labels.tolist() == [1, 1]
    write(tmp_path / "test.csv", {"text": ["a", "b"], "label": [0, 1]})
    assert load(tmp_path, class_names=("neg", "pos")).labels.tolist() == [0, 1]
    write(tmp_path / "test.csv", {"text": ["a", "b"], "label": [1, 3]})
    assert load(tmp_path, class_names=("1", "2", "3")).labels.tolist() == [0, 2]


def test_validation_takes_the_classes_of_train(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", {"text": ["a", "b", "c"], "label": ["bad", "good", "so-so"]})
    write(tmp_path / "validation.csv", {"text": ["d"], "label": ["so-so"]})
    _, validation = load_training_splits(DataConfig(path=str(tmp_path)))
    assert validation.labels.tolist() == load(tmp_path, "validation").labels.tolist() == [2]
    write(tmp_path / "validation.csv", {"text": ["d", "e"], "label": ["good", "Goood"]})
    expected = (
        "validation.csv, row 2: label 'Goood' is not one of the classes bad, good, so-so "
        "(did you mean good?)"
    )
    assert refusal(ValueError, tmp_path, "validation").startswith(expected)


def test_held_out_reviews_are_the_same_by_every_way(tmp_path: Path) -> None:
    texts = [f"review {number}" for number in range(50)]
    write(tmp_path / "train.csv", {"text": texts, "label": [number % 2 for number in range(50)]})
    data = DataConfig(path=str(tmp_path), validation_share=0.2)
    train, validation = load_training_splits(data)
    assert (len(train), len(validation)) == (40, 10)
    for split, reviews in (("train", train), ("validation", validation)):
        for class_names in (None, ("0", "1")):
            again = load(tmp_path, split, class_names, validation_share=0.2)
            assert again.texts == reviews.texts
            assert again.labels.tolist() == reviews.labels.tolist()


def test_no_split_is_opened_that_is_not_needed(tmp_path: Path) -> None:
    columns: dict[str, list[Any]] = {
        "text": [f"review {n}" for n in range(20)],
        "label": [n % 2 for n in range(20)],
    }
    write(tmp_path / "train.csv", columns)
    (tmp_path / "test.csv").write_bytes(b"\xff")
    (tmp_path / "unsupervised.csv").write_bytes(b"\xff")
    opened: list[str] = []
    sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
    load_training_splits(DataConfig(path=str(tmp_path), shared_reviews="ignore"))
    load(tmp_path, "validation")
    names = [Path(name).name for name in list(opened) if name.startswith(str(tmp_path))]
    assert set(names) == {"train.csv"}
    assert "test.csv: no labels found" in refusal(ValueError, tmp_path)
    assert any(name.endswith("test.csv") for name in opened)


def test_mini_comes_with_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sentiment.data.sources._MINI_FOLDER", tmp_path / "mini")
    with pytest.raises(FileNotFoundError, match="reinstall the package"):
        load_training_splits(DataConfig())
    write(tmp_path / "mini" / "train.csv", {"text": ["a", "b"], "label": ["neg", "pos"]})
    write(tmp_path / "mini" / "validation.csv", {"text": ["c"], "label": ["neg"]})
    train, validation = load_training_splits(DataConfig())
    assert (train.texts, validation.texts) == (["a", "b"], ["c"])
