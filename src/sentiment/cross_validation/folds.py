"""Which trainings a cross-validation is made of, and where they lie.

cross_validation.json    settings, folds and repeats, to refuse others in the same folder
folds/NAME/              a run's folder each, as train.py leaves it
work/NAME.*              its settings, what its training printed, and the claim on it
predictions.csv          every review by the model that had not seen it
report.json              the figures
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sentiment.config import Config, deciding_settings
from sentiment.places import write_json

LOCK = ".lock"  # held by whoever writes the folder's own files
_FILE = "cross_validation.json"


@dataclass(frozen=True)
class Fold:
    """One training.

    Attributes:
        repeat: which division into folds, from 1.
        number: which fold is held out, from 1.
        config: the settings of the training.
    """

    repeat: int
    number: int
    config: Config

    @property
    def name(self) -> str:
        """The name of its folder."""
        return f"repeat{self.repeat}-fold{self.number}"

    @property
    def run(self) -> Path:
        """The run's folder."""
        return Path(self.config.output_dir)

    def work(self, folder: Path, ending: str) -> Path:
        """A file about the training, beside the runs."""
        return folder / "work" / f"{self.name}.{ending}"


def plan_folds(config: Config, folder: Path, num_folds: int, num_repeats: int) -> list[Fold]:
    """All trainings, each holding out one fold; repeats divide by the next seed."""
    found = []
    for repeat in range(1, num_repeats + 1):
        for number in range(1, num_folds + 1):
            data = replace(
                config.data, num_folds=num_folds, fold=number,
                validation_seed=config.data.validation_seed + repeat - 1,
            )  # fmt: skip
            fold = Fold(repeat, number, config)
            own = replace(config, data=data, output_dir=str(folder / "folds" / fold.name))
            found.append(replace(fold, config=own))
    return found


def is_cross_validation(folder: Path) -> bool:
    """Whether a folder is one."""
    return (folder / _FILE).is_file()


def check_definition(
    folder: Path, config: Config, num_folds: int, reviews: Iterable[dict[str, Any]]
) -> None:
    """Write what a new folder is for, or compare with what it was begun for.

    Args:
        folder: the cross-validation's.
        config: the settings.
        num_folds: how many folds there are.
        reviews: fingerprints of the reviews that the first fold trains and validates on.

    Raises:
        FileExistsError: the folder holds something else.
        ValueError: it was begun with other settings, folds or reviews, or its file is damaged.
    """
    own: dict[str, Any] = {"num_folds": num_folds, "settings": deciding_settings(config)}
    own["reviews"] = list(reviews)
    own = json.loads(json.dumps(own))  # as it will be read
    if not is_cross_validation(folder):
        if any(each.name != LOCK for each in folder.iterdir()):
            raise FileExistsError(
                f"{folder} is not empty and holds no cross-validation: choose another --output_dir"
            )
        write_json(folder / _FILE, own)
        return
    there = read_definition(folder)
    defaults = deciding_settings(Config())  # of settings that there were none of then
    pairs = [("--folds", there["num_folds"], num_folds)]
    pairs += [
        (key, there["settings"].get(key, defaults.get(key)), value)
        for key, value in own["settings"].items()
    ]
    for key, before, now in pairs:
        if before != now:
            raise ValueError(
                f"{folder} was begun with {key} {before!r}, not {now!r}: go on as it was begun, or "
                "choose another --output_dir"
            )
    if there["reviews"] != own["reviews"]:
        raise ValueError(
            f"{folder} was begun with other reviews, or they were divided into folds otherwise: "
            "choose another --output_dir"
        )


def read_definition(folder: Path) -> dict[str, Any]:
    """What a cross-validation's folder was begun for.

    Raises:
        ValueError: its file is damaged.
    """
    path = folder / _FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        values["num_folds"] + 0, values["settings"].keys(), values["reviews"][1]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: begin again in another --output_dir") from error
    return values
