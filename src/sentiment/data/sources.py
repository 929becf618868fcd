"""Reading a split's rows from a folder of files, a folder of text files, or the hub."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sentiment.config.config import DataConfig
from sentiment.data.blocks import Block, is_utf8, value_problem
from sentiment.data.readers import open_source
from sentiment.runtime.errors import UserError
from sentiment.runtime.files import read_text

IMDB_CLASS_NAMES = ("neg", "pos")
FORMATS = (".parquet", ".csv", ".tsv", ".jsonl")
UNLABELLED_FOLDER = "unsup"  # in aclImdb: reviews without labels, beside the folders of the classes

# A label as files hold it: an integer, or a name (which in CSV may be an integer's digits).
Label = int | str

_MINI_FOLDER = Path(__file__).parent / "mini"
_IMDB = "stanfordnlp/imdb"  # https://huggingface.co/datasets/stanfordnlp/imdb/tree/main/plain_text
_HUB_FILE = "plain_text/{}-00000-of-00001.parquet"
_OTHER_NAMES_OF_VALIDATION = ("valid", "val", "dev")
_PROBE_SECONDS = 5.0
_MAX_LISTED = 20
_MAX_LABEL_CHARACTERS = 1_000
_BLOCK_ROWS = 1_000


@dataclass(frozen=True)
class Rows:
    """Reviews as files hold them."""

    texts: list[str]
    labels: list[Label]  # one for each review; empty if no labels were requested
    files: list[tuple[str, int]]  # name and number of reviews of each file, in the order of texts
    origin: str  # name of the file, files or data set, for messages
    groups: list[Label] = field(default_factory=list)  # from the group column, if requested

    def place(self, index: int) -> str:
        """The file and the row (from 1, without the header) of a review."""
        for name, num_rows in self.files:
            if index < num_rows:
                return name if name.endswith(".txt") else f"{name}, row {index + 1}"
            index -= num_rows
        raise AssertionError("index beyond the last review")


def read_files(
    paths: Sequence[Path], *, with_labels: bool, group_column: str | None = None
) -> Rows:
    """Read files with the column ``text`` and, if requested, ``label`` and a group column."""
    texts: list[str] = []
    labels: list[Label] = []
    groups: list[Label] = []
    files = []
    columns = ["label"] * with_labels + ([group_column] if group_column is not None else [])
    for path in paths:
        num_before = len(texts)
        for block in open_source(path, "text", columns).blocks(_BLOCK_ROWS):
            for index, problem in sorted(block.problems.items()):
                raise UserError(f"{block.place(index)}: {problem}")
            texts += [text for text in block.texts if text is not None]
            if with_labels:
                labels += _labels(block, "label")
            if group_column is not None:
                groups += _labels(block, group_column)
        files.append((str(path), len(texts) - num_before))
    origin = str(paths[0]) if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"
    if not texts:
        raise UserError(f"{origin}: no rows, where reviews were expected")
    return Rows(texts, labels, files, origin, groups)


def _labels(block: Block, column: str) -> list[Label]:
    """A column's integers and names; booleans count as integers."""
    values = block.values(column)
    for index, value in enumerate(values):
        problem = value_problem(value, column, (int, str), "integers or names")
        if problem:
            raise UserError(f"{block.place(index)}: {problem}")
        if isinstance(value, str) and len(value) > _MAX_LABEL_CHARACTERS:
            raise UserError(
                f"{block.place(index)}: a {column} of {len(value):,} characters: are the columns "
                f"text and {column} swapped?"
            )
    return [int(value) if isinstance(value, bool) else value for value in values]


def read_text_folder(folder: Path, *, with_labels: bool) -> Rows:
    """Read the text files of each sub-folder, whose name is the label, or those of ``folder``.

    The files of a folder are read in the order of the numbers that their names begin with, as in
    aclImdb (``0_9.txt``, ``1_7.txt``, …).
    """
    folders = [folder]
    if with_labels:
        folders = sorted(
            path
            for path in folder.iterdir()
            if path.is_dir() and path.name != UNLABELLED_FOLDER and not path.name.startswith(".")
        )
    for path in folders:
        if with_labels and not is_utf8(path.name):
            raise UserError(f"{folder}: the folder's name {path.name!r} is not UTF-8")
    paths = [path for parent in folders for path in sorted(parent.glob("*.txt"), key=_numeric_name)]
    if not paths:
        raise UserError(f"{folder}: no .txt files, where reviews were expected")
    return Rows(
        texts=[read_text(path) for path in paths],
        labels=[path.parent.name for path in paths] if with_labels else [],
        files=[(str(path), 1) for path in paths],
        origin=str(folder),
    )


def _numeric_name(path: Path) -> tuple[float, str]:
    number = re.match(r"\d+", path.name)
    return (int(number.group()) if number else float("inf"), path.name)


def is_on_hub(data: DataConfig) -> bool:
    """Whether reviews come from IMDB on the Hugging Face hub."""
    return data.path is None and data.source == "imdb"


def source_name(data: DataConfig) -> str:
    """The place of the reviews, for messages."""
    if data.path is None:
        return f"the source {data.source}"
    return str(Path(data.path).expanduser().resolve())


def is_same_source(first: DataConfig, second: DataConfig) -> bool:
    """Whether two settings name the same folder, or both the hub."""
    return _resolved_folder(first) == _resolved_folder(second)


def _resolved_folder(data: DataConfig) -> Path | None:
    """The folder of the reviews; None for the hub."""
    if is_on_hub(data):
        return None
    return (_MINI_FOLDER if data.path is None else Path(data.path).expanduser()).resolve()


def has_validation(data: DataConfig) -> bool:
    """Whether the source has a validation split; names like ``dev``, which would be ignored, raise
    ``UserError``.
    """
    if is_on_hub(data):
        return False
    folder = _folder(data)
    if _find(folder, "validation"):
        return True
    for name in _OTHER_NAMES_OF_VALIDATION:
        for file_name in _find(folder, name):
            raise UserError(
                f"{folder}: {file_name} looks like a validation split: rename it to validation, "
                "or take it out of the folder to hold reviews out of train"
            )
    return False


def read_split(data: DataConfig, split: str, group_column: str | None = None) -> Rows:
    """Read one split's texts, labels (except for ``unsupervised``) and, if requested, groups.

    Files of other splits are not opened. Raises as :func:`sentiment.data.reviews.load_split`.
    """
    with_labels = split != "unsupervised"
    if is_on_hub(data):
        if group_column is not None:
            raise UserError(_no_groups(_IMDB, group_column))
        return _read_hub(split, with_labels)
    folder = _folder(data)
    paths_by_name = _find(folder, split)
    if not paths_by_name:
        names = sorted(f"{path.name}/" if path.is_dir() else path.name for path in folder.iterdir())
        listed = ", ".join(names[:_MAX_LISTED]) or "nothing"
        raise FileNotFoundError(
            f"{folder} has no {split} split, which is a file {split}{'|'.join(FORMATS)}, or a "
            f"folder {split} of text files by class; found: "
            f"{listed}{', …' if len(names) > _MAX_LISTED else ''}"
        )
    if len(paths_by_name) > 1:
        listed = ", ".join(paths_by_name)
        raise UserError(f"{folder} has split {split} more than once: {listed}: keep one")
    (paths,) = paths_by_name.values()
    if paths[0].is_dir():
        if group_column is not None:
            raise UserError(_no_groups(str(paths[0]), group_column))
        return read_text_folder(paths[0], with_labels=with_labels)
    return read_files(paths, with_labels=with_labels, group_column=group_column)


def _no_groups(place: str, group_column: str) -> str:
    return (
        f"{place} has no columns but texts and labels, and so no {group_column!r} to hold out by: "
        "set data.validation to stretches and data.group_column to null"
    )


def _folder(data: DataConfig) -> Path:
    if data.path is None:
        if not _MINI_FOLDER.is_dir():
            raise FileNotFoundError(
                f"{_MINI_FOLDER} is missing: reinstall the package, or give reviews with "
                "--data.path FOLDER"
            )
        return _MINI_FOLDER
    folder = Path(data.path).expanduser()
    if folder.is_file():
        raise UserError(
            f"data.path is {data.path}, a file: give the folder that it is in, with files named "
            f"train, validation and test ({', '.join(FORMATS)})"
        )
    if not folder.is_dir():
        raise FileNotFoundError(f"data.path is {data.path}, which does not exist: give a folder")
    return folder


def _find(folder: Path, split: str) -> dict[str, list[Path]]:
    """A split's files or folder by name; shards, as ``train-00000-of-00002.parquet``, share one."""
    paths_by_name: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix not in FORMATS:
            continue
        if path.stem == split:
            paths_by_name[path.name] = [path]
        elif shard := re.fullmatch(rf"{split}-\d+-of-(\d+)", path.stem):
            name = f"{split}-*-of-{shard.group(1)}{path.suffix}"
            paths_by_name.setdefault(name, []).append(path)
    for name, paths in paths_by_name.items():
        num_shards = int(name.split("-of-")[1].split(".")[0]) if "-of-" in name else 1
        if len(paths) != num_shards:
            raise UserError(f"{folder} has {len(paths)} of the files {name}: fetch the others")
    texts = folder / "train" / UNLABELLED_FOLDER if split == "unsupervised" else folder / split
    if texts.is_dir():
        paths_by_name[f"{texts.relative_to(folder).as_posix()}/"] = [texts]
    return paths_by_name


def cached_hub_file(split: str) -> Path | None:
    """A split's file in the hub's cache; None if it was not downloaded."""
    import huggingface_hub  # here for start-up time

    path = huggingface_hub.try_to_load_from_cache(
        _IMDB, _HUB_FILE.format(split), repo_type="dataset"
    )
    return Path(path) if isinstance(path, str) else None


def _read_hub(split: str, with_labels: bool) -> Rows:
    """Read one split of IMDB; download its file, and no other, unless the cache has it."""
    # load_dataset contacts the hub at every start, and offline it does not find what it loaded with
    # data_files before; the file itself stays in the hub's cache.
    if (cached := cached_hub_file(split)) is not None:
        return read_files([cached], with_labels=with_labels)
    # Imported here for start-up time: the two imports take a second.
    import datasets
    import huggingface_hub

    file_name = _HUB_FILE.format(split)
    url = huggingface_hub.hf_hub_url(_IMDB, file_name, repo_type="dataset")
    try:
        # A quick request first: load_dataset waits over 20 s if the hub cannot be reached.
        huggingface_hub.get_hf_file_metadata(url, timeout=_PROBE_SECONDS)
        table = datasets.load_dataset(
            _IMDB,
            data_files={split: file_name},
            split=split,
            # Some versions raise an error because the other splits are missing
            # (https://github.com/huggingface/datasets/pull/8215).
            verification_mode="no_checks",
        )
    except Exception as error:  # from datasets, the hub's client or its HTTP library
        reason = (str(error).splitlines() or [""])[0]
        raise FileNotFoundError(
            f"IMDB's {split} split is not in the cache, and {url} can't be reached or read "
            f"({type(error).__name__}: {reason}): give a local copy with --data.path FOLDER"
        ) from error
    return Rows(
        texts=table["text"][:],
        labels=table["label"][:] if with_labels else [],
        files=[(f"{_IMDB} {split}", len(table))],
        origin=f"{_IMDB} {split}",
    )
