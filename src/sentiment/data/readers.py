"""Reviews from Parquet, CSV, TSV, JSON Lines and folders of text files, with their columns."""

from __future__ import annotations

import csv
import io
import json
import re
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sentiment.data.parquet import ROW_BYTES, Damaged, check_pages
from sentiment.display.console import truncate
from sentiment.runtime.errors import UserError
from sentiment.runtime.files import (
    LONGEST_LINE,
    DecompressionLimit,
    read_text,
    require_file,
    text_lines,
)

# A label as files hold it: an integer, or a name (which in CSV may be an integer's digits).
Label = int | str

_EXPECTED = {"text": "strings", "label": "integers or names"}

_MOST_LISTED = 20


@dataclass
class Columns:
    """What is read of a file, value by value.

    Attributes:
        texts: one for each row.
        labels: one for each row, or none where they are not asked for.
        groups: likewise, of the column that names a row's group.
    """

    texts: list[str] = field(default_factory=list)
    labels: list[Label] = field(default_factory=list)
    groups: list[Label] = field(default_factory=list)

    def of(self, name: str) -> list[Any]:
        """The list that a column's values belong in."""
        lists: dict[str, list[Any]] = {"text": self.texts, "label": self.labels}
        return lists.get(name, self.groups)

    def __iadd__(self, other: Columns) -> Columns:
        self.texts += other.texts
        self.labels += other.labels
        self.groups += other.groups
        return self


def expected(name: str) -> str:
    """What a column must hold, in words."""
    return _EXPECTED.get(name, "integers or names")


def needed_columns(
    place: Path | str, names: Sequence[str], with_labels: bool, group_column: str | None = None
) -> list[str]:
    """Names of the columns to read, each of which must be there once."""
    columns = ["text", "label"] if with_labels else ["text"]
    if group_column is not None:
        columns.append(group_column)
    for name in columns:
        if list(names).count(name) != 1:
            found = ", ".join(repr(truncate(each, 60)) for each in names[:_MOST_LISTED]) or "none"
            found += ", …" if len(names) > _MOST_LISTED else ""
            raise UserError(f"{place}: columns {' and '.join(columns)} needed, but found: {found}")
    return columns


_ROWS_AT_ONCE = 1_000
_STRINGS = (pa.string(), pa.large_string(), pa.string_view())


def read_parquet(path: Path, with_labels: bool, group_column: str | None = None) -> Columns:
    """Texts and, if they are asked for, labels and groups.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: it is broken, unpacks out of proportion, lacks a column or a value.
    """
    require_file(path)
    read = Columns()
    unpacked = DecompressionLimit(path)
    try:
        data = path.read_bytes()
        with pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True) as file:
            schema, metadata = file.schema_arrow, file.metadata
            columns = needed_columns(path, schema.names, with_labels, group_column)
            for name in columns:
                _check_type(path, schema.field(name), metadata.num_rows)
            unpacked.add(max(0, metadata.num_rows) * ROW_BYTES)
            at_once = min(_ROWS_AT_ONCE, check_pages(path, io.BytesIO(data), columns, file.schema))
            for batch in file.iter_batches(at_once, columns=columns):
                for name in columns:
                    column, values = _plain(batch[name]), read.of(name)
                    unpacked.add(column.nbytes)
                    values += _values(path, len(values), name, column)
            if len(read.texts) != metadata.num_rows:
                raise pa.ArrowInvalid("it ends before its last row")
    except (pa.ArrowException, OSError, UnicodeDecodeError, Damaged) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise UserError(
            f"{path}: not a whole Parquet file ({reason}): download or write it again"
        ) from error
    return read


def _check_type(path: Path, column: pa.Field, num_rows: int) -> None:
    """Refuse a column of other kinds than strings, or, but for ``text``, integers or strings."""
    kind = column.type
    if pa.types.is_dictionary(kind):  # how pandas writes a categorical column
        kind = kind.value_type
    is_string = kind in _STRINGS
    is_label = is_string or pa.types.is_integer(kind) or pa.types.is_boolean(kind)
    is_empty = pa.types.is_null(kind) or not num_rows  # said with the first row, or of the file
    if not (is_string if column.name == "text" else is_label) and not is_empty:
        raise UserError(
            f"{path}: column {column.name!r} holds {truncate(str(kind), 60)}, but must hold "
            f"{expected(column.name)}"
        )


def _plain(column: pa.Array) -> pa.Array:
    is_dictionary = pa.types.is_dictionary(column.type)
    return column.cast(column.type.value_type) if is_dictionary else column


def _values(path: Path, num_before: int, name: str, column: pa.Array) -> list[Any]:
    """Values of a part of a Parquet column, whose first row follows ``num_before`` others."""
    if column.null_count:
        row = next(row for row, value in enumerate(column, num_before + 1) if not value.is_valid)
        raise UserError(f"{path}, row {row}: no {name}: fill it in or delete the row")
    try:
        values = column.to_pylist()
    except UnicodeDecodeError as error:
        places = enumerate(column, num_before + 1)
        row = next(row for row, value in places if not _is_utf8(value.as_buffer()))
        raise UserError(f"{path}, row {row}: the {name} is not UTF-8") from error
    return [int(value) for value in values] if pa.types.is_boolean(column.type) else values


def _is_utf8(data: pa.Buffer) -> bool:
    try:
        data.to_pybytes().decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


UNLABELLED_FOLDER = "unsup"  # of aclImdb: reviews without a label among those of the classes
_LONGEST_LABEL = 1_000


@dataclass(frozen=True)
class Rows:
    """Reviews as files hold them.

    Attributes:
        texts: one for each review.
        labels: one for each review; empty where labels were not asked for.
        files: name of each file and how many reviews it holds, in the order of ``texts``.
        origin: what to call all of it in messages.
        groups: the value of the group column for each review; empty if no such column is read.
    """

    texts: list[str]
    labels: list[Label]
    files: list[tuple[str, int]]
    origin: str
    groups: list[Label] = field(default_factory=list)

    def place(self, index: int) -> str:
        """Name the file and the row, counted from 1 without the header, of a review."""
        for name, num_rows in self.files:
            if index < num_rows:
                return name if name.endswith(".txt") else f"{name}, row {index + 1}"
            index -= num_rows
        raise AssertionError("index beyond the last review")


def read_files(
    paths: Sequence[Path], *, with_labels: bool, group_column: str | None = None
) -> Rows:
    """Read one split: files with columns ``text`` and, if ``with_labels``, ``label``.

    Args:
        paths: the files, of which each may have a format of its own.
        with_labels: whether labels are wanted.
        group_column: a third column to read, None where no groups are wanted.

    Raises:
        UserError: a file is broken, lacks a column or a value, or there are no rows.
    """
    read = Columns()
    files = []
    for path in paths:
        own = _READERS[path.suffix](path, with_labels, group_column)
        read += own
        files.append((str(path), len(own.texts)))
    origin = str(paths[0]) if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"
    if not read.texts:
        raise UserError(f"{origin}: no rows, where reviews were expected")
    rows = Rows(read.texts, read.labels, files, origin, read.groups)
    for index, label in enumerate(read.labels):
        if isinstance(label, str) and len(label) > _LONGEST_LABEL:
            raise UserError(
                f"{rows.place(index)}: a label of {len(label):,} characters: do the columns text "
                "and label have each other's names?"
            )
    return rows


def read_text_folder(folder: Path, *, with_labels: bool) -> Rows:
    """Read text files: those of each sub-folder, its name the label, or those of ``folder`` itself.

    The files of a folder are read in the order of the number that their names begin with, as in
    aclImdb (``0_9.txt``, ``1_7.txt``, …), whatever the order the file system lists them in.
    """
    folders = class_folders(folder) if with_labels else [folder]
    if with_labels:
        for each in folders:
            _check_characters(str(folder), f"folder's name {each.name!r}", each.name)
    paths = [path for each in folders for path in sorted(each.glob("*.txt"), key=_numeric_name)]
    if not paths:
        raise UserError(f"{folder}: no .txt files, where reviews were expected")
    return Rows(
        texts=[read_text(path) for path in paths],
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


def _read_delimited(path: Path, with_labels: bool, group_column: str | None) -> Columns:
    delimiter = "\t" if path.suffix == ".tsv" else ","
    rows = csv.reader(text_lines(path, newline=""), delimiter=delimiter, strict=True)
    limit = csv.field_size_limit(LONGEST_LINE)  # else longer reviews than 128 KiB are refused
    read = Columns()
    try:
        header = next(rows, [])
        names = needed_columns(path, header, with_labels, group_column)
        places = [(name, header.index(name)) for name in names]
        for number, row in enumerate(filter(None, rows), 1):
            _check_row(f"{path}, row {number}", row, header)
            for name, place in places:
                read.of(name).append(row[place])
                if name != "text" and not row[place].strip():
                    raise UserError(
                        f"{path}, row {number}: no {name}: fill it in or delete the row"
                    )
    except csv.Error as error:
        raise UserError(
            f"{path}, line {rows.line_num}: {error}: quote a value that holds quotes, "
            'delimiters or line breaks, and double the quotes inside ("")'
        ) from error
    finally:
        csv.field_size_limit(limit)
    return read


def _check_row(place: str, row: Sequence[str], header: Sequence[str]) -> None:
    if len(row) != len(header):
        raise UserError(
            f"{place}: {len(row)} values, but the header names {len(header)} columns: quote a "
            "value that holds the delimiter"
        )


def _read_json_lines(path: Path, with_labels: bool, group_column: str | None) -> Columns:
    read = Columns()
    # Only \n ends a line: a review may hold U+0085 or U+2028, which JSON takes for no line's end.
    lines = filter(str.strip, text_lines(path, newline="\n"))
    for number, line in enumerate(lines, 1):
        place = f"{path}, row {number}"
        record = _parse_record(place, line)
        for name in needed_columns(place, list(record), with_labels, group_column):
            value = record[name]
            if value is None:
                raise UserError(f"{place}: no {name}: fill it in or delete the row")
            if not isinstance(value, str if name == "text" else (int, str)):
                raise UserError(
                    f"{place}: {name} {reprlib.repr(value)}, but must be {expected(name)}"
                )
            if isinstance(value, str):
                _check_characters(place, name, value)
            read.of(name).append(int(value) if isinstance(value, bool) else value)
    return read


def _parse_record(place: str, line: str) -> dict[str, Any]:
    try:
        record = json.loads(line.rstrip("\n"))
    except json.JSONDecodeError as error:
        raise UserError(
            f"{place}: {error.msg} at character {error.colno}: write one JSON object a line"
        ) from error
    except RecursionError:
        raise UserError(
            f"{place}: nested too deeply: write one JSON object a line, of a text and a label"
        ) from None
    except ValueError as error:  # an integer of more digits than Python reads
        raise UserError(f"{place}: {str(error).split(';')[0]}") from error
    if not isinstance(record, dict):
        raise UserError(f"{place}: {type(record).__name__}, but must be a JSON object")
    return record


def _check_characters(place: str, name: str, text: str) -> None:
    """Refuse half of a surrogate pair, which JSON can write (``\\ud83d``) and UTF-8 cannot.

    Names of files and folders have them for bytes that are not UTF-8.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{place}: character {error.start + 1} of the {name} is half a surrogate pair"
        ) from error


_READERS = {
    ".parquet": read_parquet,
    ".csv": _read_delimited,
    ".tsv": _read_delimited,
    ".jsonl": _read_json_lines,
}
FORMATS = tuple(_READERS)
