"""``sentiment evaluate``: how good a run is on a split."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sentiment.cli.options import CommandParser, given_settings, positive

if TYPE_CHECKING:
    import torch

    from sentiment.data.reviews import Reviews
    from sentiment.evaluation.evaluate import Predictions
    from sentiment.evaluation.outputs import ReportHead
    from sentiment.evaluation.report import Evaluation
    from sentiment.runs.run import Run
    from sentiment.runtime.distributed import DistributedContext


class Outcome(NamedTuple):
    """An evaluation whose report is written."""

    run: Run
    reviews: Reviews
    evaluation: Evaluation
    report: Path  # the page
    text: str  # for the terminal


def parse(arguments: Sequence[str], prog: str, *, raises: bool = False) -> argparse.Namespace:
    """The options; invalid ones end the process or, with ``raises``, raise ``UserError``."""
    parser = CommandParser(prog, "Evaluate a trained run: table, report with figures, predictions.")
    parser.raises = raises
    help = "the run's folder, runs/NAME"
    parser.add_argument("folder", nargs="?", type=Path, metavar="RUN", help=help)
    parser.add_argument("--run", type=Path, help="the same, as an option")
    parser.add_split("test")
    parser.add_reading_settings("the run's source")
    parser.add_output(
        "folder for report.html, report.json, predictions.csv and TensorBoard's events (default: "
        "RUN/evaluation/SPLIT, events in RUN/tensorboard/evaluation-SPLIT; with --ensemble, "
        "-ensemble is added to both names)"
    )
    help = "also measure the accuracy on reviews truncated to each of these lengths"
    parser.add_argument(
        "--max_lengths", nargs="+", type=positive, default=[], metavar="TOKENS", help=help
    )
    parser.add_model_options()
    parser.add_ensemble()
    parser.add_precision()
    options = parser.parse_args(arguments)
    if (options.folder is None) == (options.run is None):
        parser.error("give the run's folder once: RUN or --run RUN")
    options.run = options.run or options.folder
    if options.ensemble and options.max_lengths:
        parser.error("--max_lengths measures the run alone: leave --ensemble out")
    return options


def execute(options: argparse.Namespace) -> None:
    outcome = evaluate(options)
    if outcome is not None:
        print(outcome.text)


def evaluate(options: argparse.Namespace) -> Outcome | None:
    """Evaluate a run and write its report; None on all ranks but the main one."""
    from sentiment.runtime.device import find_device, prepare_threads
    from sentiment.runtime.distributed import init_distributed, local_rank, local_size
    from sentiment.runtime.files import check_writable

    prepare_threads(local_size())
    device = find_device(options.device, local_rank())
    with init_distributed(uses_cuda=device.type == "cuda") as distributed:
        if distributed.is_main:
            for folder in _folders(options):
                check_writable(folder)
        return _evaluate(options, device, distributed)


def _evaluate(
    options: argparse.Namespace, device: torch.device, distributed: DistributedContext
) -> Outcome | None:
    from sentiment.data.pipeline import prepare_split
    from sentiment.data.reviews import reviews_fingerprint
    from sentiment.display.console import sanitize, wrap_text
    from sentiment.evaluation.evaluate import measure_rounding, predict_corpus
    from sentiment.evaluation.outputs import describe_run, write_evaluation
    from sentiment.evaluation.report import evaluate_predictions, report_table, truncation_table
    from sentiment.evaluation.slices import measure_truncation
    from sentiment.readers.sources import choose_reviews, has_split, is_same_source
    from sentiment.runs.initial import check_measured
    from sentiment.runs.run import load_run
    from sentiment.runtime.device import describe_device, find_inference_precision

    started = time.perf_counter()
    precision = find_inference_precision(options.precision, device)
    output, events = _folders(options)
    run = load_run(options.run, checkpoint=options.checkpoint)
    data, split = choose_reviews(run.config.data, options.split, given_settings(options))
    with distributed.local_main_first():
        reviews, corpus = prepare_split(data, split, run.vocabulary, run.class_names)
    is_own = is_same_source(data, run.config.data)
    if split == "validation" and is_own and not has_split(data, "validation"):
        check_measured(run.path, reviews_fingerprint(reviews))
    where: dict[str, Any] = {"device": device, "precision": precision, "distributed": distributed}
    positive = run.config.training.positive_index(run.class_names)
    predictions = predict_corpus(run.model.to(device), corpus, positive=positive, **where)
    truncations = measure_truncation(run.model, corpus, options.max_lengths, **where)
    if not distributed.is_main:
        return None
    is_exact = options.precision == "fp32"
    head = describe_run(
        run, checkpoint=options.checkpoint, split=options.split, origin=reviews.origin,
        is_own_data=is_own, device=describe_device(device),
        rounding=None if is_exact else measure_rounding(run.model, corpus, device),
    )  # fmt: skip
    temperature, threshold = run.checkpoint.temperature, run.checkpoint.threshold
    if options.ensemble:
        predictions, head = _average(options, run, predictions, reviews, head, device)
        temperature, threshold = 1.0, None  # the averaged predictions are calibrated
    evaluation = evaluate_predictions(
        predictions, reviews, corpus, temperature, fitted_here=head.is_validation,
        threshold=threshold,
    )  # fmt: skip
    seconds = time.perf_counter() - started
    write_evaluation(
        head, evaluation, output, truncations=truncations, seconds=seconds, events=events
    )
    report = output / "report.html"
    ranks = f", {distributed.world_size} ranks" if distributed.is_distributed else ""
    paragraphs = [
        report_table(evaluation, head.title),
        *([truncation_table(truncations)] if truncations else []),
        *map(wrap_text, [*head.notes, *evaluation.remarks]),
        f"{time.perf_counter() - started:.1f} s on {head.device}{ranks}\n"
        f"report: {sanitize(str(report))}",
    ]
    return Outcome(run, reviews, evaluation, report, "\n\n".join(paragraphs))


def _average(
    options: argparse.Namespace,
    run: Run,
    predictions: Predictions,
    reviews: Reviews,
    head: ReportHead,
    device: torch.device,
) -> tuple[Predictions, ReportHead]:
    """The predictions of a run averaged with those of ``--ensemble``, and a head that notes it."""
    from sentiment.inference.predictor import average_predictions, load_members
    from sentiment.runs.initial import check_measured
    from sentiment.runs.manifest import read_manifest

    members = load_members(options.ensemble, run, device, precision=options.precision)
    if head.is_validation:
        held_out = read_manifest(options.run)["data"]["validation"]
        for member in members:
            check_measured(member.path, held_out)
    own = predictions.calibrated(run.checkpoint.temperature)
    predictions, remark = average_predictions(options.run, own, members, reviews)
    return predictions, replace(head, remarks=[*head.remarks, remark])


def _folders(options: argparse.Namespace) -> tuple[Path, Path]:
    """The folders of the report and of TensorBoard's events."""
    if options.output is not None:
        return options.output, options.output / "tensorboard"
    name = f"{options.split}{'-ensemble' if options.ensemble else ''}"
    return options.run / "evaluation" / name, options.run / "tensorboard" / f"evaluation-{name}"
