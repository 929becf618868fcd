"""``sentiment pretrain``: trains a language model for classifiers to start from."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sentiment.config.parser import parse_settings
from sentiment.runtime.errors import UserError
from sentiment.runtime.files import beside

logger = logging.getLogger("sentiment")


def parse(arguments: Sequence[str], prog: str) -> argparse.Namespace:
    config = parse_settings(
        arguments,
        prog,
        "Pre-train embedding and LSTM as a language model on training and unlabelled reviews. The "
        "folder is --output_dir, by default that of the settings with -pretraining, where train "
        "looks for it. The same command continues a stopped pre-training.",
    )
    names_folder = any(argument.split("=")[0] == "--output_dir" for argument in arguments)
    return argparse.Namespace(config=config, names_folder=names_folder)


def execute(options: argparse.Namespace) -> None:
    from sentiment.display.console import sanitize
    from sentiment.pretraining.run import pretrain
    from sentiment.runs.manifest import holds_pretraining
    from sentiment.runtime.device import find_device, find_precision, prepare_threads
    from sentiment.runtime.distributed import refuse_ranks
    from sentiment.runtime.processes import Interrupted
    from sentiment.training.context import TrainingContext

    config = options.config
    if config.pretraining.num_epochs == 0:
        raise UserError(
            "pretraining.num_epochs is 0, so nothing would be learned: set it, as with "
            "--pretraining.num_epochs 3"
        )
    if config.pretraining.path is not None:
        raise UserError(
            f"pretraining.path is {config.pretraining.path!r}, but sentiment pretrain does "
            "not start from a pre-training: set pretraining.path to null"
        )
    refuse_ranks("pre-training")
    if not options.names_folder and not holds_pretraining(Path(config.output_dir).expanduser()):
        config = replace(config, output_dir=beside(config.output_dir, "-pretraining"))
    prepare_threads()
    device = find_device(config.device)
    precision = find_precision(config.training.precision, device)
    path = Path(config.output_dir).expanduser()
    context = TrainingContext(config, path, device, precision)
    logger.info("device: %s", context.describe())
    try:
        pretrain(context)
    except Interrupted as stop:
        logger.info("%s; the same command continues", stop)
        raise
    logger.info("next: python train.py … --pretraining.path %s", sanitize(str(path)))
