"""The commands: what train.py, evaluate.py and ``sentiment`` do, and how they fail.

A mistake of the user's (settings, files, devices) ends in one line and exit status 1 or 2;
anything else is a bug of ours and keeps its traceback. torch and its like are imported inside the
functions, so that ``--help`` and a mistyped setting answer at once.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from logging.handlers import MemoryHandler
from pathlib import Path

from sentiment.config import Config, check_device_name
from sentiment.environment import prepare_environment
from sentiment.settings import parse_training

logger = logging.getLogger("sentiment")


def train(arguments: Sequence[str] | None = None, prog: str = "train.py") -> int:
    """Train a classifier as settings say; returns the exit status."""
    config, overwrite = parse_training(arguments, prog)
    return _report_mistakes(lambda: _train(config, overwrite))


def evaluate(arguments: Sequence[str] | None = None, prog: str = "evaluate.py") -> int:
    """Evaluate a trained run on a split; returns the exit status."""
    options = _evaluation_options(arguments, prog)
    return _report_mistakes(lambda: _evaluate(options))


def main(arguments: Sequence[str] | None = None) -> int:
    """The console command ``sentiment``."""
    commands = {"train": train, "evaluate": evaluate}
    parser = argparse.ArgumentParser(prog="sentiment", description="LSTM sentiment classifiers.")
    parser.add_argument("command", choices=commands, help="what to do; its own --help says more")
    given = list(sys.argv[1:] if arguments is None else arguments)
    command = parser.parse_args(given[:1]).command
    return commands[command](given[1:], f"sentiment {command}")


def _report_mistakes(command: Callable[[], None]) -> int:
    prepare_environment()  # before the commands import torch
    logging.basicConfig(format="%(message)s", stream=sys.stdout, level=logging.WARNING, force=True)
    logging.raiseExceptions = False  # a closed pipe behind us must not fill the screen
    logger.setLevel(logging.DEBUG)
    logging.getLogger().handlers[0].addFilter(lambda record: record.levelno >= logging.INFO)
    try:
        command()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except (ValueError, OSError, MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not _is_out_of_memory(error):
            raise
        logger.debug("what went wrong:", exc_info=True)  # for train.log alone
        text = " ".join(str(error).split()) or type(error).__name__
        hint = ": use a smaller model or batch" if _is_out_of_memory(error) else ""
        print(f"error: {text}{hint}", file=sys.stderr)
        return 1
    return 0


def _is_out_of_memory(error: Exception) -> bool:
    """torch says so on a CPU by a plain RuntimeError."""
    return isinstance(error, MemoryError) or ("memory" in str(error) and "alloc" in str(error))


def _train(config: Config, overwrite: bool) -> None:
    from sentiment.runs import build_model, check_place, create_run
    from sentiment.runtime import (
        describe_device,
        find_device,
        find_precision,
        set_up,
        use_allowed_cores,
    )
    from sentiment.text.pipeline import prepare_training
    from sentiment.training.journal import Journal
    from sentiment.training.trainer import Trainer

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
    logger.info("run: %s\nnext: python evaluate.py --run %s", path, path)
    logger.info("      tensorboard --logdir %s", path.parent)


def _evaluation_options(arguments: Sequence[str] | None, prog: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=prog, description="Evaluate a trained run.", allow_abbrev=False
    )
    parser.add_argument("--run", required=True, type=Path, help="the run's folder, runs/NAME")
    parser.add_argument(
        "--split",
        default="test",
        choices=("train", "validation", "test"),
        help="split to evaluate on (default: test)",
    )
    parser.add_argument(
        "--data.path",
        dest="data_path",
        metavar="PATH",
        help="folder with the split's reviews (default: the source the run was trained on)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        help="folder for report.json and predictions.csv (default: RUN/evaluation/SPLIT)",
    )
    parser.add_argument(
        "--checkpoint", default="best", choices=("best", "last"), help="weights (default: best)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps")
    options = parser.parse_args(arguments)
    try:
        check_device_name(options.device)
    except ValueError as error:
        parser.error(f"--{error}")
    return options


def _evaluate(options: argparse.Namespace) -> None:
    from dataclasses import replace

    from sentiment.evaluation.evaluate import predict_corpus
    from sentiment.evaluation.report import report_table, write_predictions, write_report
    from sentiment.runs import check_writable, load_run
    from sentiment.runtime import describe_device, find_device, use_allowed_cores
    from sentiment.text.pipeline import prepare_split

    started = time.perf_counter()
    use_allowed_cores()
    device = find_device(options.device)
    output = options.output or options.run / "evaluation" / options.split
    run = load_run(options.run, checkpoint=options.checkpoint)
    check_writable(output)
    data = run.config.data
    if options.data_path is not None:
        data = replace(data, path=options.data_path)
    reviews, corpus = prepare_split(data, options.split, run.vocabulary, run.class_names)
    predictions = predict_corpus(run.model.to(device), corpus, device=device)
    metrics = predictions.metrics()
    output.mkdir(parents=True, exist_ok=True)
    seconds = time.perf_counter() - started
    write_report(
        output / "report.json",
        metrics,
        split=options.split,
        data=reviews.origin,
        checkpoint=options.checkpoint,
        epoch=run.checkpoint.epoch,
        class_names=list(run.class_names),
        unknown_token_share=corpus.unknown_share(),
        cut_review_share=float((corpus.full_lengths > corpus.lengths).float().mean()),
        seconds=round(seconds, 2),
    )
    write_predictions(
        output / "predictions.csv",
        predictions,
        run.class_names,
        corpus.full_lengths.numpy(),
        (corpus.full_lengths > corpus.lengths).numpy(),
    )
    title = f"{options.run} ({options.checkpoint}) on {options.split}: {reviews.origin}"
    print(report_table(metrics, run.class_names, title))
    print(f"\n{seconds:.1f} s on {describe_device(device)}; report: {output / 'report.json'}")
