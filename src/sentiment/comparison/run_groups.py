"""The runs to compare and the reviews to compare them on."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sentiment.baseline.folder import load_baseline
from sentiment.config.config import WITHOUT_EFFECT, Config, DataConfig, flat_settings
from sentiment.data.pipeline import encode_reviews
from sentiment.data.reviews import Reviews, Split, load_split, reviews_fingerprint
from sentiment.data.splits import dedup_key
from sentiment.display.console import sanitize
from sentiment.evaluation.evaluate import Predictions, predict_corpus
from sentiment.readers.sources import choose_reviews, has_split, is_same_source, source_name
from sentiment.runs.initial import check_measured
from sentiment.runs.manifest import holds_baseline
from sentiment.runs.run import Run, load_run
from sentiment.runtime.errors import UserError

# A resumed run must keep log_every, but it changes nothing that is learned either.
_IGNORED_SETTINGS = WITHOUT_EFFECT | {"training.log_every"}
_LARGEST_OVERLAP = 0.1  # a larger share of training reviews is no coincidence


@dataclass(frozen=True)
class Classifier:
    """A run or a baseline."""

    path: Path
    config: Config  # a baseline uses only the data section
    settings: Mapping[str, Any]  # those that it uses, by their dotted keys
    class_names: tuple[str, ...]  # in the order of their labels
    temperature: float  # divisor that calibrates the logits
    seed: int | None  # None for a baseline, whose training is neither random nor in epochs
    epoch: int | None
    # Predictions on a device at temperature 1, with the classifier's vocabulary and truncation.
    predict: Callable[[Reviews, torch.device], Predictions]


def load_classifier(
    path: Path, *, checkpoint: str = "best", cache: DataConfig | None = None
) -> Classifier:
    """The run or the baseline of a folder.

    A run looks for cached tokens where ``cache`` says, None for where its own settings do.
    """
    if holds_baseline(path):
        baseline = load_baseline(path)
        return Classifier(
            path, baseline.config, baseline.settings, baseline.class_names, baseline.temperature,
            seed=None, epoch=None, predict=lambda reviews, device: baseline.predict(reviews),
        )  # fmt: skip
    run = load_run(path, checkpoint=checkpoint)
    config, weights, where = run.config, run.checkpoint, cache or run.config.data
    data = replace(config.data, cache_dir=where.cache_dir, num_processes=where.num_processes)
    return Classifier(
        path, config, flat_settings(config), run.class_names, weights.temperature,
        seed=config.seed, epoch=weights.epoch, predict=partial(_predict, run, data),
    )  # fmt: skip


def _predict(run: Run, data: DataConfig, reviews: Reviews, device: torch.device) -> Predictions:
    corpus = encode_reviews(reviews, run.vocabulary, data)
    title = sanitize(run.path.name)
    return predict_corpus(run.model.to(device), corpus, device=device, description=title)


@dataclass(frozen=True)
class RunGroup:
    """A run, a baseline, or several runs that differ in their seeds."""

    name: str  # A, B and so on
    path: Path  # the folder that was given
    runs: tuple[Classifier, ...]


def load_groups(paths: Sequence[Path], *, checkpoint: str) -> list[RunGroup]:
    """Load the runs of folders that are runs, or that hold runs.

    Raises:
        FileNotFoundError: a folder is neither, or a file of a run is missing.
        UserError: there is a single run, a run is damaged, or the classes differ.
    """
    run_paths = [find_runs(path) for path in paths]
    if sum(map(len, run_paths)) == 1:
        raise UserError(
            f"{paths[0]} is one run, and there is nothing to compare it with: give another run's "
            "folder too, or a folder that holds several runs"
        )
    groups = []
    for index, (path, members) in enumerate(zip(paths, run_paths, strict=True)):
        runs = tuple(load_classifier(member, checkpoint=checkpoint) for member in members)
        groups.append(RunGroup(_letters(index), path, runs))
    first = groups[0].runs[0]
    for run in (run for group in groups for run in group.runs):
        if run.class_names != first.class_names:
            raise UserError(
                f"{run.path} has the classes {', '.join(run.class_names)}, but {first.path} has "
                f"{', '.join(first.class_names)}: runs can be compared if their classes are the "
                "same, in the same order"
            )
    return groups


def find_runs(path: Path) -> list[Path]:
    """The folder itself if it is a run or a baseline, else the runs in it, by name.

    A baseline among runs is not one of their seeds and is left out.

    Raises:
        FileNotFoundError: there are no runs.
    """
    if (path / "run.json").is_file():
        return [path]
    folders = path.iterdir() if path.is_dir() else ()
    found = [folder for folder in folders if (folder / "run.json").is_file()]
    runs = [folder for folder in found if not holds_baseline(folder)]
    if not runs:
        raise FileNotFoundError(
            f"{path} is not a folder of a run, nor one that holds runs: neither it nor a folder in "
            "it has a run.json"
        )
    return sorted(runs, key=lambda folder: _natural_order(folder.name))


def predict_group(group: RunGroup, reviews: Reviews, *, device: torch.device) -> list[Predictions]:
    """Each run's predictions at its temperature."""
    predictions = []
    for run in group.runs:
        try:
            predictions.append(run.predict(reviews, device).calibrated(run.temperature))
        except ValueError as error:  # logits that are not finite
            raise UserError(f"{run.path}: {error}") from error
    return predictions


def differing_settings(settings: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """The values of the settings that all have but that differ, except those without effect."""
    first, *others = settings
    return {
        key: [_format_value(values[key]) for values in settings]
        for key in first
        if key not in _IGNORED_SETTINGS
        and all(key in values for values in others)
        and any(values[key] != first[key] for values in others)
    }


def group_notes(groups: Sequence[RunGroup]) -> list[str]:
    """Sentences on groups that are not seeds of one recipe."""
    notes = []
    for group in groups:
        differing = differing_settings([run.settings for run in group.runs])
        differing.pop("seed", None)
        if differing:
            notes.append(
                f"The runs of {group.name} differ in {', '.join(differing)}: their ± shows more "
                "than the effect of the seed."
            )
        elif len({run.seed for run in group.runs}) < len(group.runs):
            notes.append(f"Runs of {group.name} have the same seed: their ± is too small.")
    return notes


def _letters(index: int) -> str:
    """A to Z, AA, AB, and so on."""
    prefix, last = divmod(index, 26)
    return (_letters(prefix - 1) if prefix else "") + chr(ord("A") + last)


def _natural_order(name: str) -> list[tuple[bool, int, str]]:
    """A key that sorts seed10 after seed2."""
    parts = re.split(r"([0-9]+)", name)
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts]


def _format_value(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return ", ".join(value) if isinstance(value, (list, tuple)) else str(value)


def load_common_reviews(
    runs: Sequence[Classifier], split: Split, settings: dict[str, Any] | None = None
) -> tuple[Reviews, list[str]]:
    """The reviews to compare runs of the same classes on, and notes on them.

    ``settings``, as path, replace those of the first run's data.

    Raises:
        UserError: a run was, or may have been, trained on reviews that others were not.
    """
    first = runs[0]
    data, read_as = choose_reviews(first.config.data, split, settings or {})
    if not settings and split in ("train", "validation"):
        for run in runs[1:]:
            _check_same_hold_out(run, first)
    reviews = load_split(data, read_as, first.class_names)
    if split == "train":
        return reviews, ["A good fit to the training reviews says little about other reviews."]
    notes = _overlap_notes(runs, reviews, data, split)
    if split == "validation" and not has_split(data, "validation"):
        fingerprint = reviews_fingerprint(reviews)
        for run in runs:
            if is_same_source(run.config.data, data):
                check_measured(run.path, fingerprint)
    if split == "validation" and any(is_same_source(run.config.data, data) for run in runs):
        notes.append(
            "The runs' best weights were chosen on these reviews, so their accuracies are "
            "slightly optimistic."
        )
    return reviews, notes


def _check_same_hold_out(run: Classifier, first: Classifier) -> None:
    data, first_data = run.config.data, first.config.data
    values: list[tuple[str, object, object]] = []
    if not is_same_source(data, first_data):
        values.append(("data.path", source_name(data), source_name(first_data)))
    if not has_split(first_data, "validation"):
        settings, expected = data.hold_out_settings(), first_data.hold_out_settings()
        values += [(key, settings.get(key), expected.get(key)) for key in {**settings, **expected}]
    for key, value, expected_value in values:
        if value != expected_value:
            raise UserError(
                f"{key} of {run.path} is {value}, but of {first.path} {expected_value}: they held "
                "out different reviews, so one may have been trained on what the other has not "
                "seen: compare on reviews that none was trained on, with --split test or "
                "--data.path FOLDER"
            )


def _overlap_notes(
    runs: Sequence[Classifier], reviews: Reviews, data: DataConfig, split: Split
) -> list[str]:
    """Notes on runs that were trained on some of the reviews, unless the splits rule it out."""
    keys = [dedup_key(text) for text in reviews.texts]
    shares: dict[DataConfig, float | None] = {}  # None: unknown
    notes = []
    for run in runs:
        run_data = run.config.data
        if _is_disjoint(run_data, data, split):
            continue
        if run_data not in shares:
            shares[run_data] = _overlap(run_data, run.class_names, keys)
        share = shares[run_data]
        if share is None:
            notes.append(
                f"{run.path} was trained on {source_name(run_data)}, which can't be read, so it "
                "may have been trained on some of these reviews."
            )
        elif share > _LARGEST_OVERLAP:
            raise UserError(
                f"{run.path} was trained on {share:.0%} of these reviews, or on copies of them: "
                "compare on reviews that none was trained on, with --split or --data.path FOLDER"
            )
        elif share > 0:
            notes.append(
                f"{run.path} was trained on {share:.1%} of these reviews, or on copies of them."
            )
    return notes


def _is_disjoint(run_data: DataConfig, data: DataConfig, split: Split) -> bool:
    """Whether the splits of the data keep a run's training reviews apart from these."""
    if not is_same_source(run_data, data):
        return False
    is_same = run_data.hold_out_settings() == data.hold_out_settings()
    return split == "test" or has_split(data, "validation") or is_same


def _overlap(data: DataConfig, class_names: tuple[str, ...], keys: Sequence[bytes]) -> float | None:
    """The share of the keys that are those of training reviews; None if these cannot be read."""
    try:
        train = load_split(data, "train", class_names)
    except (OSError, ValueError):
        return None
    known = set(map(dedup_key, train.texts))
    return float(np.mean([key in known for key in keys]))
