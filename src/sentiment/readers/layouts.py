"""Which files hold a split: of a folder, under the names that people give them, or of the hub."""

from __future__ import annotations

import functools
import json
import re
from dataclasses import dataclass
from pathlib import Path

from sentiment.readers.formats import SUFFIXES
from sentiment.readers.opening import COMPRESSIONS
from sentiment.runtime.errors import UserError

UNLABELLED_FOLDER = "unsup"  # in aclImdb: reviews without labels, beside the folders of the classes

SPLIT_NAMES = {
    "train": ("train",),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test",),
    "unsupervised": ("unsupervised",),
}
_ANY_SPLIT = "|".join(name for names in SPLIT_NAMES.values() for name in names)
_ENDING = (
    rf"(\.ft)?((?P<suffix>{'|'.join(map(re.escape, SUFFIXES))})"
    rf"({'|'.join(map(re.escape, COMPRESSIONS))})?|\.zip)"
)
_STATE = "state.json"  # in the folder of a Dataset that save_to_disk wrote
_MAX_LISTED = 20
IMDB = "stanfordnlp/imdb"  # https://huggingface.co/datasets/stanfordnlp/imdb/tree/main/plain_text
_IMDB_FILE = "plain_text/{}-00000-of-00001.parquet"
_PROBE_SECONDS = 5.0


@dataclass(frozen=True)
class Files:
    """Where a split's reviews are."""

    name: str  # for messages
    paths: list[Path]  # files of rows, in order
    tree: Path | None = None  # instead of files: a folder with one folder of text files per class


def find_split(folder: Path, split: str) -> Files | None:
    """A split's files; None if the folder has none.

    Understood are ``train.csv`` in any format, case and compression, the hub's shards
    ``train-00000-of-00002.parquet``, folders of data files, as Spark writes them, of class folders
    or of :meth:`datasets.Dataset.save_to_disk`.
    """
    found: dict[str, Files] = {}
    for path in sorted(folder.iterdir()):
        match = _match(path, "|".join(SPLIT_NAMES[split]))
        if match is None:
            continue
        if path.is_dir():
            found[f"{path.name}/"] = _folder_files(path)
            continue
        total = match["total"]
        name = path.name if total is None else f"{split}-*-of-{total}{match['suffix']}"
        found.setdefault(name, Files(str(folder / name), [])).paths.append(path)
    for name, files in found.items():
        if "-*-of-" in name and len(files.paths) != int(name.split("-of-")[1].split(".")[0]):
            raise UserError(
                f"{folder} has {len(files.paths)} of the files {name}: fetch the others"
            )
    unlabelled = folder / "train" / UNLABELLED_FOLDER
    if split == "unsupervised" and unlabelled.is_dir():
        found[f"train/{UNLABELLED_FOLDER}/"] = Files(str(unlabelled), [], unlabelled)
    if len(found) > 1:
        raise UserError(f"{folder} has split {split} more than once: {', '.join(found)}: keep one")
    return next(iter(found.values()), None)


def _match(path: Path, names: str) -> re.Match[str] | None:
    shard = r"(-\d+-of-(?P<total>\d+)(-[0-9a-f]{8,})?)?"
    ending = f"({_ENDING})?" if path.is_dir() else _ENDING
    return re.fullmatch(rf"({names}){shard}{ending}", path.name, re.IGNORECASE)


def _folder_files(folder: Path) -> Files:
    """What a split's own folder holds."""
    paths = [path for path in _data_files(folder) if path.stat().st_size > 0]
    if (folder / _STATE).is_file():
        return Files(str(folder), _saved_files(folder))
    if not class_folders(folder) and any(path.suffix != ".txt" for path in paths):
        return Files(str(folder), paths)
    return Files(str(folder), [], folder)


def find_whole(path: Path) -> Files | None:
    """The files of reviews that are not split yet: a file, a saved Dataset, Spark's parts, or a
    folder with one folder of text files for each class; None of a folder that holds splits.
    """
    if not path.is_dir():
        return Files(str(path), [path])
    if (path / _STATE).is_file():
        return Files(str(path), _saved_files(path))
    if any(_match(entry, _ANY_SPLIT) for entry in path.iterdir()):
        return None
    parts = [file for file in _data_files(path) if re.match(r"part-\d+", file.name)]
    if parts:
        return Files(str(path), [part for part in parts if part.stat().st_size > 0])
    return Files(str(path), [], path) if len(class_folders(path)) > 1 else None


def class_folders(folder: Path) -> list[Path]:
    """The folders of text files in a folder, in alphabetical order, without the unlabelled one."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.is_dir()
        and path.name != UNLABELLED_FOLDER
        and not path.name.startswith(".")
        and any(path.glob("*.txt"))
    )


def _data_files(folder: Path) -> list[Path]:
    """The files of rows in a folder, without those of programs (``_SUCCESS``, ``.part.crc``)."""
    return [
        path
        for path in sorted(folder.iterdir())
        if path.is_file()
        and path.name[0] not in "._"
        and re.fullmatch(rf".*{_ENDING}", path.name, re.IGNORECASE)
        and path.name not in (_STATE, "dataset_info.json", "dataset_dict.json")
    ]


def _saved_files(folder: Path) -> list[Path]:
    """The files of a saved Dataset; others in its folder are caches."""
    try:
        entries = json.loads((folder / _STATE).read_text(encoding="utf-8"))["_data_files"]
        return [folder / Path(entry["filename"]).name for entry in entries]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{folder / _STATE} is damaged ({error!r}): save the dataset again"
        ) from error


def describe_missing(folder: Path, split: str) -> str:
    """What a folder without a split holds, and what to do."""
    names = sorted(f"{path.name}/" if path.is_dir() else path.name for path in folder.iterdir())
    listed = f"{', '.join(names[:_MAX_LISTED]) or 'nothing'}{', …' * (len(names) > _MAX_LISTED)}"
    text = f"{folder} has no {split} split; found: {listed}"
    inner = [path for path in folder.iterdir() if path.is_dir() and _holds(path, split)]
    files = _data_files(folder)
    is_split = any(_match(path, _ANY_SPLIT) for path in folder.iterdir())
    if len(inner) == 1:
        return f"{text}: give --data.path '{inner[0]}'"
    if split == "train" and len(files) == 1 and not is_split:
        return f"{text}: give the file, --data.path '{files[0]}'"
    return (
        f"{text}: a split is a file named {split}{'|'.join(SUFFIXES)}, or a folder {split} with a "
        "folder of text files for each class"
    )


def _holds(folder: Path, split: str) -> bool:
    return any(_match(path, "|".join(SPLIT_NAMES[split])) for path in folder.iterdir())


def cached_imdb_file(split: str) -> Path | None:
    """The file of a split of IMDB in the hub's cache; None if it was not downloaded."""
    import huggingface_hub  # here for start-up time

    path = huggingface_hub.try_to_load_from_cache(
        IMDB, _IMDB_FILE.format(split), repo_type="dataset"
    )
    return Path(path) if isinstance(path, str) else None


def fetch_imdb_file(split: str) -> Path:
    """Download the file of one split of IMDB, and no other, to the hub's cache."""
    import huggingface_hub

    name = _IMDB_FILE.format(split)
    url = huggingface_hub.hf_hub_url(IMDB, name, repo_type="dataset")
    try:
        # A quick request first: the download waits over 20 s if the hub cannot be reached.
        huggingface_hub.get_hf_file_metadata(url, timeout=_PROBE_SECONDS)
        return Path(huggingface_hub.hf_hub_download(IMDB, name, repo_type="dataset"))
    except Exception as error:  # from the hub's client or its HTTP library
        reason = (str(error).splitlines() or [""])[0]
        raise FileNotFoundError(
            f"IMDB's {split} split is not in the cache, and {url} can't be reached or read "
            f"({type(error).__name__}: {reason}): give a local copy with --data.path FOLDER"
        ) from error


@functools.cache
def load_hub(name: str) -> dict[str, list[Path]]:
    """The Arrow files of ``NAME[:CONFIG]`` in the cache, by this program's names of splits.

    They are downloaded once, and then read from the cache of the datasets library.
    """
    import datasets  # here for start-up time

    repository, _, config = name.partition(":")
    try:
        loaded = datasets.load_dataset(repository, config or None)
    except Exception as error:  # from datasets, the hub's client or its HTTP library
        reason = " ".join(str(error).split())
        if "onfig" in reason and "pick one" in reason:
            raise UserError(
                f"{repository} has several configurations, so give --data.hub "
                f"{repository}:CONFIG: {reason}"
            ) from error
        raise FileNotFoundError(
            f"{repository} is neither in the cache of datasets, nor can it be fetched from the hub "
            f"({type(error).__name__}: {reason}): check the name, or give files with --data.path"
        ) from error
    return {
        split: [Path(file["filename"]) for file in loaded[alias].cache_files]
        for split, names in SPLIT_NAMES.items()
        for alias in reversed(names)
        if alias in loaded
    }
