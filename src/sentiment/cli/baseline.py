"""``sentiment baseline``: the linear model that an LSTM has to beat, in a minute."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from sentiment.cli.options import CommandParser


def parse(arguments: Sequence[str], prog: str) -> argparse.Namespace:
    """The options, the settings of the run to compare with, and the baseline's folder."""
    from sentiment.runtime.files import beside

    parser = CommandParser(
        prog,
        "Train the linear model that a run has to beat, naive-Bayes-weighted n-grams and logistic "
        "regression, on the run's training reviews, and evaluate it on its validation reviews.",
        epilog="Settings are given as to train: --config FILE, and any of them as --data.path "
        "FOLDER. Those of the data decide which reviews are read; the others have no effect.",
    )
    parser.usage = f"{prog} [--config FILE] [--section.key VALUE …] [options]"
    parser.add_output(
        "the baseline's folder (default: output_dir of the settings with -baseline)", "--output_dir"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace the baseline in the folder"
    )
    options, settings = parser.parse_known_args(arguments)
    options.config = parser.parse_settings(settings, why="a baseline cannot be resumed")
    folder = options.output_dir or Path(beside(options.config.output_dir, "-baseline"))
    options.output_dir = folder.expanduser()
    return options


def execute(options: argparse.Namespace) -> None:
    """Train and evaluate, and print the table."""
    from sentiment.baseline.train import baseline_table, train_baseline
    from sentiment.display.console import sanitize
    from sentiment.runtime.device import prepare_threads
    from sentiment.runtime.distributed import refuse_ranks
    from sentiment.runtime.files import run_lock

    refuse_ranks("a baseline")
    started = time.perf_counter()
    prepare_threads()
    folder, run = options.output_dir, Path(options.config.output_dir).expanduser()
    with run_lock(folder):
        trained = train_baseline(options.config, folder, overwrite=options.overwrite)
    print(baseline_table(trained, time.perf_counter() - started))
    when = "" if (run / "run.json").is_file() else ", once that run is trained"
    print(f"\nreport: {sanitize(str(folder / 'evaluation' / 'validation' / 'report.html'))}")
    print(f"next: sentiment compare {sanitize(str(run))} {sanitize(str(folder))}{when}")
