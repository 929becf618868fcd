"""Check with a user's settings that a killed and resumed training equals an uninterrupted one."""

from __future__ import annotations

import logging
import random
import tempfile
from dataclasses import replace
from pathlib import Path

from sentiment.config.config import Config
from sentiment.config.parser import save_config
from sentiment.diagnostics.run_diff import compare_runs
from sentiment.runs.manifest import read_manifest
from sentiment.runs.weights import read_weights
from sentiment.runtime.errors import UserError
from sentiment.runtime.processes import KILLED, check_exit, run_module

logger = logging.getLogger(__name__)

_CHECKPOINT_UPDATES = 7  # a prime, so that epochs end between two checkpoints


def verify_resume(config: Config) -> None:
    """Train twice in child processes, once killed at a random update and resumed, and compare.

    Raises ``UserError`` if the two runs are not equal or a training failed.
    """
    with tempfile.TemporaryDirectory(prefix="verify-resume-") as folder:
        whole, resumed = Path(folder) / "whole", Path(folder) / "resumed"
        path = Path(folder) / "config.yaml"
        training = config.training
        if training.checkpoint_updates is None:
            training = replace(training, checkpoint_updates=_CHECKPOINT_UPDATES)
        save_config(replace(config, training=training), path)
        logger.info("training without interruption")
        train = ["sentiment", "train"]
        check_exit(run_module([*train, f"--config={path}", f"--output_dir={whole}"]))
        num_updates = read_weights(whole, "last")[1].update
        last = random.randrange(1, num_updates + 1)  # independent of the seed
        logger.info("training again, killed after update %d of %d", last, num_updates)
        train_until = ["sentiment.cli.train_until", str(last)]
        killed = run_module([*train_until, f"--config={path}", f"--output_dir={resumed}"])
        check_exit(killed, KILLED)
        logger.info("resuming")
        check_exit(run_module([*train, f"--resume={resumed}"]))
        assert read_manifest(resumed)["result"]["num_resumed"] == 1
        diff = compare_runs(whole, resumed)
    if not diff.is_equal:
        problems = "".join(f"; {problem}" for problem in diff.problems[:3])
        raise UserError(
            "the resumed run differs from the uninterrupted one: by "
            f"{diff.weights:.3g} in a weight, {diff.metrics:.3g} in a metric, "
            f"{diff.curves:.3g} in a curve{problems}: on a GPU, where some kernels sum in any "
            "order, this can happen; on a CPU it is a bug"
        )
    logger.info(
        f"equal to the bit: best and last weights, all metrics and the {diff.num_points:,} points "
        f"of the curves, after a kill at update {last} of {num_updates}"
    )
