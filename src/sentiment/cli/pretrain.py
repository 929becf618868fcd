"""``sentiment pretrain``: a language model for classifiers to start from."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from sentiment.config.config import Config
from sentiment.config.parser import parse_settings
from sentiment.runs.manifest import holds_pretraining
from sentiment.runtime.errors import UserError
from sentiment.runtime.files import beside

logger = logging.getLogger("sentiment")


class PretrainingRequest(NamedTuple):
    """What is asked for: the settings, and whether the command line names their folder."""

    config: Config
    is_named: bool


def parse(arguments: Sequence[str] | None, prog: str) -> PretrainingRequest:
    """The settings, which are those of a training."""
    config = parse_settings(
        arguments,
        prog,
        "Pre-train embedding and LSTM as a language model on training and unlabelled reviews. The "
        "folder is --output_dir; without it, where train looks, runs/NAME-pretraining beside the "
        "settings' own. Called again, a stopped pre-training goes on.",
    )
    given = sys.argv[1:] if arguments is None else arguments
    return PretrainingRequest(config, any(each.split("=")[0] == "--output_dir" for each in given))


def execute(request: PretrainingRequest) -> None:
    """Pre-train, and say how to go on.

    Raises:
        UserError: the settings ask for no pre-training, name one that is there, or ask for
            several processes.
    """
    from sentiment.display.console import sanitize
    from sentiment.model.recurrence import describe_recurrence
    from sentiment.pretraining.run import pretrain
    from sentiment.runtime.device import (
        describe_device,
        find_device,
        find_precision,
        prepare_threads,
    )
    from sentiment.runtime.distributed import local_rank
    from sentiment.runtime.processes import Interrupted

    config = request.config
    if config.pretraining.num_epochs == 0:
        raise UserError(
            "pretraining.num_epochs is 0, which pre-trains nothing: set it, as by "
            "--pretraining.num_epochs 3"
        )
    if config.pretraining.path is not None:
        raise UserError(
            f"pretraining.path is {config.pretraining.path!r}, but sentiment pretrain starts from "
            "no other pre-training and writes to output_dir: set pretraining.path to null"
        )
    if local_rank() is not None:
        raise UserError("pre-training knows one process alone: call it without torchrun")
    if not request.is_named and not holds_pretraining(Path(config.output_dir).expanduser()):
        config = replace(config, output_dir=beside(config.output_dir, "-pretraining"))
    prepare_threads()
    device = find_device(config.device)
    precision = find_precision(config.training.precision, device)
    names = (describe_device(device), str(precision).removeprefix("torch."))
    how = describe_recurrence(config.model.cell, config.model.implementation, device, precision)
    logger.info("device: %s, %s, %s", *names, how)
    path = Path(config.output_dir).expanduser()
    try:
        pretrain(config, path, device, precision)
    except Interrupted as stop:
        logger.info("%s; the same command goes on from here", stop)
        raise SystemExit(stop.status) from None
    logger.info("next: python train.py … --pretraining.path %s", sanitize(str(path)))
