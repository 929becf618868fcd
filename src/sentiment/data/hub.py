"""Reviews from the Hugging Face hub: IMDB, split by split, and any other dataset."""

from __future__ import annotations

import functools
from pathlib import Path

from sentiment.data.layouts import SPLIT_NAMES
from sentiment.runtime.errors import UserError

IMDB = "stanfordnlp/imdb"  # https://huggingface.co/datasets/stanfordnlp/imdb/tree/main/plain_text
_IMDB_FILE = "plain_text/{}-00000-of-00001.parquet"
_PROBE_SECONDS = 5.0


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
