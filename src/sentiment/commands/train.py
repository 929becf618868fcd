"""``sentiment train``: train a classifier as settings say."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import closing
from logging.handlers import MemoryHandler
from pathlib import Path

from sentiment.config import Config
from sentiment.settings import parse_training

logger = logging.getLogger("sentiment")


def parse(arguments: Sequence[str] | None, prog: str) -> tuple[Config, bool]:
    """The settings, and whether an earlier run may be overwritten."""
    return parse_training(arguments, prog)


def execute(parsed: tuple[Config, bool]) -> None:
    """Train; the run's folder holds all that comes of it."""
    from sentiment.runs import build_model, check_place, create_run
    from sentiment.runtime import (
        describe_device,
        find_device,
        find_precision,
        set_up,
        use_allowed_cores,
    )
    from sentiment.shown import printable
    from sentiment.text.pipeline import prepare_training
    from sentiment.training.journal import Journal
    from sentiment.training.trainer import Trainer

    config, overwrite = parsed
    started = time.perf_counter()
    path = Path(config.output_dir).expanduser()
    check_place(path, overwrite=overwrite)
    lines = MemoryHandler(capacity=10_000, flushLevel=logging.CRITICAL + 1)
    logging.getLogger().addHandler(lines)  # until there is a folder for train.log
    use_allowed_cores()
    device = find_device(config.device)
    precision = find_precision(config.training.precision, device)
    logger.info("device: %s, %s", describe_device(device), str(precision).removeprefix("torch."))
    data = prepare_training(config)
    set_up(device, config.seed)
    model = build_model(
        config.model,
        vocabulary_size=len(data.vocabulary),
        num_classes=len(data.class_names),
        vectors=data.vectors,
        freeze_embedding=config.vectors.freeze,
    ).to(device)
    coverage = data.coverage.as_dict() if data.coverage else None
    create_run(path, config, data.class_names, data.vocabulary, coverage, overwrite=overwrite)
    lines.setTarget(logging.FileHandler(path / "train.log", encoding="utf-8"))
    lines.capacity = 1  # from now on each line is written at once
    with closing(Journal(path)) as journal:
        trainer = Trainer(
            model, data, config, device=device, precision=precision, path=path, journal=journal
        )
        result = trainer.fit()
    logger.info(
        "best epoch %d: validation accuracy %.2f %%; %.0f s in all",
        result.best_epoch,
        100 * result.best_metrics.accuracy,
        time.perf_counter() - started,
    )
    place = printable(str(path))
    logger.info("run: %s\nnext: python evaluate.py --run %s", place, place)
    logger.info("      tensorboard --logdir %s", printable(str(path.parent)))
