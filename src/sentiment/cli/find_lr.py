"""``sentiment find-lr``: suggests a learning rate, by a range test."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from sentiment.cli.options import CommandParser, number
from sentiment.config.sections import Bounds


def parse(arguments: Sequence[str], prog: str) -> argparse.Namespace:
    parser = CommandParser(
        prog,
        "Train a new model for some updates with a rising learning rate, and suggest rates from "
        "the course of the loss (Smith 2017). No run is written or changed.",
        epilog="Settings are given as for train: --config FILE, or singly, as "
        "--training.batch_size 32; sentiment train --help explains each.",
    )
    parser.usage = f"{prog} [--config FILE] [--section.key VALUE …] [options]"
    for name, default, position in (("lowest", 1e-6, "first"), ("highest", 1.0, "last")):
        kind = number(float, Bounds(gt=0))
        help = f"learning rate of the {position} update (default: {default:g})"
        parser.add_argument(f"--{name}", type=kind, default=default, metavar="RATE", help=help)
    parser.add_count("--num_updates", 1_000, "updates from the lowest rate to the highest")
    parser.add_output("folder for the figure and its values (default: output_dir with -find-lr)")
    why = "a range test trains a new model and writes no run: give settings only"
    options = parser.parse_with_settings(arguments, suffix="-find-lr", why=why)
    if options.lowest >= options.highest:
        parser.error(f"--lowest is {options.lowest:g}, but must be below --highest")
    return options


def execute(options: argparse.Namespace) -> None:
    from sentiment.display.console import sanitize
    from sentiment.runtime.device import (
        describe_device,
        find_device,
        find_precision,
        prepare_threads,
    )
    from sentiment.runtime.distributed import refuse_ranks
    from sentiment.runtime.files import check_writable
    from sentiment.tuning import lr_finder

    refuse_ranks("a range test")
    config = options.config
    check_writable(options.output)
    if (options.output / "run.json").exists():
        raise FileExistsError(f"{options.output} holds a run: choose another --output")
    prepare_threads()
    device = find_device(config.device)
    precision = find_precision(config.training.precision, device)
    print(f"device: {describe_device(device)}, {str(precision).removeprefix('torch.')}", flush=True)
    test = lr_finder.measure_range(
        config, lr_finder.prepare_range(config), device=device, precision=precision,
        lowest=options.lowest, highest=options.highest, num_updates=options.num_updates,
    )  # fmt: skip
    suggestions = lr_finder.suggest(test)
    picture = lr_finder.write_range(options.output, test, suggestions)
    print(lr_finder.range_text(test, suggestions))
    print(f"picture: {sanitize(str(picture))}")
