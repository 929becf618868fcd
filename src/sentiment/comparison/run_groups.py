"""The runs of a comparison: found, loaded, grouped by their settings."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from sentiment.baseline.folder import load_baseline
from sentiment.config.config import WITHOUT_EFFECT, Config, DataConfig, flat_settings
from sentiment.data.pipeline import encode_reviews
from sentiment.data.reviews import Reviews, Split, load_split
from sentiment.data.sources import has_validation, is_same_source, source_name
from sentiment.data.splits import dedup_key
from sentiment.display.console import sanitize
from sentiment.evaluation.calibration import apply_temperature
from sentiment.evaluation.evaluate import Predictions, predict_corpus
from sentiment.runs.manifest import holds_baseline
from sentiment.runs.run import Run, load_run
from sentiment.runtime.errors import UserError


class Classifier(Protocol):
    """Something trained that predicts the classes of reviews."""

    @property
    def path(self) -> Path:
        """Its folder."""

    @property
    def config(self) -> Config:
        """The settings it was made by; of a baseline those of the data count."""

    @property
    def settings(self) -> dict[str, Any]:
        """Those settings that it has, by their dotted keys."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes, in the order of their labels."""

    @property
    def temperature(self) -> float:
        """What its log-probabilities are divided by to be calibrated."""

    @property
    def seed(self) -> int | None:
        """The seed it was trained with, None where nothing is drawn."""

    @property
    def epoch(self) -> int | None:
        """The epoch its weights are of, None where there are no epochs."""

    def predict(self, reviews: Reviews, *, device: torch.device) -> Predictions:
        """What it says of reviews, which it reads in its own way, at temperature 1."""


@dataclass(frozen=True)
class RunClassifier:
    """A run as a :class:`Classifier`."""

    run: Run

    @property
    def path(self) -> Path:
        return self.run.path

    @property
    def config(self) -> Config:
        return self.run.config

    @property
    def settings(self) -> dict[str, Any]:
        return flat_settings(self.run.config)

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.run.class_names

    @property
    def temperature(self) -> float:
        return self.run.checkpoint.temperature

    @property
    def seed(self) -> int:
        return self.run.config.seed

    @property
    def epoch(self) -> int:
        return self.run.checkpoint.epoch

    def predict(self, reviews: Reviews, *, device: torch.device) -> Predictions:
        corpus = encode_reviews(reviews, self.run.vocabulary, self.config.data)
        title = sanitize(self.path.name)
        return predict_corpus(self.run.model.to(device), corpus, device=device, description=title)


def load_classifier(path: Path, *, checkpoint: str = "best") -> Classifier:
    """The run or the baseline of a folder.

    Raises:
        FileNotFoundError: the folder is neither, or a file is missing.
        UserError: a file is damaged, of a newer format, or does not fit the others.
    """
    if holds_baseline(path):
        return load_baseline(path)
    return RunClassifier(load_run(path, checkpoint=checkpoint))


# A resumed run must keep log_every, but it changes nothing that is learned either.
_IGNORED_SETTINGS = WITHOUT_EFFECT | {"training.log_every"}


@dataclass(frozen=True)
class RunGroup:
    """What one argument names: a run, several that differ in their seeds, or a baseline.

    Attributes:
        name: a short name, ``A``, ``B`` and so on.
        path: the folder that was given.
        runs: one or more; a baseline is one.
    """

    name: str
    path: Path
    runs: tuple[Classifier, ...]


def load_sides(paths: Sequence[Path], *, checkpoint: str = "best") -> list[RunGroup]:
    """Load the runs of folders that are runs, or that hold runs.

    Raises:
        FileNotFoundError: a folder is neither, or a file of a run is missing.
        UserError: there is one run alone, a run is damaged, or their classes are not the same.
    """
    found = [find_runs(path) for path in paths]
    if sum(map(len, found)) == 1:
        raise UserError(
            f"{paths[0]} is one run, and there is nothing to compare it with: give another run's "
            "folder too, or a folder that holds several runs"
        )
    sides = [
        RunGroup(
            _letter(index),
            path,
            tuple(load_classifier(each, checkpoint=checkpoint) for each in runs),
        )
        for index, (path, runs) in enumerate(zip(paths, found, strict=True))
    ]
    first = sides[0].runs[0]
    for run in (run for side in sides for run in side.runs):
        if run.class_names != first.class_names:
            raise UserError(
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
        UserError: a run.json is damaged.
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


def predict_side(side: RunGroup, reviews: Reviews, *, device: torch.device) -> list[Predictions]:
    """What each run says of the reviews, which it reads with its own words and lengths.

    It says so at temperature 1.

    Raises:
        UserError: a model's outputs are not numbers.
    """
    predictions = []
    for run in side.runs:
        try:
            predictions.append(run.predict(reviews, device=device))
        except ValueError as error:
            raise UserError(f"{run.path}: {error}") from error
    return predictions


def calibrate_side(side: RunGroup, predictions: Sequence[Predictions]) -> list[Predictions]:
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
        if key not in _IGNORED_SETTINGS
        and all(key in each for each in others)
        and any(each[key] != first[key] for each in others)
    }


def remarks_on_groups(sides: Sequence[RunGroup]) -> list[str]:
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


# A share of copies beyond it is no coincidence.
_MOST_TRAINED_ON = 0.1


def load_common_reviews(
    runs: Sequence[Classifier], split: Split, path: str | None = None
) -> tuple[Reviews, list[str]]:
    """The reviews to compare on, and what is to be said of them.

    Args:
        runs: the runs, which have the same classes.
        split: which reviews, by the first run's settings.
        path: where they are instead of where those settings say, ``data.path``.

    Returns:
        The reviews, and remarks of a sentence or two each.

    Raises:
        FileNotFoundError: the reviews are not there.
        UserError: a run was, or may have been, trained on reviews that others were not.
    """
    first = runs[0]
    data = first.config.data if path is None else replace(first.config.data, path=path)
    if path is None and split in ("train", "validation"):
        for run in runs[1:]:
            _check_same_holdout(run, first)
    reviews = load_split(data, split, first.class_names)
    remarks = []
    if split == "train":
        remarks.append("How well runs fit reviews they were trained on says little of others.")
    else:
        remarks += _remarks_on_training(runs, reviews, data, split)
    if split == "validation" and any(is_same_source(run.config.data, data) for run in runs):
        remarks.append(
            "Runs choose their best weights by these reviews, which flatters them a little."
        )
    return reviews, remarks


def _check_same_holdout(run: Classifier, first: Classifier) -> None:
    data, other = run.config.data, first.config.data
    values: list[tuple[str, object, object]] = []
    if not is_same_source(data, other):
        values.append(("data.path", source_name(data), source_name(other)))
    if not has_validation(other):
        own, others = data.hold_out_settings(), other.hold_out_settings()
        values += [(key, own.get(key), others.get(key)) for key in {**own, **others}]
    for key, found, expected in values:
        if found != expected:
            raise UserError(
                f"{key} of {run.path} is {found}, but of {first.path} {expected}: not the same "
                "reviews were held out, so one may have been trained on what the other has not "
                "seen: compare on reviews that none was trained on, by --split test or "
                "--data.path FOLDER"
            )


def _remarks_on_training(
    runs: Sequence[Classifier], reviews: Reviews, data: DataConfig, split: Split
) -> list[str]:
    """Count the reviews that runs were trained on, where it is not certain that there are none."""
    keys = [dedup_key(text) for text in reviews.texts]
    shares: dict[DataConfig, float | None] = {}  # None: unknown
    remarks = []
    for run in runs:
        own = run.config.data
        if _is_apart(own, data, split):
            continue
        if own not in shares:
            shares[own] = _share_trained_on(own, run.class_names, keys)
        share = shares[own]
        if share is None:
            remarks.append(
                f"{run.path} was trained on {source_name(own)}, which can't be read: "
                "whether it knows some of these reviews is not known."
            )
        elif share > _MOST_TRAINED_ON:
            raise UserError(
                f"{run.path} was trained on {share:.0%} of these reviews, or on copies of them: "
                "compare on reviews that none was trained on, by --split or --data.path FOLDER"
            )
        elif share > 0:
            remarks.append(
                f"{run.path} was trained on {share:.1%} of these reviews, or on copies of them."
            )
    return remarks


def _is_apart(own: DataConfig, data: DataConfig, split: Split) -> bool:
    """Whether the data's own splits keep a run's training reviews and these apart."""
    if not is_same_source(own, data):
        return False
    is_same = own.hold_out_settings() == data.hold_out_settings()
    return split == "test" or has_validation(data) or is_same


def _share_trained_on(
    own: DataConfig, class_names: tuple[str, ...], keys: Sequence[bytes]
) -> float | None:
    try:
        train = load_split(own, "train", class_names)
    except (OSError, ValueError):
        return None
    known = set(map(dedup_key, train.texts))
    return float(np.mean([key in known for key in keys]))
