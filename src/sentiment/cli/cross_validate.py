"""``sentiment cross-validate``: how good settings are, on folds held out in turn."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict

from sentiment.cli.options import CommandParser, number
from sentiment.config.sections import Bounds
from sentiment.runtime.errors import UserError


def parse(arguments: Sequence[str], prog: str) -> argparse.Namespace:
    parser = CommandParser(
        prog,
        "Train once for each fold, each time holding out one fold of the training reviews "
        "(divided as data.validation says), and evaluate every review with the model that has not "
        "seen it, beside a linear model of the same folds. The same command continues where it was "
        "stopped, and several at once, also on several machines, share the work.",
        epilog="Settings are given as for train: --config FILE, --training.num_epochs 3, "
        "--device cuda:1",
    )
    parser.usage = f"{prog} [--folds K] [--repeats R] [options] [--section.key VALUE …]"
    kind, help = number(int, Bounds(ge=2)), "number of folds, at least 2 (default: 5)"
    parser.add_argument("--folds", type=kind, default=5, metavar="K", help=help)
    help = "how often to divide the reviews into folds, with other seeds"
    parser.add_count("--repeats", 1, help, metavar="R")
    parser.add_output(
        "the cross-validation's folder (default: output_dir of the settings with -folds)",
        "--output_dir",
    )
    why = "a cross-validation resumes by itself and overwrites nothing: give settings only"
    options = parser.parse_with_settings(arguments, suffix="-folds", why=why)
    if options.config.data.num_folds is not None:
        parser.error("data.num_folds is set by --folds: leave it out")
    return options


def execute(options: argparse.Namespace) -> None:
    """Train the remaining folds; once all are trained, measure."""
    from sentiment.data.pipeline import load_training
    from sentiment.data.reviews import reviews_fingerprint
    from sentiment.display.console import sanitize, wrap_text
    from sentiment.readers.sources import has_split, source_name
    from sentiment.runtime.device import find_device, prepare_threads
    from sentiment.runtime.distributed import refuse_ranks
    from sentiment.runtime.files import check_writable, write_json
    from sentiment.tuning import cross_validation as cv
    from sentiment.tuning.trainings import folder_lock

    refuse_ranks("a cross-validation")
    config, folder = options.config, options.output
    if has_split(config.data, "validation"):
        raise UserError(
            f"{source_name(config.data)} has its own validation split, so no fold would be "
            "held out: give reviews without one with --data.path"
        )
    folds = cv.plan_folds(config, folder, options.folds, options.repeats)
    splits = load_training(folds[0].config)[:2]  # with all checks of a training
    cv.check_folds(folds)
    check_writable(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with folder_lock(folder):
        cv.check_definition(folder, config, options.folds, map(reviews_fingerprint, splits))
    signal = cv.train_folds(folder, folds, lambda line: print(line, flush=True))
    shown = sanitize(str(folder))
    if signal:
        print(f"stopped: the same command continues; results so far: {shown}")
        raise SystemExit(128 + signal)
    if remaining := cv.num_remaining(folder, folds):
        text = f"{remaining} of {len(folds)} folds are being trained by other processes: the same "
        print(wrap_text(f"{text}command shows the result when they have ended"))
        return
    prepare_threads()
    hold_out = config.data.describe_hold_out()
    with folder_lock(folder):  # other processes may finish at the same time
        device = find_device(config.device)
        predictions = cv.predict_out_of_fold(folds, [fold.run for fold in folds], device)
        linear = None
        if all(fold.has_baseline for fold in folds):
            linear = cv.predict_out_of_fold(folds, [fold.baseline for fold in folds], device)
        summary = cv.summarize(predictions, linear)
        cv.write_predictions(folder, predictions)
        write_json(folder / "report.json", {"hold_out": hold_out, **asdict(summary)})
    repeats = "" if options.repeats == 1 else f", {options.repeats} times over"
    title = f"{shown}\n{options.folds} folds held out {hold_out}{repeats}"
    print(f"\n{cv.summary_table(predictions, summary, title)}")
    print(f"\npredictions: {shown}/predictions.csv")
    print(f"curves of all folds: tensorboard --logdir {shown}/folds")
