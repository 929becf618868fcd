"""``sentiment doctor``: checks of the installation."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

from sentiment.cli.options import CommandParser
from sentiment.runtime.errors import UserError


def parse(arguments: Sequence[str], prog: str) -> argparse.Namespace:
    parser = CommandParser(
        prog,
        "Check the installation: versions, device, precision, threads, memory, folders, tokenizer "
        "and TensorBoard, the LSTM against its definitions, and a training of a few seconds in a "
        "temporary folder. What costs only speed or comfort is a warning; if a check fails, the "
        "exit status is 1.",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    return parser.parse_args(arguments)


def execute(options: argparse.Namespace) -> None:
    from sentiment.diagnostics import doctor

    started = time.perf_counter()
    results = {}
    for name, result in doctor.run_checks():
        results[name] = result
        if not options.json:
            print(doctor.format_result(name, result), flush=True)
    if options.json:
        print(doctor.results_json(results))
    elif text := doctor.format_advice(results):
        print(f"\n{text}")
    if count := doctor.count_failures(results):
        raise UserError(f"{count} of {len(results)} checks failed")
    if not options.json:
        print(f"\n{len(results)} checks passed in {time.perf_counter() - started:.0f} s")
