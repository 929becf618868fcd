"""``sentiment baseline``: the linear model that an LSTM has to beat, in under a minute."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from sentiment.cli.options import CommandParser


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
        "the baseline's folder (default: output_dir of the settings with -baseline)", "--output_dir"
    )
    help = "replace the baseline in the folder"
    parser.add_argument("--overwrite", action="store_true", help=help)
    why = "a baseline cannot be resumed"
    return parser.parse_with_settings(arguments, suffix="-baseline", why=why)


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
    with run_lock(folder):
        trained = train_baseline(options.config, folder, overwrite=options.overwrite)
    print(baseline_table(trained, time.perf_counter() - started))
    when = "" if (run / "run.json").is_file() else ", once that run is trained"
    print(f"\nreport: {sanitize(str(folder / 'evaluation' / 'validation' / 'report.html'))}")
    print(f"next: sentiment compare {sanitize(str(run))} {sanitize(str(folder))}{when}")
