"""``sentiment audit``: a look at reviews before a training."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

from sentiment.cli.options import CommandParser


def parse(arguments: Sequence[str], prog: str) -> argparse.Namespace:
    parser = CommandParser(
        prog,
        "Look at reviews before training on them: classes, lengths, copies, damaged texts, words "
        "that give a class away, the vocabulary, and the labels that are most likely wrong.",
        epilog="Settings are given as for train: --config FILE, or singly, as --data.path PATH, "
        "for which DATA is short.",
    )
    parser.usage = f"{prog} [DATA] [--config FILE] [--section.key VALUE …] [options]"
    parser.add_output(
        "folder for audit.html and label_errors.csv (default: output_dir of the settings with "
        "-audit)"
    )
    help = "replace an earlier audit, including label_errors.csv, which you may have edited"
    parser.add_argument("--overwrite", action="store_true", help=help)
    why = "an audit cannot be resumed"
    named, paths = _name_path(arguments)
    if len(paths) > 1:
        parser.error(
            f"{' and '.join(paths)} are named, but one file or folder is audited at a time"
        )
    return parser.parse_with_settings(named, suffix="-audit", why=why)


def _name_path(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The arguments with each DATA, neither an option nor its value, as a setting; and these."""
    named, paths, takes_value = [], [], False
    for argument in arguments:
        is_option = argument.startswith("-")
        if not (is_option or takes_value):
            paths.append(argument)
            argument = f"--data.path={argument}"
        named.append(argument)
        takes_value = is_option and "=" not in argument and argument != "--overwrite"
    return named, paths


def execute(options: argparse.Namespace) -> None:
    from sentiment.audit.audit import audit
    from sentiment.audit.report import PAGE, TABLE, audit_table, check_replaceable, write_audit
    from sentiment.display.console import sanitize
    from sentiment.runtime.device import prepare_threads
    from sentiment.runtime.distributed import refuse_ranks

    refuse_ranks("an audit")
    started = time.perf_counter()
    prepare_threads()
    check_replaceable(options.output, overwrite=options.overwrite)
    result = audit(options.config)
    write_audit(result, options.output)
    print(audit_table(result))
    page, table = (sanitize(str(options.output / name)) for name in (PAGE, TABLE))
    print(f"\n{time.perf_counter() - started:.1f} s")
    print(f"page: {page}")
    if result.doubts:
        print(f"next: read {table}, delete the lines whose labels are right,")
        print(f"      train with --data.exclude {table}")
