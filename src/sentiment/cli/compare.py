"""``sentiment compare``: which of several runs is better, by paired tests."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from sentiment.cli.options import CommandParser, given_settings
from sentiment.runtime.errors import UserError


def parse(arguments: Sequence[str], prog: str) -> argparse.Namespace:
    parser = CommandParser(prog, "Compare trained runs on the same reviews.")
    parser.add_argument(
        "runs",
        nargs="+",
        type=Path,
        metavar="RUN",
        help="folder of a run or a baseline, folder that holds runs with several seeds, or "
        "cross-validations",
    )
    parser.add_split("validation")
    parser.add_reading_settings("the source of the first run")
    parser.add_output(
        "folder for compare.html and .json (default: FIRST_RUN/evaluation/compare-SPLIT-OTHERS)"
    )
    parser.add_model_options()
    return parser.parse_args(arguments)


def execute(options: argparse.Namespace) -> None:
    from sentiment.comparison import report, run_groups
    from sentiment.comparison.compare import compare
    from sentiment.display.console import sanitize
    from sentiment.runtime.device import describe_device, find_device, prepare_threads
    from sentiment.runtime.files import check_writable
    from sentiment.tuning.cross_validation import is_cross_validation

    if all(map(is_cross_validation, options.runs)):
        _compare_cross_validations(options.runs)
        return
    started = time.perf_counter()
    prepare_threads()
    device = find_device(options.device)
    output = options.output or _folder(options)
    groups = run_groups.load_groups(options.runs, checkpoint=options.checkpoint)
    check_writable(output)
    runs = [run for group in groups for run in group.runs]
    reviews, notes = run_groups.load_common_reviews(runs, options.split, given_settings(options))
    predictions = {
        group.name: run_groups.predict_group(group, reviews, device=device) for group in groups
    }
    comparison = compare(predictions)
    notes = [*notes, *run_groups.group_notes(groups), *report.caveats(comparison)]
    report.write_comparison(
        output, comparison, groups, predictions, reviews,
        split=options.split, checkpoint=options.checkpoint, notes=notes,
    )  # fmt: skip
    title = (
        f"{len(runs)} runs ({options.checkpoint}) on {options.split}: {len(reviews):,} reviews of "
        f"{reviews.origin}"
    )
    print(report.comparison_table(comparison, groups, title=title, notes=notes))
    seconds = time.perf_counter() - started
    page = sanitize(str(output / "compare.html"))
    print(f"\n{seconds:.1f} s on {describe_device(device)}; page: {page}")


def _compare_cross_validations(folders: Sequence[Path]) -> None:
    """Print how each cross-validation differs from the first, review by review."""
    from sentiment.tuning import cross_validation as cv

    if len(folders) < 2:
        raise UserError(f"{folders[0]} is one cross-validation: give another one too")
    first = cv.read_predictions(folders[0])
    differences = [cv.compare_out_of_fold(first, cv.read_predictions(path)) for path in folders[1:]]
    pairs = zip(differences, folders[1:], strict=True)
    texts = [cv.difference_text(difference, folders[0], path) for difference, path in pairs]
    print("\n\n".join(texts))


def _folder(options: argparse.Namespace) -> Path:
    """The default output folder, named after the split and the other runs."""
    others = [path.absolute().name for path in options.runs[1:]]
    name = "-".join(["compare", options.split, *others])
    return options.runs[0] / "evaluation" / name[:100]
