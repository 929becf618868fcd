"""``sentiment doctor``: whether the installation is sound, and what to mend."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

from sentiment.cli.options import CommandParser
from sentiment.runtime.errors import UserError

_DESCRIPTION = (
    "Examine the installation: versions, device, precision, threads, memory, folders, libraries "
    "at work, the LSTM against its definitions, and a training of a few seconds in a temporary "
    "folder. What costs speed or comfort is a note; what must be mended ends in exit status 1."
)


def parse(arguments: Sequence[str] | None, prog: str) -> argparse.Namespace:
    """The options."""
    parser = CommandParser(prog, _DESCRIPTION)
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    return parser.parse_args(arguments)


def execute(options: argparse.Namespace) -> None:
    """Examine, each finding shown as it comes, and say what to do.

    Raises:
        UserError: something must be mended.
    """
    from sentiment.diagnostics.doctor import advice, as_json, examine, num_to_mend, row

    started = time.perf_counter()
    findings = {}
    for name, finding in examine():
        findings[name] = finding
        if not options.json:
            print(row(name, finding), flush=True)
    if options.json:
        print(as_json(findings))
    elif text := advice(findings):
        print(f"\n{text}")
    if count := num_to_mend(findings):
        raise UserError(f"{count} of {len(findings)} checks found what must be mended")
    if not options.json:
        print(f"\nsound: {len(findings)} checks in {time.perf_counter() - started:.0f} s")
