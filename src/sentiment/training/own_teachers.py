"""A student's own teachers: which of them there are, and which must be trained first."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from sentiment.config import Config, deciding_settings, first_difference
from sentiment.description import holds_pretraining, read_description
from sentiment.distilling.teachers import CHECKPOINT, own_teachers
from sentiment.pretraining.folder import describe_pretraining
from sentiment.runs import check_place, is_finished, load_settings
from sentiment.settings import TrainingRequest
from sentiment.training.checkpoint import has_lost_state
from sentiment.weights import weights_path

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
        ValueError: it holds another run, or a damaged one.
    """
    plan = []
    for teacher in own_teachers(request.config, pretraining):
        path = Path(teacher.output_dir).expanduser()
        if not (path / "run.json").exists():
            check_place(path)
            plan.append(TrainingRequest(teacher))
            continue
        if holds_pretraining(path):
            raise ValueError(
                f"{path}, where a teacher is to be, holds a pre-training: choose another output_dir"
            )
        try:
            problem = _difference(teacher, path) or _lack(path)
            if reviews is not None and problem is None:
                problem = _other_beginning(path, pretraining, reviews)
        except (ValueError, FileNotFoundError) as error:
            problem = f"is damaged ({error})"
        if problem is not None and not request.overwrites:
            raise ValueError(
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
    description = read_description(path)
    for split in ("train", "validation"):
        if description["data"][split] != reviews[split]:
            return f"has other {split} reviews"
    now = {} if pretraining is None else describe_pretraining(pretraining)
    then = description.get("pretraining", {})
    if any(now.get(name) != then.get(name) for name in ("identity", "sha256")):
        return "started from another pre-training"
    return None
