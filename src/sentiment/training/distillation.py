"""Soft labels, and the teachers that give them: their settings and checks."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sentiment.baseline.cross_fit import judge_labels
from sentiment.baseline.folder import (
    baseline_folder,
    baseline_settings,
    is_finished_baseline,
    load_baseline,
)
from sentiment.baseline.train import train_baseline
from sentiment.comparison.run_groups import load_classifier
from sentiment.config.config import Config, DistillationConfig, deciding_settings, first_difference
from sentiment.config.parser import TrainingRequest
from sentiment.config.sections import MAX_TEACHERS
from sentiment.data.pipeline import SoftLabels, TrainingData, fingerprints_of, preload_reviews
from sentiment.data.reviews import Reviews
from sentiment.display.console import truncate
from sentiment.runs.initial import check_held_out
from sentiment.runs.manifest import (
    holds_pretraining,
    is_baseline,
    is_pretraining,
    read_manifest,
)
from sentiment.runs.run import HALF_MADE, check_place, is_finished, load_settings
from sentiment.runs.weights import describe_weights, read_tensors, weights_path, write_tensors
from sentiment.runtime.distributed import DistributedContext
from sentiment.runtime.errors import UserError
from sentiment.runtime.files import beside, run_lock
from sentiment.runtime.processes import Interrupted
from sentiment.training.checkpoint import has_lost_state

logger = logging.getLogger(__name__)

CHECKPOINT = "best"  # the teachers' weights, as for evaluating and predicting
_UNLABELLED, _LABELLED = "soft_labels", "second_opinion"  # names of tensors in their file


def teacher_folders(config: Config) -> list[Path]:
    """Folders of a student's teachers: those that it names, and those trained for it."""
    trained = [Path(teacher.output_dir).expanduser() for teacher in own_teachers(config, None)]
    folders = trained or named_teachers(config)
    if config.distillation.baseline:
        folders.append(baseline_folder(Path(config.output_dir).expanduser()))
    return folders


def named_teachers(config: Config) -> list[Path]:
    return [Path(path).expanduser() for path in config.distillation.teachers or ()]


def own_teachers(config: Config, pretraining: Path | None) -> Iterator[Config]:
    """Settings of the teachers that are trained for a student, if its settings ask for any.

    ``pretraining`` is the folder of the language model that student and teachers start from.
    """
    if not config.distillation.trains_teachers:
        return
    path = None if pretraining is None else str(pretraining)
    for number in range(1, config.distillation.num_teachers + 1):
        yield replace(
            config,
            output_dir=beside(config.output_dir, f"-teacher-{number}"),
            # Students with neighbouring seeds share no teacher, so that they can be compared.
            seed=(config.seed * (MAX_TEACHERS + 1) + number) % 2**32,
            pretraining=replace(config.pretraining, path=path),
            # Other settings for students, such as the temperature, need no other teachers.
            distillation=DistillationConfig(labelled=config.distillation.labelled),
        )


def check_named_teachers(config: Config) -> None:
    """Refuse named teachers that are not finished classifiers, or the student itself."""
    student = Path(config.output_dir).expanduser()
    for path in named_teachers(config):
        if path.resolve() == student.resolve():
            raise UserError(
                f"the teacher {path} is also the student's output_dir: choose another output_dir"
            )
        try:
            manifest = read_manifest(path)
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"{error}: distillation.teachers must name folders of finished runs"
            ) from error
        if is_pretraining(manifest):
            raise UserError(
                f"the teacher {path} is a pre-training, not a classifier: start from it with "
                "--pretraining.path, or name the run that did"
            )
        if is_baseline(manifest):
            if (path / HALF_MADE).exists():
                raise FileNotFoundError(
                    f"the teacher {path} is not finished: train it again with sentiment baseline"
                )
        elif not is_finished(path):
            raise FileNotFoundError(
                f"the teacher {path} is not finished: resume it with python train.py --resume "
                f"{path}"
            )


def check_trusted(path: Path, class_names: tuple[str, ...], validation: dict[str, Any]) -> None:
    """Refuse a teacher with other classes, or one that may have learned from validation reviews.

    Class names and the fingerprint of the validation reviews are the student's.
    """
    names = tuple(read_manifest(path)["class_names"])
    if names != class_names:
        raise UserError(
            f"the teacher {path} has the classes {', '.join(names)}, but these reviews have "
            f"{', '.join(class_names)}: classes must be the same, in the same order"
        )
    check_held_out(path, validation, name=f"the teacher {path}")


def describe_teachers(config: Config) -> list[dict[str, str]]:
    """Folder, identity and digest of the weights of each teacher, for run.json."""
    return [describe_weights(path, CHECKPOINT) for path in teacher_folders(config)]


def check_same_teachers(before: list[dict[str, str]], now: list[dict[str, str]], run: Path) -> None:
    """Refuse other teachers than a run had, wherever their folders are.

    ``before`` and ``now`` are results of :func:`describe_teachers`.
    """
    if len(before) != len(now):
        raise UserError(f"{run} had {len(before)} teachers, but its settings name {len(now)}")
    for teacher_before, teacher_now in zip(before, now, strict=True):
        check_same_run(teacher_before, teacher_now, "teacher", run)


def check_same_run(before: dict[str, str], now: dict[str, str], kind: str, run: Path) -> None:
    """Refuse another teacher or pre-training (``kind``) than the one that a run learned from."""
    for name, what in (("identity", "identity"), ("sha256", "weights with digest")):
        if now[name] != before[name]:
            raise UserError(
                f"the {kind} {now['path']} has {what} {now[name][:12]}, but {run} learned from one "
                f"with {before[name][:12]}: put the original back"
            )


def teach(config: Config, data: TrainingData, device: torch.device) -> SoftLabels:
    """The soft labels that the settings ask for, of unlabelled and of labelled reviews."""
    unlabelled = labelled = None
    if config.distillation.labelled > 0:
        assert data.train_reviews is not None
        labelled = torch.from_numpy(judge_labels(data.train_reviews, config)).float()
        is_right = labelled.argmax(dim=1).numpy() == data.train_reviews.labels
        logger.info(
            "second opinion: linear models of the other folds predict %.1f %% of the labels",
            100 * is_right.mean(),
        )
    if config.distillation.has_teachers:
        assert data.unlabelled_reviews is not None
        validation = data.fingerprints["validation"]
        probabilities = label_reviews(config, data.unlabelled_reviews, validation, device)
        unlabelled = torch.from_numpy(probabilities).float()
    return SoftLabels(unlabelled, labelled)


def label_reviews(
    config: Config, reviews: Reviews, validation: dict[str, Any], device: torch.device
) -> np.ndarray:
    """The teachers' mean probabilities (num_reviews, num_classes) for reviews.

    Each teacher uses its own vocabulary and length limit, in fp32 as when it is evaluated. One that
    did not hold out the validation reviews with this fingerprint is refused.
    """
    folders = teacher_folders(config)
    for path in folders:
        check_trusted(path, reviews.class_names, validation)
    total = np.zeros((len(reviews), len(reviews.class_names)))
    for path in folders:
        total += _predict(path, reviews, config, device)
    probabilities = total / len(folders)
    _log(probabilities, reviews.class_names, config.distillation.temperature, len(folders))
    return probabilities


def _predict(path: Path, reviews: Reviews, config: Config, device: torch.device) -> np.ndarray:
    """(num_reviews, num_classes) probabilities of one teacher."""
    teacher = load_classifier(path, checkpoint=CHECKPOINT, cache=config.data)
    temperature = config.distillation.temperature
    if teacher.epoch is None:  # a linear model, of which the calibrated probabilities count
        temperature *= teacher.temperature
    try:
        return teacher.predict(reviews, device).calibrated(temperature).probabilities
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error


def _log(
    probabilities: np.ndarray, class_names: tuple[str, ...], temperature: float, num_teachers: int
) -> None:
    counts = np.bincount(probabilities.argmax(axis=1), minlength=len(class_names))
    shares = zip(class_names, 100 * counts / len(probabilities), strict=True)
    classes = ", ".join(f"{name} {share:.1f} %" for name, share in shares)
    logger.info(
        "soft labels: %s by %d teacher%s, %.1f %% over 90 %%%s; %s",
        f"{len(probabilities):,}",
        num_teachers,
        "s" * (num_teachers > 1),
        100 * float((probabilities.max(axis=1) > 0.9).mean()),
        "" if temperature == 1 else f", at temperature {temperature:g}",
        truncate(classes, 200),
    )


def soft_labels_path(run: Path) -> Path:
    return run / "checkpoints" / "soft_labels.safetensors"


def save_soft_labels(run: Path, soft_labels: SoftLabels) -> None:
    """Keep the result of :func:`teach`, for all ranks and for resuming."""
    named = {_UNLABELLED: soft_labels.unlabelled, _LABELLED: soft_labels.labelled}
    tensors = {name: tensor for name, tensor in named.items() if tensor is not None}
    if not tensors:
        return
    path = soft_labels_path(run)
    path.parent.mkdir(exist_ok=True)
    write_tensors(path, tensors, {}, read_manifest(run)["identity"])


def read_soft_labels(run: Path, config: Config, data: TrainingData) -> SoftLabels:
    """The soft labels of a run, as its settings ask for them, which must fit its reviews."""
    expected = {}
    if config.distillation.has_teachers:
        assert data.unlabelled is not None
        expected[_UNLABELLED] = (data.unlabelled.num_reviews, len(data.class_names))
    if config.distillation.labelled > 0:
        expected[_LABELLED] = (data.train.num_reviews, len(data.class_names))
    if not expected:
        return SoftLabels()
    path = soft_labels_path(run)
    try:
        tensors, _ = read_tensors(path, read_manifest(run)["identity"])
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{path} is missing, the soft labels of its reviews: copy it from where the run was "
            "begun, or begin the run again with --overwrite"
        ) from error
    if {name: tuple(tensor.shape) for name, tensor in tensors.items()} != expected:
        raise UserError(f"{path} does not fit this run's reviews: files were mixed up")
    return SoftLabels(tensors.get(_UNLABELLED), tensors.get(_LABELLED))


def plan_teachers(
    request: TrainingRequest, pretraining: Path | None, reviews: dict[str, Any] | None
) -> list[TrainingRequest]:
    """The teachers to train before a student, in order; finished ones are kept.

    A folder that holds anything else is refused; teachers that do not fit are replaced if the
    student's request overwrites.

    Args:
        request: the student's.
        pretraining: the folder of the language model that the student starts from.
        reviews: fingerprints of its reviews by split, which the teachers must share; None, before
            reviews are read and a language model exists, compares only settings and folders.
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
                f"{path} is the folder for a teacher, but holds a pre-training: choose another "
                "output_dir"
            )
        problem = _find_problem(teacher, path, pretraining, reviews)
        if problem is not None and not request.overwrites:
            raise UserError(
                f"the teacher {path} {problem}: choose another output_dir, or replace it with "
                "--overwrite"
            )
        if problem is not None:
            plan.append(TrainingRequest(teacher, overwrites=True))
        elif not is_finished(path):
            resumed = replace(teacher, pretraining=load_settings(path).pretraining)
            plan.append(TrainingRequest(resumed, resumes_if_begun=True))
    return plan


def _find_problem(
    teacher: Config, path: Path, pretraining: Path | None, reviews: dict[str, Any] | None
) -> str | None:
    """Why the folder's run cannot be the teacher, None if it can."""
    try:
        saved, asked = deciding_settings(load_settings(path)), deciding_settings(teacher)
        asked["pretraining.path"] = saved["pretraining.path"]  # its content is compared below
        if (key := first_difference(saved, asked)) is not None:
            return f"has {key} {saved[key]!r}, not {asked[key]!r}"
        if is_finished(path) and not weights_path(path, CHECKPOINT).is_file():
            return "has lost its weights"
        if not is_finished(path) and has_lost_state(path):
            return "has lost its checkpoint"
        manifest = read_manifest(path)
        if reviews is None:
            return None
        for split in ("train", "validation"):
            if manifest["data"][split] != reviews[split]:
                return f"has other {split} reviews"
        now = {} if pretraining is None else describe_weights(pretraining, "last")
    except (ValueError, FileNotFoundError) as error:
        return f"is damaged ({error})"
    before = manifest.get("pretraining", {})
    if any(now.get(name) != before.get(name) for name in ("identity", "sha256")):
        return "started from another pre-training"
    return None


def train_baseline_teacher(request: TrainingRequest, distributed: DistributedContext) -> None:
    """Train the baseline that teaches a student, if its settings ask for one; a collective call.

    A baseline of the same settings and reviews is kept. Raises as
    :func:`sentiment.baseline.train.train_baseline`.
    """
    config = request.config
    if not config.distillation.baseline:
        return
    if distributed.is_main:
        path = baseline_folder(Path(config.output_dir).expanduser())
        with run_lock(path):
            if _is_baseline_of(config, path):
                logger.info("linear model trained before: %s", path)
            else:
                logger.info("training a linear model first: %s", path)
                train_baseline(config, path, overwrite=request.overwrites)
    distributed.barrier()


def _is_baseline_of(config: Config, path: Path) -> bool:
    """Whether a folder holds a finished baseline of the settings' reviews."""
    if not is_finished_baseline(path):
        return False
    if load_baseline(path).settings != baseline_settings(config):
        return False
    return fingerprints_of(preload_reviews(config)) == read_manifest(path)["data"]


def train_teachers(
    request: TrainingRequest,
    pretraining: Path | None,
    train: Callable[[TrainingRequest], object],
    *,
    is_distributed: bool,
) -> None:
    """Have ``train`` train the teachers that a student's settings ask for, one after another.

    Finished teachers are used as they are, stopped ones are resumed. ``pretraining`` is the folder
    of the language model that the student starts from. Several ranks raise ``UserError`` if a
    teacher is missing; a signal raises ``Interrupted``, with a checkpoint of the teacher.
    """
    if not request.config.distillation.trains_teachers:
        return
    fingerprints = fingerprints_of(preload_reviews(request.config))
    plan = plan_teachers(request, pretraining, fingerprints)
    if plan and is_distributed:
        first = plan[0].config
        options = " ".join(_different_options(first, request.config))
        raise UserError(
            f"distillation.num_teachers is {request.config.distillation.num_teachers}, but "
            "teachers are trained by one process each: train the missing ones first, with the "
            f"same settings and, for the first one, {options}"
        )
    for teacher in plan:
        replaced = ", replacing the run in it" if teacher.overwrites else ""
        logger.info("training a teacher first: %s%s", teacher.config.output_dir, replaced)
        try:
            train(teacher)
        except Interrupted:
            logger.info("the same command resumes the teacher, and then trains the student")
            raise


def _different_options(teacher: Config, student: Config) -> Iterator[str]:
    """The options that turn a student's settings into its teacher's."""
    for field in fields(DistillationConfig):
        value = getattr(teacher.distillation, field.name)
        if value != getattr(student.distillation, field.name):
            yield f"--distillation.{field.name} {json.dumps(value)}"
    if teacher.pretraining.path != student.pretraining.path:
        yield f"--pretraining.path {teacher.pretraining.path}"
    yield f"--seed {teacher.seed} --output_dir {teacher.output_dir}"
