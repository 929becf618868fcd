"""The runs of a comparison: found, loaded, told apart by their settings, put to predicting."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sentiment.comparing.classifiers import Classifier, load_classifier
from sentiment.description import holds_baseline
from sentiment.evaluation.calibration import apply_temperature
from sentiment.evaluation.evaluate import Predictions
from sentiment.text.reviews import Reviews

# They say where and how a run was made, not what it is.
_PLACES = ("output_dir", "device", "data.cache_dir", "data.num_processes", "training.log_every")


@dataclass(frozen=True)
class Side:
    """What one argument names: a run, several that differ in their seeds, or a baseline.

    Attributes:
        name: a short name, ``A``, ``B`` and so on.
        path: the folder that was given.
        runs: one or more; a baseline is one.
    """

    name: str
    path: Path
    runs: tuple[Classifier, ...]


def load_sides(paths: Sequence[Path], *, checkpoint: str = "best") -> list[Side]:
    """Load the runs of folders that are runs, or that hold runs.

    Raises:
        FileNotFoundError: a folder is neither, or a file of a run is missing.
        ValueError: there is one run alone, a run is damaged, or their classes are not the same.
    """
    found = [find_runs(path) for path in paths]
    if sum(map(len, found)) == 1:
        raise ValueError(
            f"{paths[0]} is one run, and there is nothing to compare it with: give another run's "
            "folder too, or a folder that holds several runs"
        )
    sides = [
        Side(
            _letter(index),
            path,
            tuple(load_classifier(each, checkpoint=checkpoint) for each in runs),
        )
        for index, (path, runs) in enumerate(zip(paths, found, strict=True))
    ]
    first = sides[0].runs[0]
    for run in (run for side in sides for run in side.runs):
        if run.class_names != first.class_names:
            raise ValueError(
                f"{run.path} has the classes {', '.join(run.class_names)}, but {first.path} has "
                f"{', '.join(first.class_names)}: runs can be compared if their classes are the "
                "same, in the same order"
            )
    return sides


def find_runs(path: Path) -> list[Path]:
    """The folder itself where it is a run or a baseline, else the runs in it, by name.

    A baseline that lies among runs is no seed of theirs: it is compared where it is named.

    Raises:
        FileNotFoundError: there are none.
        ValueError: a run.json is damaged.
    """
    if (path / "run.json").is_file():
        return [path]
    if not path.is_dir():
        reason = "is a file" if path.exists() else "is not there"
        raise FileNotFoundError(f"{path} {reason}: give a run's folder, or one that holds runs")
    found = [
        each
        for each in path.iterdir()
        if (each / "run.json").is_file() and not holds_baseline(each)
    ]
    if not found:
        raise FileNotFoundError(
            f"{path} holds no run: neither it nor a folder in it has a run.json: give a run's "
            "folder, or one that holds runs"
        )
    return sorted(found, key=lambda each: _natural_order(each.name))


def predict_side(side: Side, reviews: Reviews, *, device: torch.device) -> list[Predictions]:
    """What each run says of the reviews, which it reads with its own words and lengths.

    It says so at temperature 1.

    Raises:
        ValueError: a model's outputs are not numbers.
    """
    predictions = []
    for run in side.runs:
        try:
            predictions.append(run.predict(reviews, device=device))
        except ValueError as error:
            raise ValueError(f"{run.path}: {error}") from error
    return predictions


def calibrate_side(side: Side, predictions: Sequence[Predictions]) -> list[Predictions]:
    """What :func:`predict_side` gave, each run's at the run's own temperature."""
    return [
        Predictions(apply_temperature(each.log_probabilities, run.temperature), each.labels)
        for run, each in zip(side.runs, predictions, strict=True)
    ]


def differing_settings(settings: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Settings that all have and not all alike, each with its values; not places and devices.

    Args:
        settings: of each, by their dotted keys.
    """
    first, *others = settings
    return {
        key: [_shown(each[key]) for each in settings]
        for key in first
        if key not in _PLACES
        and all(key in each for each in others)
        and any(each[key] != first[key] for each in others)
    }


def remarks_on_groups(sides: Sequence[Side]) -> list[str]:
    """What speaks against taking the runs of a folder for seeds of one recipe."""
    remarks = []
    for side in sides:
        keys = list(differing_settings([run.settings for run in side.runs]))
        if others := [key for key in keys if key != "seed"]:
            remarks.append(
                f"The runs of {side.name} differ in {', '.join(others)}: their ± is "
                "not that of seeds alone."
            )
        elif len({run.seed for run in side.runs}) < len(side.runs):
            remarks.append(f"Runs of {side.name} have the same seed: their ± is too small.")
    return remarks


def _letter(index: int) -> str:
    """A to Z, AA, AB, and so on."""
    before, last = divmod(index, 26)
    return (_letter(before - 1) if before else "") + chr(ord("A") + last)


def _natural_order(name: str) -> list[tuple[bool, int, str]]:
    """A key that sorts seed10 after seed2."""
    parts = re.split(r"([0-9]+)", name)
    return [(each.isdecimal(), int(each) if each.isdecimal() else 0, each) for each in parts]


def _shown(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return ", ".join(value) if isinstance(value, (list, tuple)) else str(value)
