"""Files of reviews in every format, read as a split."""

import csv
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sentiment.config.config import DataConfig
from sentiment.data.reviews import Reviews, load_split
from sentiment.readers.layouts import Files
from sentiment.readers.sources import Rows, read_files


def write(path: Path, columns: Mapping[str, Sequence[Any]]) -> Path:
    """Write columns in the format that the path's suffix names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = list(zip(*columns.values(), strict=True))
    if path.suffix == ".parquet":
        pq.write_table(pa.table(dict(columns)), path)
    elif path.suffix == ".jsonl":
        lines = [
            json.dumps(dict(zip(columns, row, strict=True)), ensure_ascii=False) for row in rows
        ]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="")
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writerows([list(columns), *rows])
    return path


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file, by the names of its columns."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def read_file(path: Path) -> Rows:
    """The rows of a file of labelled reviews."""
    return read_files(Files(str(path), [path]), DataConfig(), with_labels=True)


def write_text_folder(folder: Path, texts: dict[str, str]) -> None:
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def load(folder: Path, split: Any = "test", class_names: Any = None, **settings: Any) -> Reviews:
    return load_split(DataConfig(path=str(folder), class_names=class_names, **settings), split)


def refusal(error: type[Exception], folder: Path, split: Any = "test", **settings: Any) -> str:
    """The message of the error that reading a split raises, without the folder."""
    with pytest.raises(error) as raised:
        load(folder, split, **settings)
    assert "\n" not in str(raised.value)
    return str(raised.value).replace(f"{folder}{os.sep}", "").replace(str(folder), "FOLDER")
