"""``sentiment baseline``: the linear model that an LSTM has to beat, in under a minute."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sentiment.cli.options import CommandParser
from sentiment.config.config import DistillationConfig

if TYPE_CHECKING:
    from sentiment.baseline.train import Teachers


def parse(arguments: Sequence[str], prog: str) -> argparse.Namespace:
    parser = CommandParser(
        prog,
        "Train the linear model that a run has to beat, naive-Bayes-weighted n-grams and logistic "
        "regression, on the run's training reviews, and evaluate it on its validation reviews.",
        epilog="Settings are given as for train: --config FILE, or singly, as --data.path FOLDER. "
        "Those of the data decide which reviews are read, training.positive_class which class F1 "
        "is about; the others have no effect.",
    )
    parser.usage = f"{prog} [--config FILE] [--section.key VALUE …] [options]"
    parser.add_output(
        "the linear model's folder (default: output_dir of the settings with -baseline, or with "
        "-student if it has teachers)",
        "--output_dir",
    )
    help = "replace the linear model in the folder"
    parser.add_argument("--overwrite", action="store_true", help=help)
    help = (
        "runs and linear models whose mean probabilities label the source's unlabelled reviews, "
        "to learn from these too"
    )
    parser.add_argument("--teachers", nargs="+", type=Path, default=[], metavar="FOLDER", help=help)
    why = "a baseline cannot be resumed"
    has_teachers = bool(parser.parse_known_args(arguments)[0].teachers)
    suffix = "-student" if has_teachers else "-baseline"
    return parser.parse_with_settings(arguments, suffix=suffix, why=why)


def execute(options: argparse.Namespace) -> None:
    from sentiment.baseline.train import baseline_table, train_baseline
    from sentiment.display.console import sanitize
    from sentiment.runtime.device import prepare_threads
    from sentiment.runtime.distributed import refuse_ranks
    from sentiment.runtime.files import run_lock

    refuse_ranks("a baseline")
    started = time.perf_counter()
    prepare_threads()
    folder, run = options.output, Path(options.config.output_dir).expanduser()
    teachers = _find_teachers(options) if options.teachers else None
    with run_lock(folder):
        trained = train_baseline(
            options.config, folder, overwrite=options.overwrite, teachers=teachers
        )
    print(baseline_table(trained, time.perf_counter() - started))
    when = "" if (run / "run.json").is_file() else ", once that run is trained"
    print(f"\nreport: {sanitize(str(folder / 'evaluation' / 'validation' / 'report.html'))}")
    print(f"next: sentiment compare {sanitize(str(run))} {sanitize(str(folder))}{when}")


def _find_teachers(options: argparse.Namespace) -> Teachers:
    """The models of ``--teachers``, whose folders and runs are checked."""
    from sentiment.baseline.train import Teachers
    from sentiment.runtime.device import find_device
    from sentiment.training.distillation import (
        check_named_teachers,
        describe_teachers,
        label_reviews,
    )

    folders = tuple(map(str, options.teachers))
    student = replace(
        options.config,
        output_dir=str(options.output),
        distillation=DistillationConfig(teachers=folders),
        objectives=replace(options.config.objectives, unlabelled=True),
    )
    check_named_teachers(student)
    device = find_device(student.device)
    return Teachers(describe_teachers(student), partial(label_reviews, student, device=device))
