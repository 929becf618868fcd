"""Reading a split's rows: from a file, a folder of files, or the hub."""

from __future__ import annotations

import functools
import logging
import re
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from sentiment.config.config import DataConfig
from sentiment.readers.blocks import Block, is_utf8
from sentiment.readers.columns import normalize
from sentiment.readers.formats import open_source
from sentiment.readers.labels import RawLabel
from sentiment.readers.layouts import (
    IMDB,
    SPLIT_NAMES,
    Files,
    cached_imdb_file,
    class_folders,
    describe_missing,
    fetch_imdb_file,
    find_split,
    find_whole,
    load_hub,
)
from sentiment.readers.opening import read_text_file
from sentiment.runtime.errors import UserError

logger = logging.getLogger(__name__)

# ``all`` are all rows of a file without splits, to evaluate on.
Split = Literal["train", "validation", "test", "unsupervised", "all"]

IMDB_CLASS_NAMES = ("neg", "pos")

_MINI_FOLDER = Path(__file__).parents[1] / "data" / "mini"
_MAX_LABEL_CHARACTERS = 1_000
_BLOCK_ROWS = 1_000


@dataclass(frozen=True)
class Rows:
    """Reviews as files hold them."""

    texts: list[str | None]  # None where a row has none
    # One for each review, None where a row has none; empty if no labels were requested.
    labels: list[RawLabel | None]
    files: list[tuple[str, int]]  # name and number of rows of each file, in order
    origin: str  # name of the file, files or data set, for messages
    groups: list[Any] = field(default_factory=list)  # from the group column, if requested
    splits: list[Any] = field(default_factory=list)  # from the split column, if requested
    label_names: tuple[str, ...] | None = None  # that the source declares for integers
    numbers: list[int] | None = None  # of the rows that were selected; None means all

    def place(self, index: int) -> str:
        """The file and the row (from 1, without the header) of a review."""
        index = index if self.numbers is None else self.numbers[index]
        for name, num_rows in self.files:
            if index < num_rows:
                is_text_file = name.endswith(".txt") and num_rows == 1
                return name if is_text_file else f"{name}, row {index + 1}"
            index -= num_rows
        raise AssertionError("index beyond the last review")

    def select(self, numbers: list[int]) -> Rows:
        """The rows with these numbers, from 0."""
        return replace(
            self,
            texts=[self.texts[number] for number in numbers],
            labels=[self.labels[number] for number in numbers] if self.labels else [],
            groups=[self.groups[number] for number in numbers] if self.groups else [],
            splits=[self.splits[number] for number in numbers] if self.splits else [],
            numbers=numbers,
        )


def read_files(
    files: Files,
    data: DataConfig,
    *,
    with_labels: bool,
    group_column: str | None = None,
    split_column: str | None = None,
) -> Rows:
    """Read the texts of a split's files and, if requested, labels, groups and splits."""
    if files.tree is not None:
        if column := group_column or split_column:
            raise UserError(
                f"{files.name} consists of texts without columns, and so has no {column!r}: set "
                f"data.{'group' if group_column else 'split'}_column to null"
                f"{' and data.validation to stretches' if group_column else ''}"
            )
        return read_text_folder(files.tree, data, with_labels=with_labels)
    rows = Rows([], [], [], files.name)
    others = [name for name in (group_column, split_column) if name is not None]
    said: set[str] = set()
    for path in files.paths:
        source = open_source(path, data, with_label=with_labels, others=others)
        if (note := source.describe()) not in said:  # parts of a split are alike
            _say(str(path), note)
            said.add(note)
        num_before = len(rows.texts)
        for block in source.blocks(_BLOCK_ROWS):
            for index, problem in sorted(block.problems.items()):
                raise UserError(f"{block.place(index)}: {problem}")
            rows.texts.extend(block.texts)
            if source.label_column is not None:
                rows.labels.extend(_labels(block, source.label_column))
            if group_column is not None:
                rows.groups.extend(_labels(block, group_column))
            if split_column is not None:
                rows.splits.extend(block.values(split_column))
        rows.files.append((str(path), len(rows.texts) - num_before))
        names = source.label_names
        if rows.label_names not in (None, names):
            raise UserError(f"{path} declares other names of classes than {files.paths[0]}")
        rows = replace(rows, label_names=names)
    if not rows.texts:
        raise UserError(f"{files.name}: no rows, where reviews were expected")
    return rows


@functools.cache
def _say(path: str, what: str) -> None:
    """Log once what was decided about a file."""
    if what:
        logger.info("%s: %s", path, what)


def _labels(block: Block, column: str) -> list[RawLabel | None]:
    """A column's numbers, booleans and names; None where one is missing."""
    values = [_only_item(value) for value in block.values(column)]
    for index, value in enumerate(values):
        problem = ""
        if not isinstance(value, int | float | str | None):
            problem = f"{column} {value!r}, but must be numbers or names"
        elif isinstance(value, str) and not is_utf8(value):
            problem = f"the {column} holds a lone surrogate"
        if problem:
            raise UserError(f"{block.place(index)}: {problem}")
        if isinstance(value, str) and len(value) > _MAX_LABEL_CHARACTERS:
            raise UserError(
                f"{block.place(index)}: a {column} of {len(value):,} characters: are the columns "
                f"text and {column} swapped?"
            )
    return values


def _only_item(value: Any) -> Any:
    """The item of a list of one, as annotation tools write a label; None for an empty list."""
    if not isinstance(value, list) or len(value) > 1:
        return value
    return value[0] if value else None


def read_text_folder(folder: Path, data: DataConfig, *, with_labels: bool) -> Rows:
    """Read the text files of each sub-folder, whose name is the label, or those of ``folder``.

    The files of a folder are read in the order of the numbers that their names begin with, as in
    aclImdb (``0_9.txt``, ``1_7.txt``, …).
    """
    folders = class_folders(folder)
    for path in folders:
        if not is_utf8(path.name):
            raise UserError(f"{folder}: the folder's name {path.name!r} is not UTF-8")
    if not folders and not with_labels:
        folders = [folder]
    paths = [path for parent in folders for path in sorted(parent.glob("*.txt"), key=_numeric_name)]
    if not paths:
        raise UserError(f"{folder}: no .txt files, where reviews were expected")
    return Rows(
        texts=[read_text_file(path, data) for path in paths],
        labels=[path.parent.name for path in paths] if with_labels else [],
        files=[(str(path), 1) for path in paths],
        origin=str(folder),
    )


def _numeric_name(path: Path) -> tuple[float, str]:
    number = re.match(r"\d+", path.name)
    return (int(number.group()) if number else float("inf"), path.name)


def is_imdb(data: DataConfig) -> bool:
    """Whether reviews come from IMDB on the Hugging Face hub, split by split."""
    return data.path is None and data.hub is None and data.source == "imdb"


def source_name(data: DataConfig) -> str:
    """The place of the reviews, for messages."""
    if data.path is None:
        return f"the source {data.hub or data.source}"
    return str(Path(data.path).expanduser().resolve())


def is_same_source(first: DataConfig, second: DataConfig) -> bool:
    """Whether two settings name the same file, folder or dataset of the hub."""
    return _identify(first) == _identify(second)


def _identify(data: DataConfig) -> Path | str:
    if data.path is not None:
        return Path(data.path).expanduser().resolve()
    if data.hub is not None:
        return data.hub
    return IMDB if is_imdb(data) else _MINI_FOLDER.resolve()


def choose_reviews(
    own: DataConfig, split: Split, settings: dict[str, Any]
) -> tuple[DataConfig, Split]:
    """The settings and the split to evaluate a run on, if ``settings`` change its ``own`` ones.

    The test split of another file, which has no splits, is all of it. Another source also resets
    ``data.exclude``, which lists rows of the run's own reviews.
    """
    if "path" in settings:
        settings = {"hub": None, "split_column": None, "exclude": None, **settings}
    elif "hub" in settings:
        settings = {"path": None, "split_column": None, "exclude": None, **settings}
    if "labels" in settings:
        settings = {**settings, "labels": {**(own.labels or {}), **settings["labels"]}}
    data = replace(own, **settings)
    is_whole = split == "test" and not is_same_source(data, own) and is_undivided(data)
    return data, "all" if is_whole else split


def is_undivided(data: DataConfig) -> bool:
    """Whether the reviews are one file, or files, that the settings do not split."""
    is_one = data.path is not None and find_whole(_path(data)) is not None
    return is_one and data.split_column is None


def has_split(data: DataConfig, split: Split) -> bool:
    """Whether the source has a split, as files or in the split column."""
    if data.split_column is not None and split in _count_splits(data):
        return True
    if is_imdb(data):
        return split != "validation"
    return _find(data, split) is not None


def read_split(
    data: DataConfig, split: Split, group_column: str | None = None, *, with_labels: bool = True
) -> Rows:
    """Read one split's texts, labels (except for ``unsupervised``) and, if requested, groups.

    Files of other splits are not opened. Raises as :func:`sentiment.data.reviews.load_split`.
    """
    with_labels = with_labels and split != "unsupervised"
    if data.split_column is not None and split != "all" and split in _count_splits(data):
        rows = read_files(
            _require(data, "train"),
            data,
            with_labels=with_labels,
            group_column=group_column,
            split_column=data.split_column,
        )
        splits = [_split_of(value, data.split_column) for value in rows.splits]
        return rows.select([number for number, name in enumerate(splits) if name == split])
    files = _require(data, split)
    return read_files(files, data, with_labels=with_labels, group_column=group_column)


def _require(data: DataConfig, split: Split) -> Files:
    """A split's files; ``FileNotFoundError`` if it has none."""
    files = _find(data, split)
    if files is not None:
        return files
    if data.hub is not None:
        raise FileNotFoundError(
            f"{data.hub} has no {split} split; it has {', '.join(load_hub(data.hub))}"
        )
    path = _path(data)
    if find_whole(path) is None:
        message = describe_missing(path, split)
    elif data.split_column is not None:
        counts = ", ".join(_count_splits(data))
        message = f"{path} has no {split} split: column {data.split_column!r} names {counts}"
    else:
        message = (
            f"{path} has no {split} split: it is not divided; to divide it by a column, give "
            "--data.split_column"
        )
    if split == "test":
        message += (
            "; to evaluate without one, give other reviews with --data.path, or choose the "
            "held-out ones with --split validation"
        )
    raise FileNotFoundError(message)


def _find(data: DataConfig, split: Split) -> Files | None:
    """A split's files; None if the source has no such split."""
    if is_imdb(data):
        return Files(f"{IMDB} {split}", [cached_imdb_file(split) or fetch_imdb_file(split)])
    if data.hub is not None:
        paths = load_hub(data.hub).get(split)
        return None if paths is None else Files(f"{data.hub} {split}", paths)
    path = _path(data)
    whole = find_whole(path)
    if whole is not None:
        return whole if split in ("train", "all") else None
    return find_split(path, split)


def _path(data: DataConfig) -> Path:
    if data.path is None:
        if not _MINI_FOLDER.is_dir():
            raise FileNotFoundError(
                f"{_MINI_FOLDER} is missing: reinstall the package, or give reviews with "
                "--data.path"
            )
        return _MINI_FOLDER
    path = Path(data.path).expanduser()
    if not path.exists():
        raise FileNotFoundError(
            f"data.path is {data.path}, which does not exist: give a file or a folder"
        )
    return path


def _count_splits(data: DataConfig) -> dict[str, int]:
    """The number of rows that the split column gives to each split."""
    stamps = tuple((path, path.stat().st_mtime_ns) for path in _require(data, "train").paths)
    return _count_values(stamps, data)


@functools.cache
def _count_values(stamps: tuple[tuple[Path, int], ...], data: DataConfig) -> dict[str, int]:
    """Called once for each state of the files, since it reads them."""
    column = data.split_column
    assert column is not None
    counts: Counter[str] = Counter()
    for path, _ in stamps:
        for block in open_source(path, data, others=[column]).blocks(_BLOCK_ROWS):
            for index, value in enumerate(block.values(column)):
                split = _split_of(value, column)
                if split is None:
                    raise UserError(
                        f"{block.place(index)}: {column} {value!r}, but must be train, validation "
                        "(or valid, val, dev), test or unsupervised; true and false are understood "
                        "in a column named like is_valid or is_test"
                    )
                counts[split] += 1
    if not counts["train"]:
        raise UserError(f"{stamps[0][0]}: column {column!r} assigns no row to train")
    return dict(counts)


def _split_of(value: Any, column: str) -> str | None:
    """The split that a value of the split column names."""
    word = str(value).strip().lower()
    for split, names in SPLIT_NAMES.items():
        if word in names or word == f"{split}ing":
            return split
    name = normalize(column)
    marked = next(
        (split for split, names in SPLIT_NAMES.items() if any(alias in name for alias in names)),
        None,
    )
    if marked is not None and word in ("true", "1", "1.0"):
        return marked
    if marked is not None and word in ("false", "0", "0.0"):
        return "validation" if marked == "train" else "train"
    return None
