"""``sentiment check``: tests of a run's behaviour."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sentiment.cli.options import CommandParser, file_options, number
from sentiment.config.sections import Bounds
from sentiment.runtime.errors import UserError

if TYPE_CHECKING:
    from sentiment.runs.run import Run


def parse(arguments: Sequence[str], prog: str) -> argparse.Namespace:
    parser = CommandParser(
        prog, "Test a run's behaviour with texts made from templates and with contrast pairs."
    )
    parser.add_run()
    help = "behaviour tests, .yaml (default: those that come with the program)"
    parser.add_argument("--tests", type=Path, nargs="+", metavar="FILE_OR_FOLDER", help=help)
    metavar = ("ORIGINAL", "CONTRAST")
    help = (
        "contrast pairs: two files of labelled texts (columns sentiment and text), row by row; "
        "without --tests, the behaviour tests are not run"
    )
    parser.add_argument("--pairs", type=Path, nargs=2, metavar=metavar, help=help)
    parser.add_file_options(with_label=True)
    metavar = ("negative=NAME", "positive=NAME")
    help = (
        "classes that the tests call negative and positive (default: by their names, or the first "
        "and second of two)"
    )
    parser.add_argument("--roles", type=_role, nargs=2, metavar=metavar, help=help)
    help = "exit with status 1 if a larger share of all cases fails, 0 to 1 (default: 1)"
    share, seed = number(float, Bounds(ge=0, le=1)), number(int, Bounds(ge=0, lt=10**18))
    parser.add_argument("--max-failure-rate", type=share, metavar="SHARE", help=help)
    help = "seed of the cases and typos (default: 0)"
    parser.add_argument("--seed", type=seed, default=0, help=help)
    parser.add_output("folder for check.json and check.html (default: RUN/evaluation/check)")
    parser.add_model_options()
    options = parser.parse_args(arguments)
    if options.roles and len(dict(options.roles)) < 2:
        parser.error(f"argument --roles: {options.roles[0][0]} is given twice")
    if options.max_failure_rate is not None and options.pairs and not options.tests:
        parser.error("--max-failure-rate is for behaviour tests: give --tests besides --pairs")
    return options


def execute(options: argparse.Namespace) -> None:
    from sentiment.behaviour.checks import read_pairs, run_behaviours, run_pairs
    from sentiment.behaviour.report import Check, report_text, write_reports
    from sentiment.behaviour.suite import (
        find_roles,
        read_behaviours,
        require_roles,
        shipped_behaviours,
    )
    from sentiment.display.console import sanitize
    from sentiment.inference.predictor import load
    from sentiment.runtime.device import describe_device, prepare_threads
    from sentiment.runtime.files import check_writable

    started = time.perf_counter()
    prepare_threads()
    output = options.output or options.run / "evaluation" / "check"
    paths = options.tests or ([] if options.pairs else [shipped_behaviours()])
    capabilities = read_behaviours(paths)  # first, so that mistakes in them show at once
    predictor = load(options.run, checkpoint=options.checkpoint, device=options.device)
    if not (options.tests or options.pairs):
        _require_english(predictor.run)
    check_writable(output)
    class_names, given = predictor.class_names, dict(options.roles or ())
    behaviours, sides = [], None
    if options.pairs:
        original, contrast = options.pairs
        sides = read_pairs(
            original, contrast, class_names, find_roles(class_names, given), file_options(options)
        )
    if capabilities:
        roles = require_roles(class_names, given)
        predict, seed = predictor.predict, options.seed
        behaviours = run_behaviours(capabilities, predict, class_names, roles, seed=seed)
    check = Check(
        run=str(options.run),
        checkpoint=options.checkpoint,
        epoch=predictor.run.checkpoint.epoch,
        seed=options.seed,
        behaviours=tuple(behaviours),
        pairs=run_pairs(sides, predictor.predict, class_names) if sides else None,
    )
    write_reports(check, output)
    print(report_text(check))
    seconds = time.perf_counter() - started
    page = sanitize(str(output / "check.html"))
    print(f"\n{seconds:.1f} s on {describe_device(predictor.device)}; page: {page}")
    failed, most = check.failed, options.max_failure_rate
    if most is not None and failed.share > most:
        raise UserError(
            f"{failed.count:,} of {failed.total:,} cases fail, {100 * failed.share:.2f} %: more "
            f"than --max-failure-rate {most}"
        )


def _require_english(run: Run) -> None:
    data = run.config.data
    if not data.may_be_english:
        raise UserError(
            f"the tests that come with the program are in English, but {run.path} has "
            f"data.language {data.language!r}: give tests in its language with --tests or --pairs"
        )


def _role(text: str) -> tuple[str, str]:
    role, equals, name = text.partition("=")
    if role not in ("negative", "positive") or not equals or not name:
        raise argparse.ArgumentTypeError(
            f"invalid value {text!r}: give negative=NAME positive=NAME"
        )
    return role, name
