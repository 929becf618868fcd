"""``sentiment cross-validate``: how good settings are on reviews held out fold by fold."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from sentiment.cli.options import CommandParser, positive
from sentiment.config.config import Config
from sentiment.config.parser import parse_training
from sentiment.runtime.errors import UserError

_DESCRIPTION = (
    "Train as many times as there are folds, each time holding out one fold of the training "
    "reviews (data.validation says by what), and measure every review by the model that had not "
    "seen it. The same command goes on where it was stopped, and several at once, also on several "
    "machines, share the work."
)
_EPILOG = "Settings are given as for train: --config FILE, --training.num_epochs 3, --device cuda:1"


class CrossValidationRequest(NamedTuple):
    """What is asked for."""

    config: Config
    folder: Path
    num_folds: int
    num_repeats: int


def parse(arguments: Sequence[str] | None, prog: str) -> CrossValidationRequest:
    """The options and the settings."""
    parser = CommandParser(prog, _DESCRIPTION)
    parser.usage = f"{prog} [--folds K] [--repeats R] [options] [--section.key VALUE …]"
    parser.epilog = _EPILOG
    parser.add_argument(
        "--folds", type=positive, default=5, metavar="K", help="folds, 2 or more (default: 5)"
    )
    parser.add_argument(
        "--repeats",
        type=positive,
        default=1,
        metavar="R",
        help="how often all reviews are divided anew, by other seeds (default: 1)",
    )
    parser.add_argument(
        "--output_dir",
        type=Path,
        metavar="FOLDER",
        help="the cross-validation's folder (default: that of the settings, with -folds)",
    )
    given = list(sys.argv[1:] if arguments is None else arguments)
    options, settings = parser.parse_known_args(given)
    if options.folds < 2:
        parser.error("--folds is 1, but there must be 2 or more, of which one is held out")
    request = parse_training(settings, prog)
    if request.overwrites or request.resumes or request.resumes_if_begun or request.verifies:
        parser.error("a cross-validation resumes by itself and overwrites nothing: leave it out")
    if request.config.data.num_folds is not None:
        parser.error("data.num_folds is set by --folds: leave it out")
    folder = options.output_dir or Path(f"{request.config.output_dir.rstrip('/')}-folds")
    return CrossValidationRequest(
        request.config, folder.expanduser(), options.folds, options.repeats
    )


def execute(request: CrossValidationRequest) -> None:
    """Train the folds that are left; once all are finished, measure.

    Raises:
        UserError: nothing is held out, there are too few groups for the folds, or a training
            failed.
    """
    from sentiment.data.reviews import load_training_splits, reviews_fingerprint
    from sentiment.display.console import sanitize
    from sentiment.runtime.device import find_device, prepare_threads
    from sentiment.runtime.files import check_writable
    from sentiment.tuning.cross_validation import (
        check_definition,
        plan_folds,
        predict_out_of_fold,
        train_folds,
        write_predictions,
    )
    from sentiment.tuning.folds_report import summarize, summary_table, write_summary
    from sentiment.tuning.trainings import folder_lock

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("a cross-validation starts its trainings itself: call it without torchrun")
    config, folder = request.config, request.folder
    _check_source(config)
    folds = plan_folds(config, folder, request.num_folds, request.num_repeats)
    splits = load_training_splits(folds[0].config.data)  # now: whether there are groups enough
    check_writable(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with folder_lock(folder):
        check_definition(folder, config, request.num_folds, map(reviews_fingerprint, splits))
    signal = train_folds(folder, folds, lambda line: print(line, flush=True))
    shown = sanitize(str(folder))
    if signal:
        print(f"stopped: the same command continues; results so far: {shown}")
        raise SystemExit(128 + signal)
    left = sum(not fold.is_trained for fold in folds)
    if left:
        text = f"{left} of {len(folds)} folds are being trained by other processes: the same"
        print(textwrap.fill(f"{text} command shows the result when they have ended", 80))
        return
    prepare_threads()
    hold_out = config.data.describe_hold_out()
    with folder_lock(folder):  # others that share the work may come to its end as well
        predictions = predict_out_of_fold(folds, find_device(config.device))
        summary = summarize(predictions)
        write_predictions(folder, predictions)
        write_summary(folder, summary, hold_out)
    repeats = "" if request.num_repeats == 1 else f", {request.num_repeats} times over"
    title = f"{shown}\n{request.num_folds} folds held out {hold_out}{repeats}"
    print(f"\n{summary_table(predictions, summary, title)}")
    print(f"\npredictions: {shown}/predictions.csv")
    print(f"curves of all folds: tensorboard --logdir {shown}/folds")


def _check_source(config: Config) -> None:
    from sentiment.data.sources import has_validation, source_name

    if has_validation(config.data):
        raise UserError(
            f"{source_name(config.data)} brings a validation split of its own, so no fold would be "
            "held out: give reviews without one by --data.path"
        )
