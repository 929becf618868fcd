"""What a sweep's folder was begun for: trials of another search cannot be compared with its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sentiment.config import Config, deciding_settings
from sentiment.places import write_json
from sentiment.searching.search_file import Search

_FILE = "sweep.json"
_OWN = {".lock", "trials", "work"}  # what there may be before it


def check_definition(folder: Path, search: Search, config: Config) -> None:
    """Write sweep.json into a new folder, or compare with the one that is there.

    Raises:
        FileExistsError: the folder holds something else than a sweep.
        ValueError: it holds another search.
    """
    own = _definition(search, config)
    if not (folder / _FILE).exists():
        others = sorted(each.name for each in folder.iterdir() if each.name not in _OWN)
        if others or any((folder / "trials").iterdir()):
            raise FileExistsError(
                f"{folder} is not empty and holds no sweep: choose another --output_dir"
            )
        write_json(folder / _FILE, own)
        return
    there = read_definition(folder)
    defaults = deciding_settings(Config())  # of settings that there were none of then
    for part in ("space", "settings"):
        for key in own[part].keys() | there[part].keys():
            before, now = there[part].get(key, defaults.get(key)), own[part].get(key)
            if before != now:
                raise ValueError(
                    f"{folder} was begun with {key} {before!r}, not {now!r}: go on as it was "
                    "begun, or choose another --output_dir"
                )


def read_definition(folder: Path) -> dict[str, Any]:
    """What a sweep's folder was begun for.

    Raises:
        FileNotFoundError: it is none.
        ValueError: the file is damaged.
    """
    path = folder / _FILE
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no sweep: it has no {_FILE}")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if not (values["settings"]["training.monitor"] and values["space"].keys()):
            raise ValueError("it is empty")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: begin again in another --output_dir") from error
    return values


def _definition(search: Search, config: Config) -> dict[str, Any]:
    settings = deciding_settings(config)
    values = {
        "settings": {key: value for key, value in settings.items() if key not in search.space},
        "space": search.text,
    }
    return json.loads(json.dumps(values))  # as it will be read
