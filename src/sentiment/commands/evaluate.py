"""``sentiment evaluate``: how good a run is on a split."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from sentiment.commands.options import CommandParser


def parse(arguments: Sequence[str] | None, prog: str) -> argparse.Namespace:
    """The options."""
    parser = CommandParser(prog, "Evaluate a trained run.")
    parser.add_argument("--run", required=True, type=Path, help="the run's folder, runs/NAME")
    parser.add_argument(
        "--split",
        default="test",
        choices=("train", "validation", "test"),
        help="split to evaluate on (default: test)",
    )
    parser.add_argument(
        "--data.path",
        dest="data_path",
        metavar="PATH",
        help="folder with the split's reviews (default: the source the run was trained on)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        help="folder for report.json and predictions.csv (default: RUN/evaluation/SPLIT)",
    )
    parser.add_model_options()
    return parser.parse_args(arguments)


def execute(options: argparse.Namespace) -> None:
    """Evaluate, print the table and write the report."""
    from dataclasses import replace

    from sentiment.evaluation.evaluate import predict_corpus
    from sentiment.evaluation.report import report_table, write_predictions, write_report
    from sentiment.runs import check_writable, load_run
    from sentiment.runtime import describe_device, find_device, use_allowed_cores
    from sentiment.text.pipeline import prepare_split

    started = time.perf_counter()
    use_allowed_cores()
    device = find_device(options.device)
    output = options.output or options.run / "evaluation" / options.split
    run = load_run(options.run, checkpoint=options.checkpoint)
    check_writable(output)
    data = run.config.data
    if options.data_path is not None:
        data = replace(data, path=options.data_path)
    reviews, corpus = prepare_split(data, options.split, run.vocabulary, run.class_names)
    predictions = predict_corpus(run.model.to(device), corpus, device=device)
    metrics = predictions.metrics()
    output.mkdir(parents=True, exist_ok=True)
    seconds = time.perf_counter() - started
    write_report(
        output / "report.json",
        metrics,
        split=options.split,
        data=reviews.origin,
        checkpoint=options.checkpoint,
        epoch=run.checkpoint.epoch,
        class_names=list(run.class_names),
        unknown_token_share=corpus.unknown_share(),
        cut_review_share=float(corpus.was_cut().float().mean()),
        seconds=round(seconds, 2),
    )
    write_predictions(
        output / "predictions.csv",
        predictions,
        run.class_names,
        corpus.full_lengths.numpy(),
        corpus.was_cut().numpy(),
    )
    title = f"{options.run} ({options.checkpoint}) on {options.split}: {reviews.origin}"
    print(report_table(metrics, run.class_names, title))
    print(f"\n{seconds:.1f} s on {describe_device(device)}; report: {output / 'report.json'}")
