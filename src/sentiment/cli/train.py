"""``sentiment train``: trains a classifier, and its teachers if it asks for some."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sentiment.config.parser import TrainingRequest, parse_training
from sentiment.runtime.processes import Interrupted, kill_this_process

if TYPE_CHECKING:
    from sentiment.data.pipeline import TrainingData
    from sentiment.runtime.distributed import DistributedContext
    from sentiment.training.context import TrainingContext
    from sentiment.training.setup import StartPlan


logger = logging.getLogger("sentiment")


def parse(arguments: Sequence[str], prog: str) -> TrainingRequest:
    return parse_training(arguments, prog)


def execute(
    request: TrainingRequest, after_update: Callable[[int], object] = lambda update: None
) -> None:
    """Train a run; ``after_update`` is called with the number of each completed update.

    Raises ``Interrupted`` after a signal, with a checkpoint.
    """
    from sentiment.runs.run import check_place
    from sentiment.runtime.device import find_device, find_precision, prepare_threads
    from sentiment.runtime.distributed import init_distributed, local_rank, local_size, refuse_ranks
    from sentiment.runtime.files import run_lock
    from sentiment.training.context import TrainingContext
    from sentiment.training.setup import resolve_start

    config = request.config
    path = Path(config.output_dir).expanduser()
    if request.verifies:
        from sentiment.diagnostics.reproduce import verify_resume

        refuse_ranks("--verify_resume")
        verify_resume(config)
        return
    prepare_threads(local_size())
    device = find_device(config.device, local_rank())
    precision = find_precision(config.training.precision, device)
    with init_distributed(uses_cuda=device.type == "cuda") as distributed:
        if not distributed.is_main:
            logger.setLevel(logging.WARNING)
        with run_lock(path) if distributed.is_main else nullcontext():
            start = resolve_start(request, path, distributed)
            if start.is_finished:
                logger.info("%s is finished: there is nothing to resume", path)
                return
            if distributed.is_main and not start.resumes:
                check_place(path, overwrite=start.overwrites)
            with _logged(path, distributed) as begin_log:
                ranks = f", {distributed.world_size} ranks" if distributed.is_distributed else ""
                context = TrainingContext(config, path, device, precision, distributed)
                logger.info("device: %s%s", context.describe(), ranks)
                _train(request, start, context, begin_log, after_update)


def _train(
    request: TrainingRequest,
    start: StartPlan,
    context: TrainingContext,
    begin_log: Callable[[], None],
    after_update: Callable[[int], object],
) -> None:
    from sentiment.pretraining.run import find_pretraining
    from sentiment.readers.sources import has_split
    from sentiment.runs.run import finish_run
    from sentiment.training.checkpoint import state_path
    from sentiment.training.distillation import train_baseline_teacher, train_teachers
    from sentiment.training.logger import RunLogger
    from sentiment.training.setup import prepare
    from sentiment.training.trainer import Trainer

    started = time.perf_counter()
    path, distributed = context.path, context.distributed
    pretrained = None
    if not start.resumes:
        pretrained = find_pretraining(context)
        train_baseline_teacher(request, distributed)
        train_teachers(request, pretrained, execute, is_distributed=distributed.is_distributed)
    model, data = prepare(context, start, pretrained)
    has_test = has_split(context.config.data, "test")
    begin_log()
    checkpoint = start.checkpoint
    logged = None if checkpoint is None else checkpoint.values["journal"]
    run_logger = RunLogger(path, is_silent=not distributed.is_main, state=logged)
    with _explain_write_errors(path), closing(run_logger):
        trainer = Trainer(
            model, data, context, run_logger, checkpoint=checkpoint, after_update=after_update
        )
        try:
            result = trainer.fit()
        except Interrupted as stop:
            logger.info("%s; resume: python train.py --resume %s", stop, path)
            raise
    if distributed.is_main:
        finish_run(path, result)
        if not context.config.training.is_open_ended:
            state_path(path).unlink(missing_ok=True)
        seconds = time.perf_counter() - started
        _report(result, data, context, seconds, "test" if has_test else "validation")
    distributed.barrier()


def _report(
    result: dict[str, Any],
    data: TrainingData,
    context: TrainingContext,
    seconds: float,
    split: str,
) -> None:
    """Log the result, and how to evaluate the run on a split that its data has."""
    import numpy as np

    from sentiment.comparison.compare import baseline_command, compare_with_baseline
    from sentiment.display.console import sanitize
    from sentiment.evaluation.metrics import class_scores
    from sentiment.evaluation.report import describe_collapse

    text = "best epoch %d: validation accuracy %.2f %%; %.0f s in all"
    logger.info(text, result["best_epoch"], 100 * result["metrics"]["accuracy"], seconds)
    by_class = class_scores(np.array(result["metrics"]["confusion"]))
    if collapse := describe_collapse(by_class, data.class_names):
        logger.warning("%s", collapse)
    path, folder = context.path, sanitize(str(context.path))
    option = "" if split == "test" else f" --split {split}"
    logger.info("run: %s\nnext: python evaluate.py --run %s%s", folder, folder, option)
    logger.info("      tensorboard --logdir %s", sanitize(str(path.parent)))
    against = compare_with_baseline(path, data.validation, context.device)
    logger.info("%s", against or f"      {baseline_command(path)}")


@contextmanager
def _logged(path: Path, distributed: DistributedContext) -> Iterator[Callable[[], None]]:
    """Copy all log lines to train.log, including those from before the run's folder exists.

    Yields a function to call once it does.
    """
    lines = MemoryHandler(capacity=10_000, flushLevel=logging.CRITICAL + 1)

    def begin() -> None:
        if distributed.is_main:
            lines.setTarget(logging.FileHandler(path / "train.log", encoding="utf-8"))
            lines.flush()
            lines.capacity = 1  # write each further line at once

    logger.addHandler(lines)
    try:
        yield begin
    except Interrupted:
        raise
    except Exception:
        logger.debug("traceback:", exc_info=True)  # for train.log only
        raise
    finally:
        logger.removeHandler(lines)
        target = lines.target
        lines.close()
        if target is not None:
            target.close()


@contextmanager
def _explain_write_errors(path: Path) -> Iterator[None]:
    """Add to an error in writing how to resume."""
    previous = threading.excepthook

    def report(failure: threading.ExceptHookArgs) -> None:
        # OSErrors in TensorBoard's writer thread are raised again in the main thread.
        if not isinstance(failure.exc_value, OSError):
            previous(failure)

    threading.excepthook = report
    try:
        yield
    except OSError as error:
        text = " ".join(str(error).split())
        raise type(error)(
            f"training stopped: {text}; the last checkpoint is complete: once the cause is fixed, "
            f"resume with python train.py --resume {path}"
        ) from error
    finally:
        threading.excepthook = previous


def _train_until() -> int:
    """Train and kill this process after an update, to check that it can be resumed: ``python -m
    sentiment.cli.train UPDATE [OPTIONS]``.
    """
    from sentiment.cli.main import run_command

    last, request = int(sys.argv[1]), parse(sys.argv[2:], "train_until")

    def after_update(update: int) -> None:
        if update == last:
            kill_this_process()

    return run_command(lambda: execute(request, after_update))


if __name__ == "__main__":
    raise SystemExit(_train_until())
