"""``sentiment find-lr``: a learning rate to begin with, by a range test."""

from __future__ import annotations

import argparse
import difflib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from sentiment.cli.options import CommandParser, positive
from sentiment.config.config import Config
from sentiment.config.parser import parse_training
from sentiment.runtime.errors import UserError

_DESCRIPTION = (
    "Train a fresh model for some updates with a rising learning rate, and suggest rates from "
    "the course of its loss (Smith 2017). No run is written or changed."
)
_EPILOG = (
    "Settings are given as to train: --config FILE, and any of them as --training.batch_size 32; "
    "sentiment train --help explains each."
)


class RangeRequest(NamedTuple):
    """What is asked for: the settings, and the options of the test."""

    config: Config
    output: Path
    lowest: float
    highest: float
    num_updates: int


def parse(arguments: Sequence[str] | None, prog: str) -> RangeRequest:
    """The options, and the settings of the training that a rate is wanted for."""
    parser = CommandParser(prog, _DESCRIPTION)
    parser.usage = f"{prog} [--config FILE] [--section.key VALUE …] [options]"
    parser.epilog = _EPILOG
    rates = (("lowest", 1e-6, "first"), ("highest", 1.0, "last"))
    for name, default, place in rates:
        parser.add_argument(
            f"--{name}",
            type=_rate,
            default=default,
            metavar="RATE",
            help=f"learning rate of the {place} update (default: {default:g})",
        )
    parser.add_argument(
        "--num_updates",
        type=positive,
        default=_NUM_UPDATES,
        metavar="N",
        help=f"updates from the one to the other (default: {_NUM_UPDATES})",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FOLDER",
        help="for the picture and the figures (default: output_dir with -find-lr)",
    )
    options, settings = parser.parse_known_args(arguments)
    if options.lowest >= options.highest:
        parser.error(f"--lowest is {options.lowest:g}, but must be below --highest")
    for each in settings:
        name = each.removeprefix("--").split("=")[0]
        # What is nearly one of these would else be told as a setting that is none.
        if name != each and (near := difflib.get_close_matches(name, vars(options), 1, cutoff=0.8)):
            parser.error(f"unknown option --{name} (did you mean --{near[0]}?)")
    request = parse_training(settings, prog)
    if request.overwrites or request.resumes or request.resumes_if_begun or request.verifies:
        parser.error("a range test begins with a fresh model and writes no run: give settings only")
    config = request.config
    output = options.output or Path(f"{config.output_dir.rstrip('/')}-find-lr")
    return RangeRequest(
        config, output.expanduser(), options.lowest, options.highest, options.num_updates
    )


_NUM_UPDATES = 1_000


def execute(request: RangeRequest) -> None:
    """Measure, write the picture and the figures, and say what to train with.

    Raises:
        FileExistsError: the folder for them holds a run.
    """
    from sentiment.display.console import sanitize
    from sentiment.runtime.device import (
        describe_device,
        find_device,
        find_precision,
        prepare_threads,
    )
    from sentiment.runtime.files import check_writable
    from sentiment.tuning.lr_finder import (
        measure_range,
        prepare_range,
        range_text,
        suggest,
        write_range,
    )

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("a range test is of one process: call it without torchrun")
    config = request.config
    check_writable(request.output)
    if (request.output / "run.json").exists():
        raise FileExistsError(f"{request.output} holds a run: choose another --output")
    prepare_threads()
    device = find_device(config.device)
    precision = find_precision(config.training.precision, device)
    print(f"device: {describe_device(device)}, {str(precision).removeprefix('torch.')}", flush=True)
    test = measure_range(
        config, prepare_range(config), device=device, precision=precision,
        lowest=request.lowest, highest=request.highest, num_updates=request.num_updates,
    )  # fmt: skip
    suggestions = suggest(test)
    picture = write_range(request.output, test, suggestions)
    print(range_text(test, suggestions))
    print(f"picture: {sanitize(str(picture))}")


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r}, but must be a number above 0")
    return rate
