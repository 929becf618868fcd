"""``sentiment baseline``: the linear model that an LSTM has to beat, in a minute."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from sentiment.cli.options import CommandParser
from sentiment.config.config import Config
from sentiment.config.parser import parse_training
from sentiment.runtime.errors import UserError

_DESCRIPTION = (
    "Train the linear model that a run has to beat, naive-Bayes-weighted n-grams and logistic "
    "regression, on the run's training reviews, and evaluate it on its validation reviews."
)
_EPILOG = (
    "Settings are given as to train: --config FILE, and any of them as --data.path FOLDER. Those "
    "of the data decide which reviews are read; the others have no effect."
)


class BaselineRequest(NamedTuple):
    """What is asked for: the settings, the folder to write, whether one there may be replaced."""

    config: Config
    path: Path
    overwrites: bool


def parse(arguments: Sequence[str] | None, prog: str) -> BaselineRequest:
    """The settings of the run to compare with, and the baseline's folder."""
    from sentiment.runtime.files import beside

    parser = CommandParser(prog, _DESCRIPTION)
    parser.usage = f"{prog} [--config FILE] [--section.key VALUE …] [options]"
    parser.epilog = _EPILOG
    parser.add_argument(
        "--output_dir",
        type=Path,
        metavar="FOLDER",
        help="the baseline's folder (default: output_dir of the settings with -baseline)",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace the baseline that is in the folder"
    )
    options, settings = parser.parse_known_args(arguments)
    request = parse_training(settings, prog)
    if request.resumes or request.resumes_if_begun or request.verifies:
        parser.error("a baseline is made in one go, and there is nothing to resume")
    config = request.config
    path = options.output_dir or Path(beside(config.output_dir, "-baseline"))
    return BaselineRequest(config, path.expanduser(), options.overwrite)


def execute(request: BaselineRequest) -> None:
    """Train and evaluate, print the table, and say how to compare."""
    from sentiment.baseline.train import baseline_table, train_baseline
    from sentiment.display.console import sanitize
    from sentiment.runtime.device import prepare_threads
    from sentiment.runtime.distributed import local_rank
    from sentiment.runtime.files import run_lock

    if local_rank() is not None:
        raise UserError("a baseline knows one process alone: call it without torchrun")
    started = time.perf_counter()
    prepare_threads()
    path = request.path
    with run_lock(path):
        trained = train_baseline(request.config, path, overwrite=request.overwrites)
    print(baseline_table(trained, time.perf_counter() - started))
    run = Path(request.config.output_dir).expanduser()
    when = "" if (run / "run.json").is_file() else ", once that run is trained"
    print(f"\nreport: {sanitize(str(path / 'evaluation' / 'validation' / 'report.html'))}")
    print(f"next: sentiment compare {sanitize(str(run))} {sanitize(str(path))}{when}")
