"""Sources of rows: blocks with their texts, values and problems, and the columns of a file."""

from __future__ import annotations

import json
import re
import reprlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import pyarrow as pa

from sentiment.config.config import DataConfig
from sentiment.readers.columns import (
    SPLIT_COLUMNS,
    ColumnProblem,
    find_label,
    find_texts,
    guess_columns,
    list_columns,
    normalize,
)
from sentiment.readers.labels import MISSING
from sentiment.runtime.errors import UserError

NO_TEXT = "no text: fill it in or delete the row"
_DEEPEST = 10  # levels of objects in which values have names


@dataclass(frozen=True)
class Block(ABC):
    """Successive rows of a source."""

    origin: str  # the source, for messages
    first_row: int  # counted from 1 without the header
    columns: Sequence[str]
    texts: list[str | None]  # None where there is none, or the row can't be read
    problems: dict[int, str]  # why rows can't be read, by their index in the block
    share_read: float  # of the file up to the end of this block, between 0 and 1

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def last_row(self) -> int:
        return self.first_row + len(self) - 1

    def place(self, index: int) -> str:
        """The source and the number of a row, for messages."""
        return f"{self.origin}, row {self.first_row + index}"

    def keys(self) -> set[str]:
        """All names that occur in the rows."""
        return set(self.columns)

    @property
    def bad_rows(self) -> dict[int, str]:
        """What is wrong with each row that has no text, by its index in the block."""
        bad = dict.fromkeys((i for i, text in enumerate(self.texts) if text is None), NO_TEXT)
        return bad | self.problems

    @abstractmethod
    def values(self, column: str) -> list[Any]:
        """The value of each row, as the format knows it; None where a row has none."""

    @abstractmethod
    def json_objects(self) -> list[str]:
        """Each row as a JSON object; an empty object for an unreadable row."""

    @abstractmethod
    def cells(self) -> list[list[str]]:
        """Each row as one string per column; an empty string where there is no value."""

    def table(self) -> pa.Table:
        """The rows as columns; of strings where the format has no types."""
        rows = self.cells()
        columns = [
            pa.array([replace_surrogates(row[index]) for row in rows], pa.string())
            for index in range(len(self.columns))
        ]
        return pa.table(columns, list(self.columns))


@dataclass(frozen=True)
class DelimitedBlock(Block):
    """Rows of CSV or TSV, or lines of text; bytes that are not UTF-8 are surrogate escapes."""

    rows: list[list[str]]  # a bad row may have more or fewer cells than there are columns

    def values(self, column: str) -> list[Any]:
        index = self.columns.index(column)
        return [row[index] for row in self.cells()]

    def json_objects(self) -> list[str]:
        return [
            to_json(dict(zip(self.columns, map(replace_surrogates, row), strict=True)))
            for row in self.cells()
        ]

    def cells(self) -> list[list[str]]:
        """The rows, each as wide as the header.

        A row with more cells has none: which column each belongs to is unknown.
        """
        width = len(self.columns)
        return [
            row + [""] * (width - len(row)) if len(row) <= width else [""] * width
            for row in self.rows
        ]


def delimited_block(
    origin: str,
    first: int,
    columns: Sequence[str],
    text_indices: Sequence[int],
    rows: list[list[str]],
    share_read: float,
    wrong_encoding: Callable[[], str] = lambda: "not UTF-8",
) -> DelimitedBlock:
    """A block of rows of cells, with the texts in the columns at ``text_indices``."""
    texts: list[str | None] = []
    problems: dict[int, str] = {}
    width = len(columns)
    for index, row in enumerate(rows):
        if len(row) > width and not any(row[width:]):
            del row[width:]  # as spreadsheets fill up rows
        if len(row) != width:
            problems[index] = (
                f"{len(row)} values, but the header names {width} columns: quote a value "
                "that holds the delimiter"
            )
        elif not all(map(is_utf8, row)):
            problems[index] = wrong_encoding()
        is_bad = index in problems
        texts.append(None if is_bad else join_texts([row[cell] for cell in text_indices]))
    return DelimitedBlock(origin, first, columns, texts, problems, share_read, rows)


def join_texts(parts: Sequence[str | None]) -> str | None:
    """The texts of one row's columns, as of a title and a body, with blank lines between them.

    None if all are missing: empty, white space, or a word for a missing value alone.
    """
    given = [part for part in parts if part is not None and part.strip() not in MISSING]
    return "\n\n".join(given) if given else None


@dataclass(frozen=True)
class JsonRow:
    """A row of JSON."""

    line: str | None  # as JSON Lines has it, carried over to the character; None in an array
    record: dict[str, Any] | None  # None if it can't be read
    problem: str  # why; empty if it can be read


def nested_value(record: dict[str, Any], name: str) -> Any:
    """The value of a key, or of nested ones as in ``review.body``; numbers index lists."""
    if name in record:
        return record[name]
    value: Any = record
    for part in name.split("."):
        if isinstance(value, list) and part.isdecimal():
            value = value[int(part)] if int(part) < len(value) else None
        else:
            value = value.get(part) if isinstance(value, dict) else None
    return value


def is_single(value: Any) -> bool:
    """Whether a JSON value holds no objects, as a string or a list of strings."""
    item = value[0] if isinstance(value, list) and value else value
    return not isinstance(item, dict | list | None)


def leaf_names(records: Sequence[dict[str, Any]]) -> list[str]:
    """The names of all values that hold no others, and of lists of such values."""
    found: dict[str, bool] = {}  # with whether a record has a value

    def visit(items: Iterable[tuple[str, Any]], prefix: str) -> None:
        for key, value in items:
            name, inner = prefix + key, value
            if isinstance(value, list) and value and isinstance(value[0], dict):
                inner, name = value[0], f"{name}.0"
            if isinstance(inner, dict) and inner and name.count(".") < _DEEPEST:
                visit(inner.items(), f"{name}.")
            else:
                found[prefix + key] = found.get(prefix + key, False) or value not in (None, [], {})

    for record in records:
        visit(record.items(), "")
    parents = {name[: end.start()] for name in found for end in re.finditer(r"\.", name)}
    return [name for name, has_value in found.items() if has_value or name not in parents]


@dataclass(frozen=True)
class JsonBlock(Block):
    """Rows of JSON."""

    rows: list[JsonRow]

    @property
    def records(self) -> list[dict[str, Any]]:
        return [row.record or {} for row in self.rows]

    def keys(self) -> set[str]:
        return set().union(*self.records)

    def values(self, column: str) -> list[Any]:
        return [nested_value(record, column) for record in self.records]

    def json_objects(self) -> list[str]:
        return [
            "{}" if row.record is None else row.line or to_json(row.record) for row in self.rows
        ]

    def cells(self) -> list[list[str]]:
        rows = []
        known = set(self.columns)
        for index, record in enumerate(self.records):
            if not record.keys() <= known:
                extra = next(key for key in record if key not in known)
                raise UserError(
                    f"{self.place(index)}: {extra!r} is not among the keys of the first rows, "
                    "which become the columns: write JSON Lines, whose rows may differ "
                    "(--output NAME.jsonl)"
                )
            rows.append([_as_cell(record.get(name)) for name in self.columns])
        return rows


@dataclass(frozen=True)
class TableBlock(Block):
    """Rows of Parquet or Arrow."""

    rows: pa.Table  # with the types and the metadata of the file's schema

    def values(self, column: str) -> list[Any]:
        values, problems = python_values(self.rows[column], column)
        for index, problem in problems.items():
            raise UserError(f"{self.place(index)}: {problem}")
        return values

    def json_objects(self) -> list[str]:
        return [to_json(record) for record in self._records]

    def cells(self) -> list[list[str]]:
        return [[_as_cell(value) for value in record.values()] for record in self._records]

    def table(self) -> pa.Table:
        return self.rows

    @cached_property
    def _records(self) -> list[dict[str, Any]]:
        try:
            return self.rows.to_pylist()
        except UnicodeDecodeError as error:
            raise UserError(
                f"{self.origin}, rows {self.first_row} to {self.last_row}: a value is not UTF-8: "
                "write Parquet, which carries it as it is (--output NAME.parquet)"
            ) from error


def to_json(value: Any) -> str:
    """JSON on one line; types unknown to JSON (dates, decimals) as text, non-finite as null."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, default=str)
    except ValueError:
        return json.dumps(_without_nan(value), ensure_ascii=False, default=str)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    is_finite = not isinstance(value, float) or abs(value) < float("inf")
    return value if is_finite else None


def _as_cell(value: Any) -> str:
    if value is None:
        return ""
    return replace_surrogates(value) if isinstance(value, str) else to_json(value).strip('"')


def replace_surrogates(text: str) -> str:
    """Text with replacement characters for lone surrogates, which UTF-8 cannot encode."""
    if text.isascii():
        return text
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def is_utf8(text: str) -> bool:
    """Whether UTF-8 can encode a text."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def value_problem(value: Any, name: str) -> str:
    """What is wrong with a value that must be a string or missing; empty if nothing is."""
    if value is None:
        return ""
    if not isinstance(value, str):
        return f"{name} {reprlib.repr(value)}, but must be a string"
    if not is_utf8(value):
        index = next(index for index, character in enumerate(value) if not is_utf8(character))
        return f"character {index + 1} of the {name} is a lone surrogate"
    return ""


def plain_column(column: Any) -> Any:
    """A column, decoded if it is dictionary-encoded."""
    is_dictionary = pa.types.is_dictionary(column.type)
    return column.cast(column.type.value_type) if is_dictionary else column


def python_values(column: pa.ChunkedArray, name: str) -> tuple[list[Any], dict[int, str]]:
    """The values of a column, and by their index those that are not UTF-8."""
    column = plain_column(column)
    try:
        return column.to_pylist(), {}
    except UnicodeDecodeError:
        values: list[Any] = []
        problems = {}
        for index, value in enumerate(column):
            try:
                values.append(value.as_py())
            except UnicodeDecodeError:
                values.append(None)
                problems[index] = f"the {name} is not UTF-8"
        return values, problems


MAX_BLOCK_CHARACTERS = 50_000_000  # a block of very long texts ends before it has its rows
SAMPLE_ROWS = 100  # of each part of a file, to find out what columns hold
_PART_ROWS = 10_000


class Source(ABC):
    """A source of rows."""

    origin: str  # its name in messages
    columns: Sequence[str]
    text_columns: tuple[str, ...]

    @abstractmethod
    def blocks(self, size: int) -> Iterator[Block]:
        """Yield blocks of ``size`` rows, or fewer if texts are very long.

        An unchanged file gives the same blocks every time.
        """

    @property
    def schema(self) -> pa.Schema:
        """The columns in Parquet; of strings where the source has no types."""
        return pa.schema([(name, pa.string()) for name in self.columns])


class FileSource(Source):
    """A file of rows.

    Besides the texts and, if requested, the labels, ``others`` are the columns to read; None reads
    all.
    """

    label_names: tuple[str, ...] | None = None  # that the file declares for integers

    def __init__(
        self,
        path: Path,
        data: DataConfig,
        *,
        with_label: bool = False,
        others: Sequence[str] | None = None,
    ) -> None:
        self.path, self.data, self.origin = path, data, str(path)
        self.text_columns = ()
        self.label_column: str | None = None
        self._settings: list[str] = []  # options that a refusal names besides the columns
        self.columns = self.all_columns = columns = self._read_columns()
        problems = {}
        try:
            texts = find_texts(columns, data, alone=not with_label)
        except ColumnProblem as problem:
            problems["text_column"] = str(problem)
        try:
            label = find_label(columns, data) if with_label else None
        except ColumnProblem as problem:
            problems["label_column"] = str(problem)
        if problems:
            self._refuse_columns(problems)
        self.text_columns, self.label_column = texts, label
        self.read_columns = columns  # the names of those to read
        if others is not None:
            names = [*texts, *others] if label is None else [*texts, label, *others]
            self.read_columns = list(dict.fromkeys(names))
        for name in self.read_columns:
            if name not in columns:
                raise UserError(f"{path}: no column {name!r}; columns: {list_columns(columns)}")
            # Nameless columns, as spreadsheets leave behind, may be many.
            if list(columns).count(name) > 1 and (others is not None or name.strip()):
                raise UserError(f"{path}: column {name!r} occurs twice: rename one of them")
        self._prepare()

    @abstractmethod
    def _read_columns(self) -> Sequence[str]:
        """The names of all columns."""

    def _prepare(self) -> None:
        """Called once it is known which columns to read."""

    def describe(self) -> str:
        """What was detected about the file, for a log line; may be empty."""
        return ", ".join(self._notes())

    def _notes(self) -> list[str]:
        data, said = self.data, []
        if not data.text_columns and self.text_columns != ("text",):
            said.append(f"texts from column {self.text_columns[0]!r}")
        if self.label_column not in (None, "label", data.label_column):
            said.append(f"labels from column {self.label_column!r}")
        columns = [name for name in self.all_columns if normalize(name) in SPLIT_COLUMNS]
        if columns and self.label_column is not None and data.split_column is None:
            setting = data.option("split_column", columns[0])
            said.append(f"column {columns[0]!r} is ignored ({setting} takes splits from it)")
        return said

    def _refuse_columns(self, problems: dict[str, str]) -> NoReturn:
        """Raise ``UserError`` for problems with columns, with the settings that name them."""
        found = guess_columns(self._sample_values())
        guesses = dict(zip(("text_column", "label_column"), found, strict=True))
        settings = [self.data.option(name, guesses[name] or "NAME") for name in problems]
        raise UserError(
            f"{self.path}: {', '.join(problems.values())}; columns: "
            f"{list_columns(self.all_columns)}: set {' '.join([*settings, *self._settings])}"
        )

    def _sample_values(self) -> dict[str, list[Any]]:
        """The values of each column with a name, in rows spread over the file."""
        samples: dict[str, list[Any]] = {name: [] for name in self.all_columns if name.strip()}
        for block in self.blocks(_PART_ROWS):
            for name, values in samples.items():
                values.extend(block.values(name)[:: max(1, len(block) // SAMPLE_ROWS)])
        return samples
