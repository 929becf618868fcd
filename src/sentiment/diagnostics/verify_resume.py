"""A proof, on a user's own settings, that a training which was killed loses nothing."""

from __future__ import annotations

import logging
import random
import signal
import tempfile
from dataclasses import replace
from pathlib import Path

from sentiment.config.config import Config
from sentiment.config.parser import save_config
from sentiment.diagnostics.run_diff import compare_runs
from sentiment.runs.manifest import read_manifest
from sentiment.runs.weights import read_position
from sentiment.runtime.errors import UserError
from sentiment.runtime.processes import check_end, run_module

logger = logging.getLogger(__name__)

_EVERY = 7  # updates: no divisor of round numbers, so that epochs end between two checkpoints


def verify_resume(config: Config) -> None:
    """Train twice in processes of their own, one of them killed at a random update and resumed.

    Raises:
        UserError: the two are not equal, or a training failed by itself.
    """
    with tempfile.TemporaryDirectory(prefix="verify-resume-") as folder:
        whole, broken = Path(folder) / "whole", Path(folder) / "broken"
        file = Path(folder) / "config.yaml"
        save_config(_with_checkpoints(config), file)
        logger.info("training without a stop")
        train = ["sentiment", "train"]
        check_end(run_module([*train, f"--config={file}", f"--output_dir={whole}"]))
        num_updates = read_position(whole, "last").update
        last = random.randrange(1, num_updates + 1)  # another one each time, so not by the seed
        logger.info("training again, killed after update %d of %d", last, num_updates)
        until = ["sentiment.cli.train_until", str(last)]
        killed = run_module([*until, f"--config={file}", f"--output_dir={broken}"])
        check_end(killed, -signal.SIGKILL)
        logger.info("resuming")
        check_end(run_module([*train, f"--resume={broken}"]))
        assert read_manifest(broken)["result"]["num_resumed"] == 1
        likeness = compare_runs(whole, broken)
    if not likeness.is_equal:
        problems = "".join(f"; {each}" for each in likeness.problems[:3])
        raise UserError(
            "the resumed run differs from the one that was never stopped: by "
            f"{likeness.weights:.3g} in a weight, {likeness.metrics:.3g} in a metric, "
            f"{likeness.curves:.3g} in a curve{problems}: on a GPU some "
            "kernels add up in any order; on a CPU this is a bug"
        )
    logger.info(
        "equal to the bit: best and last weights, all metrics and the %s points of the curves, "
        "after a kill at update %d of %d",
        f"{likeness.num_points:,}",
        last,
        num_updates,
    )


def _with_checkpoints(config: Config) -> Config:
    """The settings with checkpoints inside epochs, so that one is resumed from there."""
    if config.training.checkpoint_updates is not None:
        return config
    training = replace(config.training, checkpoint_updates=_EVERY)
    return replace(config, training=training)
