"""Files of reviews: Parquet, CSV, TSV, JSON Lines, and a folder of text files for each class.

Parquet is read with pyarrow. CSV and JSON Lines are read with the standard library, whose strict
mode refuses a broken quote that pyarrow takes for one long value, swallowing the rows between,
and which can say where a file is broken.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

# A label as files hold it: an integer, or a name (which in CSV may be an integer's digits).
Label = int | str

UNLABELLED_FOLDER = "unsup"  # of aclImdb: reviews without a label among those of the classes
_LONGEST_VALUE = 2**31 - 1  # the largest limit that csv takes on every platform


@dataclass(frozen=True)
class Rows:
    """Reviews as files hold them.

    Attributes:
        texts: one for each review.
        labels: one for each review; empty where labels were not asked for.
        files: name of each file and how many reviews it holds, in the order of ``texts``.
        origin: what to call all of it in messages.
    """

    texts: list[str]
    labels: list[Label]
    files: list[tuple[str, int]]
    origin: str

    def place(self, index: int) -> str:
        """Name the file and the row, counted from 1 without the header, of a review."""
        for name, num_rows in self.files:
            if index < num_rows:
                return name if name.endswith(".txt") else f"{name}, row {index + 1}"
            index -= num_rows
        raise AssertionError("index beyond the last review")


def read_files(paths: Sequence[Path], *, with_labels: bool) -> Rows:
    """Read one split: files with columns ``text`` and, if ``with_labels``, ``label``.

    Raises:
        ValueError: a file is broken, lacks a column, a text or a label, or there are no rows.
    """
    texts: list[str] = []
    labels: list[Label] = []
    files = []
    for path in paths:
        file_texts, file_labels = _READERS[path.suffix](path, with_labels)
        texts += file_texts
        labels += file_labels
        files.append((str(path), len(file_texts)))
    origin = str(paths[0]) if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"
    if not texts:
        raise ValueError(f"{origin}: no rows, where reviews were expected")
    return Rows(texts=texts, labels=labels, files=files, origin=origin)


def read_text_folder(folder: Path, *, with_labels: bool) -> Rows:
    """Read text files: those of each sub-folder, its name the label, or those of ``folder`` itself.

    The files of a folder are read in the order of the number that their names begin with, as in
    aclImdb (``0_9.txt``, ``1_7.txt``, …), whatever the order the file system lists them in.
    """
    folders = class_folders(folder) if with_labels else [folder]
    paths = [path for each in folders for path in sorted(each.glob("*.txt"), key=_numeric_name)]
    if not paths:
        raise ValueError(f"{folder}: no .txt files, where reviews were expected")
    return Rows(
        texts=[_read_text(path) for path in paths],
        labels=[path.parent.name for path in paths] if with_labels else [],
        files=[(str(path), 1) for path in paths],
        origin=str(folder),
    )


def class_folders(folder: Path) -> list[Path]:
    """Sub-folders that hold the text files of one class each, sorted by name."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.is_dir() and path.name != UNLABELLED_FOLDER and not path.name.startswith(".")
    )


def _numeric_name(path: Path) -> tuple[float, str]:
    number = re.match(r"\d+", path.name)
    return (int(number.group()) if number else float("inf"), path.name)


def _read_parquet(path: Path, with_labels: bool) -> tuple[list[str], list[Label]]:
    data = path.read_bytes()
    try:
        with pq.ParquetFile(pa.BufferReader(data)) as file:
            columns = _columns(path, file.schema_arrow.names, with_labels)
            table = file.read(columns=columns)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"{path}: not a whole Parquet file ({reason}): download or write it again"
        ) from error
    texts = _values(path, "text", table["text"])
    return texts, _values(path, "label", table["label"]) if with_labels else []


def _values(path: Path, name: str, column: pa.ChunkedArray) -> list[Any]:
    """Values of a Parquet column: strings for ``text``; integers or strings for ``label``."""
    if pa.types.is_dictionary(column.type):  # how pandas writes a categorical column
        column = column.cast(column.type.value_type)
    kind = column.type
    is_string = kind in (pa.string(), pa.large_string(), pa.string_view())
    is_label = is_string or pa.types.is_integer(kind) or pa.types.is_boolean(kind)
    if not (is_string if name == "text" else is_label) and column.null_count < len(column):
        raise ValueError(f"{path}: column {name!r} holds {kind}, but must hold {_EXPECTED[name]}")
    if column.null_count:
        row = next(row for row, value in enumerate(column, 1) if not value.is_valid)
        raise ValueError(f"{path}, row {row}: no {name}: fill it in or delete the row")
    try:
        values = column.to_pylist()
    except UnicodeDecodeError as error:
        row = next(row for row, value in enumerate(column, 1) if not _is_utf8(value.as_buffer()))
        raise ValueError(f"{path}, row {row}: the {name} is not UTF-8") from error
    return [int(value) for value in values] if pa.types.is_boolean(kind) else values


def _is_utf8(data: pa.Buffer) -> bool:
    try:
        data.to_pybytes().decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _read_delimited(path: Path, with_labels: bool) -> tuple[list[str], list[Label]]:
    delimiter = "\t" if path.suffix == ".tsv" else ","
    source = io.StringIO(_read_text(path), newline="")
    rows = csv.reader(source, delimiter=delimiter, strict=True)
    limit = csv.field_size_limit(_LONGEST_VALUE)  # else longer reviews than 128 KiB are refused
    try:
        header = next(rows, [])
        columns = [header.index(name) for name in _columns(path, header, with_labels)]
        table = [row for row in rows if row]
    except csv.Error as error:
        raise ValueError(
            f"{path}, line {rows.line_num}: {error}: quote a value that holds quotes, "
            'delimiters or line breaks, and double the quotes inside ("")'
        ) from error
    finally:
        csv.field_size_limit(limit)
    for number, row in enumerate(table, 1):
        if len(row) != len(header):
            raise ValueError(
                f"{path}, row {number}: {len(row)} values, but the header names {len(header)} "
                "columns: quote a value that holds the delimiter"
            )
        if with_labels and not row[columns[1]].strip():
            raise ValueError(f"{path}, row {number}: no label: fill it in or delete the row")
    texts = [row[columns[0]] for row in table]
    return texts, [row[columns[1]] for row in table] if with_labels else []


def _read_json_lines(path: Path, with_labels: bool) -> tuple[list[str], list[Label]]:
    texts: list[str] = []
    labels: list[Label] = []
    # Not splitlines(): a review may hold U+0085 or U+2028, which JSON does not take for line ends.
    lines = [line for line in _read_text(path).split("\n") if line.strip()]
    for number, line in enumerate(lines, 1):
        place = f"{path}, row {number}"
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{place}: {error.msg} at character {error.colno}: write one JSON object a line"
            ) from error
        if not isinstance(record, dict):
            raise ValueError(f"{place}: {type(record).__name__}, but must be a JSON object")
        columns = _columns(place, list(record), with_labels)
        for name in columns:
            value = record[name]
            if value is None:
                raise ValueError(f"{place}: no {name}: fill it in or delete the row")
            if not isinstance(value, str if name == "text" else (int, str)):
                raise ValueError(f"{place}: {name} {value!r}, but must be {_EXPECTED[name]}")
        texts.append(_whole_characters(place, record["text"]))
        if with_labels:
            label = record["label"]
            labels.append(int(label) if isinstance(label, bool) else label)
    return texts, labels


def _whole_characters(place: str, text: str) -> str:
    """Refuse half of a surrogate pair, which JSON can write (``\\ud83d``) and UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{place}: character {error.start + 1} of the text is half a surrogate pair"
        ) from error
    return text


def _read_text(path: Path) -> str:
    data = path.read_bytes()
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{path}: not UTF-8 at byte {error.start}, in line {line}: save it as UTF-8"
        ) from error


def _columns(place: Path | str, names: Sequence[str], with_labels: bool) -> list[str]:
    """Names of the columns to read, each of which must be there once."""
    columns = ["text", "label"] if with_labels else ["text"]
    for name in columns:
        if list(names).count(name) != 1:
            found = ", ".join(map(repr, names)) or "none"
            raise ValueError(f"{place}: columns {' and '.join(columns)} needed, but found: {found}")
    return columns


_EXPECTED = {"text": "strings", "label": "integers or names"}
_READERS = {
    ".parquet": _read_parquet,
    ".csv": _read_delimited,
    ".tsv": _read_delimited,
    ".jsonl": _read_json_lines,
}
FORMATS = tuple(_READERS)
