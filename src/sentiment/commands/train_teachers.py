"""Trains the teachers that a student is to have, before the student itself."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

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
        request: the student's.
        pretraining: the folder of the language model that it starts from.
        train: what trains a run.
        is_alone: whether this is the only process of the training.

    Raises:
        FileExistsError, ValueError: a teacher's folder holds something else; or teachers would be
            trained by several processes.
        SystemExit: a signal came, and the teacher that was being trained is saved.
    """
    from sentiment.text.fingerprints import reviews_fingerprint
    from sentiment.text.pipeline import look_ahead
    from sentiment.training.own_teachers import plan_teachers

    if not request.config.distillation.trains_teachers:
        return
    reviews = {split: reviews_fingerprint(e) for split, e in look_ahead(request.config).items()}
    plan = plan_teachers(request, pretraining, reviews)
    if plan and not is_alone:
        first = plan[0].config
        raise ValueError(
            f"distillation.num_teachers is {request.config.distillation.num_teachers}, but "
            "teachers are trained by one process each: train those that there are not yet by the "
            f"same settings with --distillation.num_teachers 0, as --seed {first.seed} "
            f"--output_dir {first.output_dir}, then this"
        )
    for each in plan:
        replaced = ", replacing the run that is there" if each.overwrites else ""
        logger.info("first a teacher: %s%s", each.config.output_dir, replaced)
        try:
            train(each)
        except SystemExit:
            logger.info("the command that was given goes on there too, and then with the student")
            raise
