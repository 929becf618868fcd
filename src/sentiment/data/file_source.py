"""Sources of rows, and what files of all formats have in common: their columns are chosen."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import pyarrow as pa

from sentiment.data.blocks import Block
from sentiment.data.columns import (
    SPLIT_COLUMNS,
    ColumnProblem,
    FileOptions,
    find_label,
    find_texts,
    guess_columns,
    list_columns,
    normalize,
)
from sentiment.runtime.errors import UserError

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
        options: FileOptions,
        *,
        with_label: bool = False,
        others: Sequence[str] | None = None,
    ) -> None:
        self.path, self.options, self.origin = path, options, str(path)
        self.text_columns = ()
        self.label_column: str | None = None
        self._settings: list[str] = []  # options that a refusal names besides the columns
        self.columns = self.all_columns = columns = self._read_columns()
        problems = {}
        try:
            texts = find_texts(columns, options, alone=not with_label)
        except ColumnProblem as problem:
            problems["text_column"] = str(problem)
        try:
            label = find_label(columns, options) if with_label else None
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
        options, said = self.options, []
        if not options.text_column and self.text_columns != ("text",):
            said.append(f"texts from column {self.text_columns[0]!r}")
        if self.label_column not in (None, "label", options.label_column):
            said.append(f"labels from column {self.label_column!r}")
        columns = [name for name in self.all_columns if normalize(name) in SPLIT_COLUMNS]
        if columns and self.label_column is not None and options.split_column is None:
            setting = options.option("split_column", columns[0])
            said.append(f"column {columns[0]!r} is ignored ({setting} takes splits from it)")
        return said

    def _refuse_columns(self, problems: dict[str, str]) -> NoReturn:
        """Raise ``UserError`` for problems with columns, with the settings that name them."""
        found = guess_columns(self._sample_values())
        guesses = dict(zip(("text_column", "label_column"), found, strict=True))
        settings = [self.options.option(name, guesses[name] or "NAME") for name in problems]
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
