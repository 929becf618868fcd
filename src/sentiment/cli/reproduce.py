"""``sentiment reproduce``: train a run again from its provenance, and compare."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from sentiment.cli.options import CommandParser
from sentiment.runtime.errors import UserError

_DESCRIPTION = (
    "Train a finished run again from its provenance, and compare weights, metrics and curves of "
    "both. With the same data, versions, device and threads, they must be equal to the bit (on a "
    "CPU); otherwise, the new validation accuracy must lie in the run's 95 % interval. Other "
    "reviews or vectors are refused. If the runs differ, the exit status is 1."
)


def parse(arguments: Sequence[str], prog: str) -> argparse.Namespace:
    parser = CommandParser(prog, _DESCRIPTION)
    parser.add_run()
    parser.add_output("folder for the second training (default: a temporary one)")
    paths = {
        "data.path": "folder with the reviews",
        "data.cache_dir": "folder for tokens and downloads",
        "vectors.path": "file with the vectors",
    }
    for name, help in paths.items():  # which may have moved
        parser.add_argument(f"--{name}", metavar="PATH", help=f"{help} (default: as in the run)")
    parser.add_device(None, "the kind of device it was trained on")
    help = "print JSON; the training's output goes to standard error"
    parser.add_argument("--json", action="store_true", help=help)
    return parser.parse_args(arguments)


def execute(options: argparse.Namespace) -> None:
    from sentiment.diagnostics import reproduce
    from sentiment.display.console import sanitize
    from sentiment.runtime.distributed import refuse_ranks
    from sentiment.runtime.processes import Output

    refuse_ranks("reproduce, which starts the run's ranks itself,")
    given = {key: value for key, value in vars(options).items() if key == "device" or "." in key}
    overrides = {key: value for key, value in given.items() if value is not None}
    with tempfile.TemporaryDirectory(prefix="reproduce-") as folder:
        output = options.output or Path(folder) / "run"
        plan = reproduce.plan_reproduction(options.run, output, overrides)
        if not options.json:
            # Flushed, so that it comes before the training's own output.
            print(f"{reproduce.differences_text(plan)}\n", flush=True)
        shown: Output = "on stderr" if options.json else "shown"
        reproduction = reproduce.reproduce(plan, shown)
    sentence = reproduce.verdict_text(reproduction)
    if options.json:
        print(reproduce.reproduction_json(reproduction))
    else:
        print(f"\n{reproduce.reproduction_table(reproduction)}\n")
        if options.output is not None:
            print(f"trained again: {sanitize(str(options.output))}")
    if reproduction.verdict == "differs":
        raise UserError(sentence)
    if not options.json:
        print(sentence)
