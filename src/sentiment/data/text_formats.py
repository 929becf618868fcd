"""Formats of text: lines, fastText's lines, CSV and TSV, JSON and JSON Lines."""

from __future__ import annotations

import csv
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, TextIO

from sentiment.data.blocks import (
    Block,
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
from sentiment.data.columns import FileOptions, guess_columns, is_header, list_columns
from sentiment.data.dialect import (
    DELIMITERS,
    count_swallowed,
    find_delimiter,
    find_separator,
    has_row_names,
    needs_backslash,
    read_rows,
    sample_rows,
)
from sentiment.data.file_source import MAX_BLOCK_CHARACTERS, SAMPLE_ROWS, FileSource
from sentiment.data.opening import (
    guess_encoding,
    is_readable,
    is_unicode,
    open_text,
    unpacked_suffix,
    wrong_encoding,
)
from sentiment.display.console import truncate
from sentiment.runtime import files
from sentiment.runtime.errors import UserError
from sentiment.runtime.files import limited_lines

_SAMPLE_CHARACTERS = 1 << 17
_CHUNK = 1 << 20
_LONGEST_NAME = 60  # of a column
_MAX_SHOWN = 10  # columns with their values
FASTTEXT = "__label__"
_WHITE = " \t\r\n"
_BETWEEN_ITEMS = re.compile(r"[ \t\r\n,]*")
_QUOTE_ADVICE = (
    'quote a value that holds quotes, delimiters or line breaks, and double the quotes inside ("")'
)


class TextSource(FileSource):
    """Base of the formats that consist of characters, compressed or not."""

    def open_text(self, newline: str) -> Any:
        return open_text(self.path, self.options.encoding, newline=newline)

    def _refuse_columns(self, problems: dict[str, str]) -> NoReturn:
        """Names and values are shown in the encoding of the file, which the message names too."""
        if not is_readable(self.path, self.options.encoding):
            encoding = guess_encoding(self.path)
            if encoding is None:
                raise UserError(f"{self.path} is {self.wrong_encoding}")
            self._settings.append(self.options.option("encoding", encoding))
            self.options = replace(self.options, encoding=encoding)
            self.columns = self._all_columns = self._read_columns()
        self._refuse_readable_columns(problems)

    def _refuse_readable_columns(self, problems: dict[str, str]) -> NoReturn:
        super()._refuse_columns(problems)

    @cached_property
    def wrong_encoding(self) -> str:
        return wrong_encoding(self.path, self.options)

    def describe(self) -> str:
        said, encoding = super().describe(), self.options.encoding
        with self.open_text(newline="") as (file, _):
            found = file.encoding.upper()
        if not found.startswith("UTF-8") and encoding is None:
            return f"{said}{', ' * bool(said)}encoding {found}"
        if encoding is None or not is_unicode(self.path):
            return said
        setting = self.options.name_of("encoding")
        return f"{said}{', ' * bool(said)}read as {encoding}, but it is UTF-8: leave {setting} out"

    def group(
        self, rows: Iterable[tuple[int, Any]], size: int, raw: BinaryIO
    ) -> Iterator[tuple[int, list[Any], float]]:
        """Group rows, given with their sizes: (number of the first, rows, share of the file)."""
        num_bytes = max(1, self.path.stat().st_size)
        first, group, num_characters = 1, [], 0
        for characters, row in rows:
            group.append(row)
            num_characters += characters
            if len(group) == size or num_characters >= MAX_BLOCK_CHARACTERS:
                yield first, group, min(1.0, raw.tell() / num_bytes)
                first, group, num_characters = first + len(group), [], 0
        if group:
            yield first, group, 1.0


class LineSource(TextSource):
    """Plain text: each line is a text, empty lines too; or fastText's lines of label and text."""

    def _read_columns(self) -> Sequence[str]:
        self._is_fasttext = is_fasttext(self.path, self.options)
        name = self.options.text_column[0] if self.options.text_column else "text"
        return ["label", name] if self._is_fasttext else [name]

    def blocks(self, size: int) -> Iterator[Block]:
        with self.open_text(newline="\n") as (file, raw):
            lines = (line.rstrip("\r\n") for line in limited_lines(file, self.path))
            if self._is_fasttext:
                rows = ((len(line), _fasttext_row(line)) for line in lines if line.strip())
            else:
                rows = ((len(line), [line]) for line in lines)
            text_index = [len(self.columns) - 1]
            for first, group, share in self.group(rows, size, raw):
                yield delimited_block(
                    self.origin, first, self.columns, text_index, group, share,
                    lambda: self.wrong_encoding,
                )  # fmt: skip


def is_fasttext(path: Path, options: FileOptions) -> bool:
    """Whether the first line that is not blank begins with a label."""
    with open_text(path, options.encoding, newline="\n") as (file, _):
        head = next((line for line in limited_lines(file, path) if line.strip()), "")
    return head.startswith(FASTTEXT)


def _fasttext_row(line: str) -> list[str]:
    label, _, text = line.strip().partition(" ")
    if not label.startswith(FASTTEXT) or text.startswith(FASTTEXT):
        return [line]  # no label, or several: a row of the wrong width
    return [label.removeprefix(FASTTEXT), text.strip()]


class DelimitedSource(TextSource):
    """CSV or TSV; empty lines are skipped."""

    def _read_columns(self) -> Sequence[str]:
        options = self.options
        usual = DELIMITERS.get(unpacked_suffix(self.path), "\t")
        with self.open_text(newline="") as (file, _):
            head, num_characters = [], 0
            for line in limited_lines(file, self.path):
                head.append(line)
                num_characters += len(line)
                if num_characters > _SAMPLE_CHARACTERS:
                    break
        hint = re.fullmatch(r"sep=[,;\t|]\s*", head[0]) if head else None  # Excel's first line
        self._num_skipped = int(hint is not None)
        head = head[self._num_skipped :]
        self._delimiter = options.delimiter or find_delimiter(head, usual, options.quoting)
        self._is_unusual = self._delimiter not in (usual, options.delimiter)
        self._needs_backslash = options.quoting == "double" and needs_backslash(head, usual)
        self._separator = find_separator(head) if head else None
        self._is_spaced = re.fullmatch(r'"[^"]*"( "[^"]*")+\s*', "".join(head[:1])) is not None
        self._has_row_names = False
        rows = sample_rows(head, self._delimiter, options.quoting)
        if not rows and self._needs_backslash:  # a refusal names it, and the columns
            rows = sample_rows(head, self._delimiter, "backslash")
        header = rows[0] if rows else next(self._rows(head), None)
        if header is None:
            raise UserError(f"{self.path} is empty: it needs a header that names its columns")
        names = options.column_names
        if names is None:
            self._has_row_names = has_row_names(head, rows)
            return ["", *header] if self._has_row_names else header
        setting = options.name_of("column_names")
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

    def describe(self) -> str:
        name = "tab" if self._delimiter == "\t" else repr(self._delimiter)
        said = [
            super().describe(),
            f"delimiter {name}" if self._is_unusual else "",
            "row names without a header are ignored" if self._has_row_names else "",
        ]
        return ", ".join(filter(None, said))

    def _refuse_readable_columns(self, problems: dict[str, str]) -> NoReturn:
        if self._needs_backslash:
            self._settings.append(self.options.option("quoting", "backslash"))
            self.options = replace(self.options, quoting="backslash")
            self.columns = self._all_columns = self._read_columns()
        samples = self._sample_values()
        text, label = guess_columns(samples)
        is_text = unpacked_suffix(self.path) == ".txt"
        if "label_column" in problems and label is None and (is_text or len(self.columns) == 1):
            if len(self.columns) == 1 and self._separator is not None:
                raise UserError(
                    f"{self.path} has one column, {self.columns[0]!r}: if {self._separator} "
                    f"separates columns, set {self.options.option('delimiter', self._separator)}"
                )
            lines = f", or begin each line with {FASTTEXT}NAME"
            raise UserError(
                f"{self.path}: no labels found in its columns {list_columns(self.columns)}: add a "
                f"column of labels{lines if is_text else ''}"
            )
        if self.options.column_names is None and any(samples.values()):
            looks_like_data = any(
                re.fullmatch(r"[-+]?[\d.]+", name.strip()) or len(name) > _LONGEST_NAME
                for name in self.columns
            )
            if looks_like_data or (label is not None and label in samples[label]):
                self._refuse_headerless(problems, samples, text, label)
        super()._refuse_readable_columns(problems)

    def _refuse_headerless(
        self,
        problems: dict[str, str],
        samples: dict[str, list[str]],
        text: str | None,
        label: str | None,
    ) -> NoReturn:
        """Propose names of the columns; which are text and label is shown by their values."""
        guesses = {"text": text, "label": label}
        roles = {self.columns.index(name): role for role, name in guesses.items() if name}
        names = [roles.get(n, f"column{n + 1}") for n in range(len(self.columns))]
        settings = [self.options.option("column_names", names), *self._settings]
        mend = f"name the columns by {' '.join(settings)}"
        if label is not None and text is not None:
            mend += f", where label is {_list_values(samples[label])}"
        else:
            shown = (
                f"{name} is {_list_values(samples[column])}"
                for name, column in zip(names[:_MAX_SHOWN], self.columns, strict=False)
                if name != "text" and column in samples
            )
            mend += f", with label (and text) for the right ones: {'; '.join(shown)}"
        raise UserError(
            f"{self.path}: {', '.join(problems.values())}, and the first row looks like data "
            f"rather than a header: {mend}"
        )

    def blocks(self, size: int) -> Iterator[Block]:
        indices = [self.columns.index(name) for name in self.text_columns]
        start = self._num_skipped + (self.options.column_names is None)
        with self.open_text(newline="") as (file, raw):
            rows = itertools.islice(self._rows(limited_lines(file, self.path)), start, None)
            sized_rows = ((sum(map(len, row)), row) for row in rows)
            for first, group, share in self.group(sized_rows, size, raw):
                block = delimited_block(
                    self.origin, first, self.columns, indices, group, share,
                    lambda: self.wrong_encoding,
                )  # fmt: skip
                self._check_headers(block, group)
                if self.options.quoting != "none":
                    self._check_swallowed(block)
                yield block

    def _rows(self, lines: Iterable[str]) -> Iterator[list[str]]:
        try:
            yield from read_rows(lines, self._delimiter, self.options.quoting)
        except csv.Error as error:
            raise UserError(f"{self.path}, {error}: {self._quote_advice}") from error

    def _check_headers(self, block: Block, rows: list[list[str]]) -> None:
        """Add a problem for each row that repeats the header, as files joined end to end have."""
        header = list(self._all_columns)[self._has_row_names :]
        if self.options.column_names is not None or len(header) == 1:
            return
        for index, row in enumerate(rows):
            if row == header:
                block.problems[index] = (
                    "the header again, as where files are joined end to end: delete the line"
                )
                block.texts[index] = None

    def _check_swallowed(self, block: Block) -> None:
        """Add a problem for each value that holds rows after an unpaired quote."""
        if self.label_column is None:
            label_index, labels = None, set()
        else:
            label_index = self.columns.index(self.label_column)
            labels = {label.strip() for label in block.values(self.label_column)}
        for index, cells in enumerate(block.cells()):
            for cell in cells:
                if cell.count("\n") <= 1:
                    continue
                width = len(self.columns)
                count = count_swallowed(cell, self._delimiter, width, label_index, labels)
                if count:
                    block.problems[index] = (
                        f"a value holds {count} lines that look like rows, as after a quote that "
                        f"is not closed: {self._quote_advice}"
                    )
                    block.texts[index] = None

    @cached_property
    def _quote_advice(self) -> str:
        """How to mend quotes; a setting is named only if it reads the whole file."""
        if self._is_spaced and self._delimiter != " ":
            return f"set {self.options.option('delimiter', ' ')} if spaces separate the values"
        meanings = {"backslash": 'quotes inside written \\"', "none": "no quotes"}
        best, most = None, 0
        for quoting in meanings if self.options.quoting == "double" else ():
            try:
                with self.open_text(newline="") as (file, _):
                    lines = limited_lines(file, self.path)
                    widths = Counter(map(len, read_rows(lines, self._delimiter, quoting)))
            except csv.Error:
                continue
            if len(widths) == 1 and max(widths) > 1 and widths.total() > most:
                best, most = quoting, widths.total()
        if best is None:
            return _QUOTE_ADVICE
        setting = self.options.option("quoting", best)
        return f'set {setting} ({meanings[best]}), or double the quotes inside ("")'


def _list_values(values: Iterable[str]) -> str:
    """The first values that differ, in short."""
    different = list(dict.fromkeys(values))
    shown = ", ".join(repr(truncate(value, 30)) for value in different[:3])
    return shown + (", …" if len(different) > 3 else "")


class JsonSource(TextSource):
    """JSON: an object on each line, whose keys may differ, or an array of objects.

    Blank lines are skipped. The keys of the first rows are the columns, which may be named in
    nested objects too: ``review.body``.
    """

    def _read_columns(self) -> Sequence[str]:
        with self.open_text(newline="\n") as (file, _):
            rows = [row for _, row in itertools.islice(self._rows(file), SAMPLE_ROWS)]
        records = [row.record for row in rows if row.record is not None]
        if rows and all(row.problem == _object_problem([]) for row in rows):
            raise self._refuse(
                "an array of arrays", "DataFrame(json.load(open(path)), columns=NAMES)"
            )
        if len(records) == 1 and (how := _pandas_reader(records[0])):
            raise self._refuse("one object", how)
        self._keys = list(dict.fromkeys(key for record in records for key in record))
        options = self.options
        wanted = (*options.text_column, options.label_column, options.split_column)
        nested = [
            name
            for name in filter(None, wanted)
            if any(is_single(nested_value(record, name)) for record in records)
        ]
        columns = list(dict.fromkeys([*leaf_names(records), *nested]))
        return columns or ["text", "label"]  # without rows, which is refused later

    def _refuse(self, found: str, reader: str) -> UserError:
        return UserError(
            f"{self.path} is {found}, but must be an array of objects or an object on each line: "
            f"with pandas, {reader}.to_json(path, orient='records') writes that"
        )

    def _prepare(self) -> None:
        self.columns = self._keys or self.columns

    def blocks(self, size: int) -> Iterator[Block]:
        with self.open_text(newline="\n") as (file, raw):
            for first, group, share in self.group(self._rows(file), size, raw):
                yield self._block(first, group, share)

    def _rows(self, file: TextIO) -> Iterator[tuple[int, JsonRow]]:
        """The rows with their sizes."""
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


def _pandas_reader(record: dict[str, Any]) -> str | None:
    """How pandas reads a file that is one object of all rows; None if it is a row."""
    for key, value in record.items():
        if (
            isinstance(value, list)
            and value
            and isinstance(value[0], dict)
            and "schema" not in record
        ):
            return f"DataFrame(json.load(open(path))[{key!r}])"
    if not all(isinstance(value, list | dict) for value in record.values()):
        return None
    is_split = {"columns", "data"} <= record.keys()
    orient = "table" if "schema" in record else "split" if is_split else "columns"
    if all(key.isdecimal() for key in record):
        orient = "index"
    return f"read_json(path, orient={orient!r})"


def _object_problem(value: Any) -> str:
    is_object = isinstance(value, dict)
    return "" if is_object else f"a JSON {type(value).__name__}, but must be an object"
