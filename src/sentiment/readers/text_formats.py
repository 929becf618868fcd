"""Formats of text: lines, fastText's lines, CSV and TSV, JSON and JSON Lines."""

from __future__ import annotations

import csv
import itertools
import json
import re
from abc import abstractmethod
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn, TextIO

from sentiment.config.config import DataConfig
from sentiment.readers.blocks import (
    MAX_BLOCK_CHARACTERS,
    SAMPLE_ROWS,
    Block,
    FileSource,
    JsonBlock,
    JsonRow,
    delimited_block,
    is_single,
    is_utf8,
    join_texts,
    leaf_names,
    nested_value,
    value_problem,
)
from sentiment.readers.columns import guess_columns, is_header, list_columns
from sentiment.readers.opening import (
    guess_encoding,
    is_readable,
    open_text,
    unpacked_suffix,
    wrong_encoding,
)
from sentiment.runtime import files
from sentiment.runtime.errors import UserError
from sentiment.runtime.files import limited_lines

_SAMPLE_CHARACTERS = 1 << 17
_CHUNK = 1 << 20
_LONGEST_NAME = 60  # of a column
FASTTEXT = "__label__"
_WHITE = " \t\r\n"
_BETWEEN_ITEMS = re.compile(r"[ \t\r\n,]*")
_QUOTE_ADVICE = (
    'quote a value that holds quotes, delimiters or line breaks, and double the quotes inside ("")'
)


class TextSource(FileSource):
    """Base of the formats that consist of characters, compressed or not."""

    newline = "\n"  # only this ends a line

    def open_text(self) -> Any:
        return open_text(self.path, self.data.encoding, newline=self.newline)

    @abstractmethod
    def _sized_rows(self, file: TextIO) -> Iterator[tuple[int, Any]]:
        """The rows, each with its number of characters."""

    @abstractmethod
    def _block(self, first: int, rows: list[Any], share_read: float) -> Block:
        """The block of rows that starts at row number ``first``."""

    def blocks(self, size: int) -> Iterator[Block]:
        num_bytes = max(1, self.path.stat().st_size)
        with self.open_text() as (file, raw):
            first, group, num_characters = 1, [], 0
            for characters, row in self._sized_rows(file):
                group.append(row)
                num_characters += characters
                if len(group) == size or num_characters >= MAX_BLOCK_CHARACTERS:
                    yield self._block(first, group, min(1.0, raw.tell() / num_bytes))
                    first, group, num_characters = first + len(group), [], 0
            if group:
                yield self._block(first, group, 1.0)

    def _refuse_columns(self, problems: dict[str, str]) -> NoReturn:
        self._find_encoding()
        super()._refuse_columns(problems)

    def _find_encoding(self) -> None:
        """Guess an unreadable file's encoding, to read it and to name it in the error message."""
        if not is_readable(self.path, self.data.encoding):
            encoding = guess_encoding(self.path)
            if encoding is None:
                raise UserError(f"{self.path} is {self.wrong_encoding}")
            self._settings.append(self.data.option("encoding", encoding))
            self.data = replace(self.data, encoding=encoding)
            self.columns = self.all_columns = self._read_columns()

    @cached_property
    def wrong_encoding(self) -> str:
        return wrong_encoding(self.path, self.data)

    def _notes(self) -> list[str]:
        notes = super()._notes()
        with self.open_text() as (file, _):
            found = file.encoding.upper()
        if self.data.encoding is None and not found.startswith("UTF-8"):
            notes.append(f"encoding {found}")
        return notes


class CellSource(TextSource):
    """Base of the formats whose rows are cells."""

    def _block(self, first: int, rows: list[list[str]], share_read: float) -> Block:
        return delimited_block(
            self.origin,
            first,
            self.columns,
            [self.columns.index(name) for name in self.text_columns],
            rows,
            share_read,
            lambda: self.wrong_encoding,
        )


class LineSource(CellSource):
    """Plain text: each line is a text, empty lines too; or fastText's lines of label and text."""

    def _read_columns(self) -> Sequence[str]:
        self._is_fasttext = is_fasttext(self.path, self.data)
        name = self.data.text_columns[0] if self.data.text_columns else "text"
        return ["label", name] if self._is_fasttext else [name]

    def _sized_rows(self, file: TextIO) -> Iterator[tuple[int, list[str]]]:
        for line in limited_lines(file, self.path):
            if not self._is_fasttext:
                yield len(line), [line.rstrip("\r\n")]
            elif line.strip():
                yield len(line), _fasttext_row(line)


def is_fasttext(path: Path, data: DataConfig) -> bool:
    """Whether the first line that is not blank begins with a label."""
    with open_text(path, data.encoding, newline="\n") as (file, _):
        head = next((line for line in limited_lines(file, path) if line.strip()), "")
    return head.startswith(FASTTEXT)


def _fasttext_row(line: str) -> list[str]:
    label, _, text = line.strip().partition(" ")
    if not label.startswith(FASTTEXT) or text.startswith(FASTTEXT):
        return [line]  # no label, or several: a row of the wrong width
    return [label.removeprefix(FASTTEXT), text.strip()]


DELIMITERS = {".csv": ",", ".tsv": "\t"}  # by the endings of names

_SNIFFED = ",;\t|"
_SNIFFED_ROWS = 50


def find_delimiter(lines: Sequence[str], usual: str, quoting: str) -> str:
    """The delimiter that splits the first lines of a file into equally many columns, two or more;
    the usual one where it does so as well as others.
    """
    chosen, best = usual, (0.0, False, 0)
    for delimiter in dict.fromkeys((usual, *_SNIFFED)):
        widths = [len(row) for row in sample_rows(lines, delimiter, quoting)]
        if widths and widths[0] > 1:
            share = Counter(widths)[widths[0]] / len(widths)
            score = (share, delimiter == usual, widths[0])
            if score > best:
                chosen, best = delimiter, score
    return chosen


def sample_rows(lines: Sequence[str], delimiter: str, quoting: str) -> list[list[str]]:
    """The first rows, up to a broken one, as the last may be if the lines end within a value."""
    rows: list[list[str]] = []
    with suppress(csv.Error):
        rows.extend(itertools.islice(read_rows(lines, delimiter, quoting), _SNIFFED_ROWS))
    return rows


def has_row_names(lines: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Whether rows begin with a name that the header lacks, as R's write.table writes them.

    Each is a number or quoted, and none occurs twice; values after them are not just filled up.
    """
    header, *others = rows
    names = [row[0] for row in others]
    return (
        len(names) > 0
        and all(len(row) == len(header) + 1 for row in others)
        and any(row[-1] for row in others)
        and len(set(names)) == len(names)
        and (all(map(str.isdecimal, names)) or lines[1].startswith('"'))
    )


def read_rows(lines: Iterable[str], delimiter: str, quoting: str) -> Iterator[list[str]]:
    """Rows that are not empty; a broken one raises ``csv.Error`` with the line it begins in."""
    if quoting == "backslash":  # else MySQL's null, \N, would become the letter N
        null = re.compile(rf"(?<![^{re.escape(delimiter)}])\\N(?=[{re.escape(delimiter)}\r\n]|$)")
        lines = (null.sub(r"\\\\N", line) for line in lines)
    reader = csv.reader(
        lines,
        delimiter=delimiter,
        strict=True,
        escapechar="\\" if quoting == "backslash" else None,
        quoting=csv.QUOTE_NONE if quoting == "none" else csv.QUOTE_MINIMAL,
    )
    while True:
        line = reader.line_num + 1
        limit = csv.field_size_limit(files.LONGEST_LINE)  # it holds for the whole process
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise csv.Error(f"in the row that begins in line {line}: {error}") from error
        finally:
            csv.field_size_limit(limit)
        if row is None:
            return
        if row:
            yield row


class DelimitedSource(CellSource):
    """CSV or TSV; empty lines are skipped."""

    newline = ""  # the csv module finds the ends of lines

    def _read_columns(self) -> Sequence[str]:
        data = self.data
        usual = DELIMITERS.get(unpacked_suffix(self.path), "\t")
        with self.open_text() as (file, _):
            head, num_characters = [], 0
            for line in limited_lines(file, self.path):
                head.append(line)
                num_characters += len(line)
                if num_characters > _SAMPLE_CHARACTERS:
                    break
        hint = re.fullmatch(r"sep=[,;\t|]\s*", head[0]) if head else None  # Excel's first line
        self._num_skipped = int(hint is not None)
        head = head[self._num_skipped :]
        self._delimiter = data.delimiter_character or find_delimiter(head, usual, data.quoting)
        self._is_unusual = self._delimiter not in (usual, data.delimiter_character)
        self._is_spaced = re.fullmatch(r'"[^"]*"( "[^"]*")+\s*', "".join(head[:1])) is not None
        self._has_row_names = False
        rows = sample_rows(head, self._delimiter, data.quoting)
        header = rows[0] if rows else next(self._rows(head), None)
        if header is None:
            raise UserError(f"{self.path} is empty: it needs a header that names its columns")
        names = data.column_names
        if names is None:
            self._has_row_names = has_row_names(head, rows)
            return ["", *header] if self._has_row_names else header
        setting = data.option_name("column_names")
        if len(names) != len(header):
            raise UserError(
                f"{self.path}: {setting} names {len(names)} columns, but the first row has "
                f"{len(header)}: {list_columns(header)}"
            )
        if is_header(header):
            raise UserError(
                f"{self.path}: {setting} is for files without a header, but the first row is one "
                f"({list_columns(header)}): leave {setting} out"
            )
        return names

    def _prepare(self) -> None:
        if not all(map(is_utf8, self.columns)):
            raise UserError(f"{self.path}: the header is {self.wrong_encoding}")
        if any("\0" in name for name in self.columns):
            raise UserError(f"{self.path}: the header holds zero bytes: save the file as UTF-8")

    def _notes(self) -> list[str]:
        notes = super()._notes()
        if self._is_unusual:
            name = "tab" if self._delimiter == "\t" else repr(self._delimiter)
            notes.append(f"delimiter {name}")
        if self._has_row_names:
            notes.append("row names without a header are ignored")
        return notes

    def _refuse_columns(self, problems: dict[str, str]) -> NoReturn:
        self._find_encoding()
        samples = self._sample_values()
        text, label = guess_columns(samples)
        is_text = unpacked_suffix(self.path) == ".txt"
        if "label_column" in problems and label is None and (is_text or len(self.columns) == 1):
            lines = f", begin each line with {FASTTEXT}NAME" if is_text else ""
            raise UserError(
                f"{self.path}: no labels found in its columns {list_columns(self.columns)}: add a "
                f"column of labels{lines}, or name the character between columns by "
                f"{self.data.option_name('delimiter')}"
            )
        if self.data.column_names is None and any(samples.values()):
            looks_like_data = any(
                re.fullmatch(r"[-+]?[\d.]+", name.strip()) or len(name) > _LONGEST_NAME
                for name in self.columns
            )
            if looks_like_data or (label is not None and label in samples[label]):
                guesses = {"text": text, "label": label}
                roles = {self.columns.index(name): role for role, name in guesses.items() if name}
                names = [roles.get(n, f"column{n + 1}") for n in range(len(self.columns))]
                settings = [self.data.option("column_names", names), *self._settings]
                raise UserError(
                    f"{self.path}: {', '.join(problems.values())}, and the first row looks like "
                    f"data rather than a header ({list_columns(self.columns)}): name the columns "
                    f"by {' '.join(settings)}, with text and label for the right ones"
                )
        super()._refuse_columns(problems)

    def _sized_rows(self, file: TextIO) -> Iterator[tuple[int, list[str]]]:
        start = self._num_skipped + (self.data.column_names is None)
        for row in itertools.islice(self._rows(limited_lines(file, self.path)), start, None):
            yield sum(map(len, row)), row

    def _block(self, first: int, rows: list[list[str]], share_read: float) -> Block:
        block = super()._block(first, rows, share_read)
        if self.label_column is not None and self.data.quoting != "none":
            labels = {label.strip() for label in block.values(self.label_column)}
            for index, row in enumerate(rows):
                # Of values with two lines inside, which are few.
                counts = [self._count_rows(cell, labels) for cell in row if cell.count("\n") > 2]
                if max(counts, default=0) > 1:
                    block.problems[index] = (
                        f"a value holds {max(counts)} lines that look like rows, as after a quote "
                        f"that is not closed: {self._quote_advice}"
                    )
                    block.texts[index] = None
        return block

    def _count_rows(self, value: str, labels: Collection[str]) -> int:
        """How many lines within a value have the file's columns, and one of its labels."""
        assert self.label_column is not None
        label, width = self.columns.index(self.label_column), len(self.columns)
        lines = value.split("\n")[1:-1]
        rows = []
        for line in lines:
            with suppress(csv.Error):  # a lone \r, or a cell that is too long: not a row
                rows.append(next(csv.reader([line], delimiter=self._delimiter), []))
        return sum(len(row) == width and row[label].strip() in labels for row in rows)

    def _rows(self, lines: Iterable[str]) -> Iterator[list[str]]:
        try:
            yield from read_rows(lines, self._delimiter, self.data.quoting)
        except csv.Error as error:
            raise UserError(f"{self.path}, {error}: {self._quote_advice}") from error

    @cached_property
    def _quote_advice(self) -> str:
        """How to fix quotes; a setting is named only if it reads the whole file."""
        if self._is_spaced and self._delimiter != " ":
            return f"set {self.data.option('delimiter', ' ')} if spaces separate the values"
        meanings = {"backslash": 'quotes inside written \\"', "none": "no quotes"}
        best, most = None, 0
        for quoting in meanings if self.data.quoting == "double" else ():
            try:
                with self.open_text() as (file, _):
                    lines = limited_lines(file, self.path)
                    widths = Counter(map(len, read_rows(lines, self._delimiter, quoting)))
            except csv.Error:
                continue
            if len(widths) == 1 and max(widths) > 1 and widths.total() > most:
                best, most = quoting, widths.total()
        if best is None:
            return _QUOTE_ADVICE
        setting = self.data.option("quoting", best)
        return f'set {setting} ({meanings[best]}), or double the quotes inside ("")'


class JsonSource(TextSource):
    """JSON: an object on each line, whose keys may differ, or an array of objects.

    Blank lines are skipped. The keys of the first rows are the columns, which may be named in
    nested objects too: ``review.body``.
    """

    def _read_columns(self) -> Sequence[str]:
        with self.open_text() as (file, _):
            rows = [row for _, row in itertools.islice(self._sized_rows(file), SAMPLE_ROWS)]
        records = [row.record for row in rows if row.record is not None]
        are_arrays = rows and all(row.problem == _object_problem([]) for row in rows)
        if are_arrays or (len(records) == 1 and _holds_rows(records[0])):
            raise UserError(
                f"{self.path} is {'an array of arrays' if are_arrays else 'one object'}, but must "
                "be an array of objects or an object on each line, as pandas writes by "
                "DataFrame.to_json(path, orient='records')"
            )
        self._keys = list(dict.fromkeys(key for record in records for key in record))
        data = self.data
        wanted = (*data.text_columns, data.label_column, data.split_column)
        nested = [
            name
            for name in filter(None, wanted)
            if any(is_single(nested_value(record, name)) for record in records)
        ]
        columns = list(dict.fromkeys([*leaf_names(records), *nested]))
        return columns or ["text", "label"]  # without rows, which is refused later

    def _prepare(self) -> None:
        self.columns = self._keys or self.columns

    def _sized_rows(self, file: TextIO) -> Iterator[tuple[int, JsonRow]]:
        first = file.read(1)
        while first and first in _WHITE:
            first = file.read(1)
        if first == "[":
            yield from self._array(file)
            return
        lines = limited_lines(file, self.path)  # only \n ends a line: strings may hold U+2028
        for line in itertools.chain([first + next(lines, "")], lines):
            stripped = line.strip(_WHITE)
            if stripped:
                yield len(line), self._parse(stripped)

    def _array(self, file: TextIO) -> Iterator[tuple[int, JsonRow]]:
        decoder = json.JSONDecoder()
        buffer, position = "", 0
        for number in itertools.count(1):
            while True:
                position = _BETWEEN_ITEMS.match(buffer, position).end()  # type: ignore[union-attr]
                if buffer.startswith("]", position):
                    return
                try:
                    record, end = decoder.raw_decode(buffer, position)
                    break
                except (ValueError, RecursionError) as error:  # perhaps because the buffer ends
                    length = len(buffer) - position
                    more = file.read(max(_CHUNK, length))
                    if not more or length > files.LONGEST_LINE:
                        reason = getattr(error, "msg", str(error))
                        raise UserError(f"{self.path}, row {number}: {reason}") from error
                    buffer, position = buffer[position:] + more, 0
            is_readable_row = is_utf8(buffer[position:end])
            problem = _object_problem(record) if is_readable_row else self.wrong_encoding
            yield end - position, JsonRow(None, None if problem else record, problem)
            position = end

    def _parse(self, line: str) -> JsonRow:
        if not is_utf8(line):
            return JsonRow(line, None, self.wrong_encoding)
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            problem = f"{error.msg} at character {error.colno}: write one JSON object a line"
        except RecursionError:
            problem = "nested too deeply: write one flat JSON object a line"
        except ValueError as error:  # an integer with more digits than Python reads
            problem = str(error).split(";")[0]
        else:
            problem = _object_problem(record)
        return JsonRow(line, None if problem else record, problem)

    def _block(self, first: int, rows: list[JsonRow], share_read: float) -> Block:
        texts: list[str | None] = []
        problems = {}
        for index, row in enumerate(rows):
            values = [nested_value(row.record or {}, name) for name in self.text_columns]
            found = filter(None, map(value_problem, values, self.text_columns))
            problem = row.problem or next(found, "")
            if problem:
                problems[index] = problem
            texts.append(None if problem else join_texts(values))
        return JsonBlock(self.origin, first, self.columns, texts, problems, share_read, rows)


def _holds_rows(record: dict[str, Any]) -> bool:
    """Whether the only object of a file holds all rows, as pandas writes without an ``orient``."""
    values = record.values()
    return all(isinstance(value, list | dict) for value in values) or any(
        isinstance(value, list) and value and isinstance(value[0], dict) for value in values
    )


def _object_problem(value: Any) -> str:
    is_object = isinstance(value, dict)
    return "" if is_object else f"a JSON {type(value).__name__}, but must be an object"
