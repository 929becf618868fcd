"""Teachers: chosen, trained, checked, and their soft labels for unlabelled reviews."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sentiment.config.config import Config, DistillationConfig, deciding_settings, first_difference
from sentiment.config.parser import TrainingRequest
from sentiment.config.sections import MAX_TEACHERS
from sentiment.data.pipeline import TrainingData, encode_reviews
from sentiment.data.reviews import Reviews, file_fingerprint
from sentiment.display.console import truncate
from sentiment.evaluation.calibration import apply_temperature
from sentiment.evaluation.evaluate import predict_corpus
from sentiment.runs.manifest import holds_pretraining, is_baseline, is_pretraining, read_manifest
from sentiment.runs.pretrained import describe_pretraining
from sentiment.runs.run import check_place, is_finished, load_run, load_settings
from sentiment.runs.weights import read_tensors, weights_path, write_tensors
from sentiment.runtime.errors import UserError
from sentiment.runtime.files import beside
from sentiment.training.checkpoint import has_lost_state

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
            seed=(config.seed * (MAX_TEACHERS + 1) + number) % 2**32,
            pretraining=replace(config.pretraining, path=path),
            distillation=DistillationConfig(),
        )


def check_named_teachers(config: Config) -> None:
    """Refuse teachers that are no finished classifiers; reads no reviews.

    Args:
        config: the student's settings, of which those that it trains itself are not looked at.

    Raises:
        FileNotFoundError: a folder is not a run, or not finished.
        UserError: it is damaged, a pre-training, or the student's own.
    """
    student = Path(config.output_dir).expanduser()
    for path in named_teachers(config):
        if path.resolve() == student.resolve():
            raise UserError(
                f"the teacher {path} is where the student is to be written: choose another "
                "output_dir"
            )
        _check_finished(path)


def _check_finished(path: Path) -> None:
    try:
        description = read_manifest(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{error}: distillation.teachers must name folders of finished runs"
        ) from error
    if is_pretraining(description):
        raise UserError(
            f"the teacher {path} is a pre-training, no classifier: start from it with "
            "--pretraining.path, or name the run that did"
        )
    if is_baseline(description):
        raise UserError(f"the teacher {path} is a baseline: only an LSTM's run can be a teacher")
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
        UserError: it is one.
    """
    description = read_manifest(path)
    names = tuple(description["class_names"])
    if names != class_names:
        raise UserError(
            f"the teacher {path} has the classes {', '.join(names)}, but these reviews have "
            f"{', '.join(class_names)}: classes must be the same, in the same order"
        )
    own = description.get("data", {}).get("validation", {"rows": "unknown", "sha256": "unknown"})
    if own != validation:
        raise UserError(
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
    identity = read_manifest(path)["identity"]
    weights = file_fingerprint(path / "checkpoints" / CHECKPOINT / "model.safetensors")
    return {"path": str(path), "identity": identity, "sha256": weights["sha256"]}


def check_same_teachers(then: list[dict[str, str]], now: list[dict[str, str]], run: Path) -> None:
    """Refuse other teachers than a run has had.

    Args:
        then, now: what :func:`describe_teachers` says of them; folders do not count.
        run: for the message.

    Raises:
        UserError: one is another, or speaks by other weights.
    """
    if len(then) != len(now):
        raise UserError(f"{run} had {len(then)} teachers, but its settings name {len(now)}")
    for wanted, found in zip(then, now, strict=True):
        for name, what in (("identity", "identity"), ("sha256", "weights with digest")):
            if found[name] != wanted[name]:
                raise UserError(
                    f"the teacher {found['path']} has {what} {found[name][:12]}, but {run} learned "
                    f"from one with {wanted[name][:12]}: put that of then there"
                )


logger = logging.getLogger(__name__)

_SURE = 0.9
_NAME = "soft_labels"


def teach(config: Config, data: TrainingData, device: torch.device) -> torch.Tensor | None:
    """Have the teachers that the settings name label the unlabelled reviews.

    Each reads them by its own words and lengths, in fp32 as when it is evaluated.

    Args:
        config: the student's settings.
        data: its reviews.
        device: where to compute.

    Returns:
        (num_unlabelled, num_classes) probabilities in fp32, on the CPU; None without teachers.

    Raises:
        FileNotFoundError: a teacher, or a file of it, is not there.
        UserError: one is damaged, or not to be trusted
            (:func:`sentiment.training.distillation.check_trusted`).
    """
    if not config.distillation.is_wanted:
        return None
    reviews = data.unlabelled_reviews
    assert reviews is not None
    folders = teacher_folders(config)
    for path in folders:
        check_trusted(path, data.class_names, data.fingerprints["validation"])
    total = np.zeros((len(reviews), len(data.class_names)))
    for path in folders:
        total += _ask(path, reviews, config, device)
    probabilities = total / len(folders)
    _tell(probabilities, data.class_names, config.distillation.temperature, len(folders))
    return torch.from_numpy(probabilities).float()


def _ask(path: Path, reviews: Reviews, config: Config, device: torch.device) -> np.ndarray:
    """(num_reviews, num_classes) probabilities by one teacher."""
    run = load_run(path, checkpoint=CHECKPOINT)
    # Its own in what it reads, ours in where tokens are kept and who makes them.
    ours = config.data
    own = replace(run.config.data, cache_dir=ours.cache_dir, num_processes=ours.num_processes)
    corpus = encode_reviews(reviews, run.vocabulary, own)
    title = f"labelling by {truncate(path.name, 30)}"
    try:
        said = predict_corpus(run.model.to(device), corpus, device=device, description=title)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
    return np.exp(apply_temperature(said.log_probabilities, config.distillation.temperature))


def _tell(
    probabilities: np.ndarray, class_names: tuple[str, ...], temperature: float, num_teachers: int
) -> None:
    """How many labels there are, how sure, and of which classes."""
    counts = np.bincount(probabilities.argmax(axis=1), minlength=len(class_names))
    shares = 100 * counts / len(probabilities)
    classes = ", ".join(
        f"{name} {share:.1f} %" for name, share in zip(class_names, shares, strict=True)
    )
    logger.info(
        "soft labels: %s reviews by %d teacher%s; %.1f %% of them at over %.0f %%%s; %s",
        f"{len(probabilities):,}",
        num_teachers,
        "s" * (num_teachers > 1),
        100 * float((probabilities.max(axis=1) > _SURE).mean()),
        100 * _SURE,
        "" if temperature == 1 else f", at temperature {temperature:g}",
        truncate(classes, 200),
    )


def soft_labels_path(run: Path) -> Path:
    """Where a run keeps what its teachers said."""
    return run / "checkpoints" / f"{_NAME}.safetensors"


def save_soft_labels(run: Path, soft_labels: torch.Tensor) -> None:
    """Keep what :func:`teach` gave, for all ranks and for resuming.

    Raises:
        OSError: it cannot be written.
    """
    path = soft_labels_path(run)
    path.parent.mkdir(exist_ok=True)
    write_tensors(path, {_NAME: soft_labels}, {}, read_manifest(run)["identity"])


def read_soft_labels(run: Path, data: TrainingData) -> torch.Tensor:
    """What a run's teachers said, (num_unlabelled, num_classes) on the CPU.

    Raises:
        FileNotFoundError: it is gone.
        UserError: the file is damaged, or not of this run and its reviews.
    """
    path = soft_labels_path(run)
    try:
        tensors, _ = read_tensors(path, read_manifest(run)["identity"])
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{run} has no {path.name}, what its teachers said: copy it from where the run was "
            "begun, or begin it again with --overwrite"
        ) from error
    assert data.unlabelled is not None
    expected = (len(data.unlabelled), len(data.class_names))
    found = tensors.get(_NAME)
    if found is None or tuple(found.shape) != expected:
        raise UserError(f"{path} is not of this run's reviews: its files were mixed up")
    return found


_COMPARED_ELSEWHERE = "pretraining.path"  # by what lies there, which counts


def plan_teachers(
    request: TrainingRequest, pretraining: Path | None, reviews: dict[str, Any] | None
) -> list[TrainingRequest]:
    """What must be trained before a student, in order; finished teachers are kept.

    Args:
        request: the student's; where it overwrites, teachers that are not as they must be are
            replaced.
        pretraining: the folder of the language model that the student starts from.
        reviews: fingerprints of its reviews by split, for teachers to have learned from the same;
            None, before they are read and before there is a language model, looks at settings and
            folders alone.

    Raises:
        FileExistsError: a teacher's folder holds something else.
        UserError: it holds another run, or a damaged one.
    """
    plan = []
    for teacher in own_teachers(request.config, pretraining):
        path = Path(teacher.output_dir).expanduser()
        if not (path / "run.json").exists():
            check_place(path)
            plan.append(TrainingRequest(teacher))
            continue
        if holds_pretraining(path):
            raise UserError(
                f"{path}, where a teacher is to be, holds a pre-training: choose another output_dir"
            )
        try:
            problem = _difference(teacher, path) or _lack(path)
            if reviews is not None and problem is None:
                problem = _other_beginning(path, pretraining, reviews)
        except (ValueError, FileNotFoundError) as error:
            problem = f"is damaged ({error})"
        if problem is not None and not request.overwrites:
            raise UserError(
                f"the teacher {path} {problem}: choose another output_dir, or replace it with "
                "--overwrite"
            )
        if problem is not None:
            plan.append(TrainingRequest(teacher, overwrites=True))
        elif not is_finished(path):
            as_there = replace(teacher, pretraining=load_settings(path).pretraining)
            plan.append(TrainingRequest(as_there, resumes_if_begun=True))
    return plan


def _difference(teacher: Config, path: Path) -> str | None:
    """The first setting that is another in a folder's run, in words."""
    own, asked = deciding_settings(load_settings(path)), deciding_settings(teacher)
    asked[_COMPARED_ELSEWHERE] = own[_COMPARED_ELSEWHERE]
    key = first_difference(own, asked)
    return None if key is None else f"has {key} {own[key]!r}, not {asked[key]!r}"


def _lack(path: Path) -> str | None:
    """What a folder's run has lost, in words."""
    if is_finished(path):
        return None if weights_path(path, CHECKPOINT).is_file() else "has lost its weights"
    return "has lost its checkpoint" if has_lost_state(path) else None


def _other_beginning(path: Path, pretraining: Path | None, reviews: dict[str, Any]) -> str | None:
    """What else than a student a folder's run began with, in words."""
    description = read_manifest(path)
    for split in ("train", "validation"):
        if description["data"][split] != reviews[split]:
            return f"has other {split} reviews"
    now = {} if pretraining is None else describe_pretraining(pretraining)
    then = description.get("pretraining", {})
    if any(now.get(name) != then.get(name) for name in ("identity", "sha256")):
        return "started from another pre-training"
    return None
