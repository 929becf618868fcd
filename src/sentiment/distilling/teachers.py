"""Runs that others learn from: which they are, and whether they may be trusted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from sentiment.config import Config, DistillationConfig
from sentiment.config_distillation import MOST_TEACHERS
from sentiment.description import is_baseline, is_pretraining, read_description
from sentiment.places import beside
from sentiment.runs import is_finished
from sentiment.text.fingerprints import file_fingerprint

# What a teacher speaks by: the weights that evaluating and predicting take too.
CHECKPOINT = "best"


def teacher_folders(config: Config) -> list[Path]:
    """The folders of a student's teachers: those named, or those that are trained beside it."""
    own = [Path(each.output_dir).expanduser() for each in own_teachers(config, None)]
    return own or named_teachers(config)


def named_teachers(config: Config) -> list[Path]:
    """The folders that the settings name."""
    return [Path(each).expanduser() for each in config.distillation.teachers or ()]


def own_teachers(config: Config, pretraining: Path | None) -> Iterator[Config]:
    """Settings of the teachers that are trained for a student, none where it has others.

    Args:
        config: the student's.
        pretraining: the folder of the language model that it starts from, for them to start from.
    """
    if not config.distillation.trains_teachers:
        return
    path = None if pretraining is None else str(pretraining)
    for number in range(1, config.distillation.num_teachers + 1):
        yield replace(
            config,
            output_dir=beside(config.output_dir, f"-teacher-{number}"),
            # Students of neighbouring seeds share none, so that they can be compared.
            seed=(config.seed * (MOST_TEACHERS + 1) + number) % 2**32,
            pretraining=replace(config.pretraining, path=path),
            distillation=DistillationConfig(),
        )


def check_named_teachers(config: Config) -> None:
    """Refuse teachers that are no finished classifiers; reads no reviews.

    Args:
        config: the student's settings, of which those that it trains itself are not looked at.

    Raises:
        FileNotFoundError: a folder is not a run, or not finished.
        ValueError: it is damaged, a pre-training, or the student's own.
    """
    student = Path(config.output_dir).expanduser()
    for path in named_teachers(config):
        if path.resolve() == student.resolve():
            raise ValueError(
                f"the teacher {path} is where the student is to be written: choose another "
                "output_dir"
            )
        _check_finished(path)


def _check_finished(path: Path) -> None:
    try:
        description = read_description(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{error}: distillation.teachers must name folders of finished runs"
        ) from error
    if is_pretraining(description):
        raise ValueError(
            f"the teacher {path} is a pre-training, no classifier: start from it with "
            "--pretraining.path, or name the run that did"
        )
    if is_baseline(description):
        raise ValueError(f"the teacher {path} is a baseline: only an LSTM's run can be a teacher")
    if not is_finished(path):
        raise FileNotFoundError(
            f"the teacher {path} is not finished: resume it with python train.py --resume {path}"
        )


def check_trusted(path: Path, class_names: tuple[str, ...], validation: dict[str, Any]) -> None:
    """Refuse a teacher of other classes, or one that may have learned from what it must not.

    Args:
        path: its folder.
        class_names: the student's, in their order.
        validation: the fingerprint of the reviews that choices are made on.

    Raises:
        ValueError: it is one.
    """
    description = read_description(path)
    names = tuple(description["class_names"])
    if names != class_names:
        raise ValueError(
            f"the teacher {path} has the classes {', '.join(names)}, but these reviews have "
            f"{', '.join(class_names)}: classes must be the same, in the same order"
        )
    own = description.get("data", {}).get("validation", {"rows": "unknown", "sha256": "unknown"})
    if own != validation:
        raise ValueError(
            f"the teacher {path} held out {own['rows']} validation reviews with digest "
            f"{own['sha256'][:12]}, but these are {validation['rows']} with "
            f"{validation['sha256'][:12]}, which it may have learned from: train it with the same "
            "data"
        )


def describe_teachers(config: Config) -> list[dict[str, str]]:
    """Who the teachers are, for run.json: folder, identity, digest of the weights.

    Raises:
        FileNotFoundError: one is not there.
    """
    return [_describe(path) for path in teacher_folders(config)]


def _describe(path: Path) -> dict[str, str]:
    identity = read_description(path)["identity"]
    weights = file_fingerprint(path / "checkpoints" / CHECKPOINT / "model.safetensors")
    return {"path": str(path), "identity": identity, "sha256": weights["sha256"]}


def check_same_teachers(then: list[dict[str, str]], now: list[dict[str, str]], run: Path) -> None:
    """Refuse other teachers than a run has had.

    Args:
        then, now: what :func:`describe_teachers` says of them; folders do not count.
        run: for the message.

    Raises:
        ValueError: one is another, or speaks by other weights.
    """
    if len(then) != len(now):
        raise ValueError(f"{run} had {len(then)} teachers, but its settings name {len(now)}")
    for wanted, found in zip(then, now, strict=True):
        for name, what in (("identity", "identity"), ("sha256", "weights with digest")):
            if found[name] != wanted[name]:
                raise ValueError(
                    f"the teacher {found['path']} has {what} {found[name][:12]}, but {run} learned "
                    f"from one with {wanted[name][:12]}: put that of then there"
                )
