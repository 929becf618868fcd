"""What is said of files, folders and labels that are not as they must be."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.review_files import refusal, write, write_text_folder

from sentiment.config.config import DataConfig
from sentiment.data.reviews import load_split, load_training_splits

FILL_IN = "fill them in, or leave them out with --data.missing skip"
NEEDED = "no column has a usual name for"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("test.csv", "", " is empty: it needs a header"),
        ("test.csv", "text,label\n", ": no rows, where reviews were expected"),
        ("test.csv", "review,label,review\na,b,c\n", ": column 'review' occurs twice: rename one"),
        ("test.tsv", "a,b\nc,d\n", f": {NEEDED} texts (text, review, reviews, sentence, …), "),
        ("test.csv", "text,label\na,neg\nb, c,pos\n", ", row 2: 3 values, but the header names 2"),
        ("test.csv", 'text,label\n"a,neg\n"b,pos\n', ", in the row that begins in line 2: ','"),
        ("test.csv", 'text,label\n"a,neg\nb,c,pos\n', ", in the row that begins in line 2: unex"),
        ("test.csv", "text,label\na,neg\n ,pos\n", f", row 2: no text in 1 of 2 rows: {FILL_IN}"),
        ("test.csv", "text,label\na,\nb, \n", ": no row has a label, but there must be two "),
        ("test.csv", "text,label\na,neg\nb,\xe9\n", ", row 2: not UTF-8, but probably cp1252: set"),
        ("test.jsonl", '{"text": "a", "label": 0}\n{"text": "b"\n', ", row 2: Expecting ','"),
        ("test.jsonl", "[]\n", ": no rows, where reviews were expected"),
        ("test.jsonl", "[[]]\n", " is an array of arrays, but must be an array of objects or"),
        ("test.jsonl", '{"text": "a", "sterne": 0}\n', f": {NEEDED} labels (label, labels, "),
        (
            "test.jsonl",
            '{"text": ["a"], "label": 0}\n',
            ", row 1: text ['a'], but must be a string",
        ),
        ("test.jsonl", '{"text": "a", "label": [0, 1]}\n', ", row 1: label [0, 1], but must be"),
        (
            "test.jsonl",
            '{"text": "a\\ud83d", "label": 0}\n',
            ", row 1: character 2 of the text is ",
        ),
        ("test.parquet", "text,label\n", ": not a complete Parquet file (Parquet magic bytes not"),
        (
            "test/pos/0_9.txt",
            "\xe9",
            ": not UTF-8, but probably cp1252: set --data.encoding cp1252",
        ),
    ],
)
def test_broken_files(tmp_path: Path, name: str, content: str, message: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode("latin-1"))
    assert refusal(ValueError, tmp_path).replace("\\", "/").startswith(name + message)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"satz": ["a b", "c d"], "label": [0, 1]}, "set --data.text_column satz"),
        ({"text": ["a", None], "label": [0, 1]}, f"row 2: no text in 1 of 2 rows: {FILL_IN}"),
        ({"text": [b"a"], "label": [0]}, "column 'text' holds binary, but must hold strings"),
        (
            {"text": pa.array([b"a", b"\xff"]).view(pa.string()), "label": [0, 1]},
            "row 2: the text is not UTF-8",
        ),
        ({"text": pa.array([], pa.string()), "label": pa.array([], pa.int64())}, "no rows, where"),
    ],
)
def test_broken_parquet_tables(tmp_path: Path, columns: dict, message: str) -> None:
    pq.write_table(pa.table(columns), tmp_path / "test.parquet")
    assert message in refusal(ValueError, tmp_path)


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_truncated_parquet(tmp_path: Path, share: float) -> None:
    path = write(tmp_path / "test.parquet", {"text": ["a", "b"] * 50, "label": [0, 1] * 50})
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    message = refusal(ValueError, tmp_path)
    assert message.startswith("test.parquet: not a complete Parquet file (")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["pos", "pos"], "all labels are 'pos', but there must be two classes: "),
        ([1, 1], "all labels are '1', but there must be two classes: "),
        ([-1, -1], "no row has a label, but there must be two classes: "),
    ],
)
@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_labels_that_name_no_classes(
    tmp_path: Path, suffix: str, labels: list[int | str], message: str
) -> None:
    write(tmp_path / f"test.{suffix}", {"text": ["a", "b"], "label": labels})
    assert refusal(ValueError, tmp_path).startswith(f"test.{suffix}: {message}")


def test_folder_without_text_files(tmp_path: Path) -> None:
    write_text_folder(tmp_path, {"test/pos/0_9.md": "a"})
    expected = "test: no .txt files, where reviews were expected"
    assert refusal(ValueError, tmp_path).startswith(expected)


def test_training_on_one_class(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", {"text": ["a", "b"], "label": ["pos", "pos"]})
    assert refusal(ValueError, tmp_path, "train", class_names=("neg", "pos")) == (
        "train.csv: all 2 reviews are of class 'pos': training needs two classes"
    )


@pytest.mark.parametrize(
    ("label", "found"),
    [
        ("Positiv", "label 'Positiv' is not one of the classes negative, positive (did you mean "),
        ("so-so", "label 'so-so' is not one of the classes negative, positive"),
        (2, "label 2, but the classes are 0 to 1 (negative, positive)"),
    ],
)
def test_unknown_labels(tmp_path: Path, label: int | str, found: str) -> None:
    first = "positive" if isinstance(label, str) else 1
    write(tmp_path / "test.csv", {"text": ["a\n", "b"], "label": [first, label]})
    message = refusal(ValueError, tmp_path, class_names=("negative", "positive"))
    assert message.startswith(f"test.csv, row 2: {found}")
    assert ("did you mean positive?" in message) == (label == "Positiv")


def test_missing_split(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", {"text": ["a", "b"], "label": [0, 1]})
    write_text_folder(tmp_path, {"docs/readme.txt": "read me"})
    assert refusal(FileNotFoundError, tmp_path) == (
        "FOLDER has no test split; found: docs/, train.csv: a split is a file named "
        "test.csv|.tsv|.tab|.json|.jsonl|.ndjson|.txt|.parquet|.arrow|.feather, or a folder test "
        "with a folder of text files for each class"
    )


@pytest.mark.parametrize("text", ["", " \n", "NA"])
def test_a_text_file_without_a_text_is_missing_too(text: str, tmp_path: Path) -> None:
    write_text_folder(tmp_path, {"test/neg/0_1.txt": "a", "test/pos/0_9.txt": text})
    assert f"no text in 1 of 2 rows: {FILL_IN}" in refusal(ValueError, tmp_path)


def test_split_twice(tmp_path: Path) -> None:
    for suffix in ("csv", "jsonl"):
        write(tmp_path / f"test.{suffix}", {"text": ["a", "b"], "label": [0, 1]})
    write_text_folder(tmp_path, {"test/pos/0_9.txt": "a"})
    assert refusal(ValueError, tmp_path) == (
        "FOLDER has split test more than once: test/, test.csv, test.jsonl: keep one"
    )


def test_path_without_reviews(tmp_path: Path) -> None:
    path = write(tmp_path / "train.csv", {"text": ["a", "b"], "label": [0, 1]})
    with pytest.raises(FileNotFoundError, match="train.csv has no test split: it is not divided"):
        load_split(DataConfig(path=str(path)), "test")
    with pytest.raises(FileNotFoundError, match="nowhere, which does not exist: give a file or"):
        load_training_splits(DataConfig(path=str(tmp_path / "nowhere")))
