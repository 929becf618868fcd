"""Trains the teachers that a student is to have, before the student itself."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from sentiment.config import Config, deciding_settings
from sentiment.settings import TrainingRequest

logger = logging.getLogger(__name__)


def train_teachers(
    request: TrainingRequest,
    pretraining: Path | None,
    train: Callable[[TrainingRequest], object],
    *,
    is_alone: bool,
) -> None:
    """Train the teachers that a student's settings ask for, one after another.

    Those that are finished stay, those that were stopped go on.

    Args:
        request: the student's; where it overwrites, runs of other settings in the teachers' folders
            are replaced too.
        pretraining: the folder of the language model that the student starts from.
        train: what trains a run.
        is_alone: whether this is the only process of the training.

    Raises:
        ValueError: they would be trained by several processes; or a folder holds another run.
        SystemExit: a signal came, and the teacher that was being trained is saved.
    """
    from sentiment.distilling.teachers import own_teachers
    from sentiment.runs import is_finished
    from sentiment.text.pipeline import load_training

    missing = []
    for teacher in own_teachers(request.config, pretraining):
        path = Path(teacher.output_dir).expanduser()
        is_alike = (path / "run.json").exists() and _is_alike(teacher, path)
        if not (is_alike and is_finished(path)):
            missing.append((teacher, request.overwrites and not is_alike))
    if not missing:
        return
    if not is_alone:
        count = request.config.distillation.num_teachers
        raise ValueError(
            f"distillation.num_teachers is {count}, but teachers are trained by one process each: "
            "train them first, then this with distillation.teachers naming their folders"
        )
    load_training(request.config)  # what the student would miss, after hours
    for teacher, replaces in missing:
        logger.info("first a teacher: %s", teacher.output_dir)
        try:
            train(TrainingRequest(teacher, overwrites=replaces, resumes_if_begun=not replaces))
        except SystemExit:
            logger.info("the command that was given goes on there too, and then with the student")
            raise


def _is_alike(config: Config, path: Path) -> bool:
    """Whether a folder's run is one of these settings."""
    from sentiment.runs import load_settings

    return deciding_settings(load_settings(path)) == deciding_settings(config)
