"""Where a training starts from a language model: which one, made first where there is none."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from sentiment.config import Config
from sentiment.distilling.teachers import check_trusted, named_teachers
from sentiment.pretraining.folder import check_fits, check_same, starting_folder
from sentiment.pretraining.pretrain import pretrain
from sentiment.runs import is_finished
from sentiment.text.fingerprints import reviews_fingerprint
from sentiment.text.pipeline import look_ahead
from sentiment.training.interruption import Interrupted
from sentiment.world import World

logger = logging.getLogger(__name__)


def find_pretraining(
    config: Config, device: torch.device, precision: torch.dtype, world: World
) -> Path | None:
    """The folder of the finished pre-training that the settings ask for, None if they ask for none.

    Where they name no folder, it lies beside the run's and is made now, unless it is there.

    Raises:
        FileNotFoundError, ValueError: it is not there, not finished, or does not fit; or one is
            to be made, and the training after it could not be.
        SystemExit: a signal came, and the pre-training is saved.
    """
    path = starting_folder(config)
    if path is None:
        return None
    if config.pretraining.path is not None:
        if path.resolve() == Path(config.output_dir).expanduser().resolve():
            raise ValueError(
                f"pretraining.path and output_dir are both {path}: choose another output_dir"
            )
    else:
        if not world.is_alone and not ((path / "run.json").exists() and is_finished(path)):
            raise ValueError(
                "pre-training knows one process alone: call sentiment pretrain with these settings "
                "and --output_dir FOLDER first, then this with --pretraining.path FOLDER"
            )
        if world.is_alone:
            _make(config, path, device, precision)
        else:
            check_same(config, path)
    check_fits(config, path)
    return path


def _make(config: Config, path: Path, device: torch.device, precision: torch.dtype) -> None:
    if not ((path / "run.json").exists() and is_finished(path)):
        _check_training(config)
    try:
        pretrain(config, path, device, precision)
    except Interrupted as stop:
        logger.info("%s; the same command goes on with the pre-training", stop)
        raise SystemExit(stop.status) from None


def _check_training(config: Config) -> None:
    validation = look_ahead(config)["validation"]
    for teacher in named_teachers(config):
        check_trusted(teacher, validation.class_names, reviews_fingerprint(validation))
