"""``sentiment predict``: classify texts, or files of any size."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sentiment.cli.options import CommandParser, file_options, given_file_options
from sentiment.display.console import progress_bar, sanitize, wrap_text
from sentiment.runtime.errors import UserError

if TYPE_CHECKING:
    from sentiment.inference.batch_predict import Progress
    from sentiment.inference.predictor import Predictor
    from sentiment.readers.blocks import Source
    from sentiment.runtime.distributed import DistributedContext


_DESCRIPTION = (
    "Classify texts: arguments, lines of standard input, or rows of a file. The output has a row "
    "for each input row, in the same order, with the input's columns and: predicted, probability "
    "(of that class), probability_NAME of each class, was_cut (whether the text was truncated). "
    "Without --output, a table on a terminal, else JSON Lines."
)


def parse(arguments: Sequence[str], prog: str) -> argparse.Namespace:
    parser = CommandParser(prog, _DESCRIPTION)
    parser.add_run()
    help = "texts; without any, or with -, lines of standard input"
    parser.add_argument("texts", nargs="*", default=[], metavar="TEXT", help=help)
    help = (
        "file of texts: .csv, .tsv, .json, .jsonl, .txt (a text per line), compressed (.gz, .bz2, "
        ".xz, .zip) or not; .parquet, .arrow"
    )
    parser.add_argument("--file", type=Path, help=help)
    parser.add_argument("--output", type=Path, help="file to write: .csv, .tsv, .jsonl or .parquet")
    parser.add_file_options()
    parser.add_argument("--prefix", default="", help="prefix of the added columns' names")
    help = "at an unreadable row: stop (default), or leave its predictions empty, with a message"
    parser.add_argument("--on-error", default="stop", choices=("skip", "stop"), help=help)
    again = parser.add_mutually_exclusive_group()
    help = "continue an interrupted output, or start a new one"
    again.add_argument("--resume", action="store_true", help=help)
    help = "replace the output once the new one is complete"
    again.add_argument("--overwrite", action="store_true", help=help)
    parser.add_count("--window", 20_000, "rows that are sorted by length and written together")
    parser.add_count("--batch-tokens", 30_000, "tokens in a batch, including padding")
    help = "do not divide logits by the run's temperature"
    parser.add_argument("--no-temperature", dest="calibrated", action="store_false", help=help)
    help = (
        "with two classes, lowest probability at which the positive one (training.positive_class "
        "of the run, or else the second) is predicted (default: predict the most probable class); "
        "evaluate shows the threshold with the best F1"
    )
    parser.add_argument("--threshold", type=float, metavar="P", help=help)
    parser.add_model_options()
    parser.add_ensemble()
    parser.add_precision()
    options = parser.parse_intermixed_args(arguments)  # texts may follow options
    if str(options.file) == "-":
        options.file = None
    if options.file is not None and options.texts:
        parser.error("give texts or --file, not both")
    if options.resume and (options.file is None or options.output is None):
        parser.error("--resume needs --file and --output")
    if options.overwrite and options.output is None:
        parser.error("--overwrite needs --output")
    return options


def execute(options: argparse.Namespace) -> None:
    from sentiment.inference.batch_predict import check_output
    from sentiment.inference.predictor import load
    from sentiment.runtime.device import find_device, prepare_threads
    from sentiment.runtime.distributed import init_distributed, local_rank, local_size

    source = _open_source(options)
    prepare_threads(local_size())
    device = find_device(options.device, local_rank())
    with init_distributed(uses_cuda=device.type == "cuda") as distributed:
        if distributed.is_distributed and (options.file is None or options.output is None):
            raise UserError("several ranks share a file: give --file and --output")
        if options.output is not None and distributed.is_main:
            again = {"resumes": options.resume, "overwrites": options.overwrite}
            check_output(options.output, options.file, **again)
        predictor = load(
            options.run,
            checkpoint=options.checkpoint,
            device=str(device),
            calibrated=options.calibrated,
            ensemble=options.ensemble,
            threshold=options.threshold,
            batch_tokens=options.batch_tokens,
            precision=options.precision,
        )
        if options.output is None:
            _predict_to_screen(options, source, predictor)
        else:
            _predict_to_file(options, source, predictor, distributed)
        if predictor.rounding is not None and distributed.is_main:
            print(wrap_text(str(predictor.rounding)), file=sys.stderr)


def _open_source(options: argparse.Namespace) -> Source:
    from sentiment.inference.batch_predict import TextsSource, read_lines
    from sentiment.readers.formats import open_source

    given = file_options(options)
    if options.file is not None:
        source = open_source(options.file, given)
        if note := source.describe():
            print(f"{options.file}: {note}", file=sys.stderr)
        return source
    column = (*given.text_columns, "text")[0]
    if options.texts and options.texts != ["-"]:
        return TextsSource("the command line", [options.texts], column)
    if sys.stdin.isatty():
        print("one text per line; Ctrl-D ends", file=sys.stderr)
    return TextsSource("standard input", read_lines(sys.stdin.fileno()), column)


def _predict_to_screen(options: argparse.Namespace, source: Source, predictor: Predictor) -> None:
    from sentiment.inference.batch_predict import Progress, predict_rows
    from sentiment.inference.outputs import AddedColumns, AnswerTable, JsonLinesStream, Output

    output: Output
    if sys.stdout.isatty():
        max_length = predictor.run.config.data.max_length
        output = AnswerTable(sys.stdout, predictor.class_names, max_length)
    else:
        added = AddedColumns(predictor.class_names, options.prefix)
        output = JsonLinesStream(sys.stdout.buffer, added)
    with progress_bar(is_hidden=True) as bar:
        done = predict_rows(
            source, output, predictor.predict, window=options.window,
            skips_bad_rows=options.on_error == "skip", begin_at=Progress({}), bar=bar,
        )  # fmt: skip
    if done.num_bad:
        print(_describe_empty(done), file=sys.stderr)
    if done.num_rows == 0 and options.file is not None:
        print(f"{sanitize(str(options.file))} has no rows", file=sys.stderr)


def _predict_to_file(
    options: argparse.Namespace,
    source: Source,
    predictor: Predictor,
    distributed: DistributedContext,
) -> None:
    from sentiment.inference.batch_predict import predict_to_file, shard_predict
    from sentiment.inference.outputs import AddedColumns
    from sentiment.runtime.device import describe_device

    started = time.perf_counter()
    is_file = options.file is not None
    shows_progress = is_file and distributed.is_main
    classify = predictor.predict
    if distributed.is_distributed:
        classify = partial(shard_predict, predictor, distributed)
    with progress_bar(
        desc="predicting", unit="review", is_hidden=not shows_progress, leave=False,
        dynamic_ncols=True,
    ) as bar:  # fmt: skip
        try:
            before, done = predict_to_file(
                source, options.output, classify,
                AddedColumns(predictor.class_names, options.prefix),
                request=_request(options, source, predictor, distributed) if is_file else None,
                resumes=options.resume, window=options.window,
                skips_bad_rows=options.on_error == "skip", bar=bar, distributed=distributed,
            )  # fmt: skip
        except KeyboardInterrupt:
            if shows_progress:
                bar.write("the same command with --resume continues", file=sys.stderr)
            raise
    if not distributed.is_main:
        return
    seconds = time.perf_counter() - started
    num_rows = done.num_rows - before.num_rows
    earlier = f" after {before.num_rows:,} earlier" if before.num_rows else ""
    ranks = f", {distributed.world_size} ranks" if distributed.is_distributed else ""
    speed = f"{num_rows / seconds:,.0f} reviews/s on {describe_device(predictor.device)}{ranks}"
    output = sanitize(str(options.output))
    print(f"{num_rows:,} rows{earlier} in {seconds:.1f} s, {speed}: {output}")
    if done.num_bad:
        print(_describe_empty(done))


def _describe_empty(done: Progress) -> str:
    counts = f"{done.num_bad:,} of {done.num_rows:,}"
    return f"rows without a text, or skipped, whose predictions are empty: {counts}"


def _request(
    options: argparse.Namespace,
    source: Source,
    predictor: Predictor,
    distributed: DistributedContext,
) -> dict[str, Any]:
    """Everything that decides the output's bytes, for --resume to compare."""
    from sentiment.inference.batch_predict import describe_file
    from sentiment.runs.weights import describe_weights, weights_path
    from sentiment.runtime.files import file_sha256

    run, weights = options.run, weights_path(options.run, options.checkpoint)
    ensemble = {str(path): describe_weights(path, "best")["sha256"] for path in options.ensemble}
    return {
        "the input": describe_file(options.file),
        "the run": {
            "run_sha256": file_sha256(run / "run.json"),  # which holds all other checksums
            "weights_sha256": file_sha256(weights),
        },
        "the temperature": predictor.temperature,
        "the device": predictor.device.type,
        "the number of ranks": distributed.world_size,
        "--text-column": ", ".join(source.text_columns),
        "--prefix": options.prefix,
        "--window": options.window,
        "--batch-tokens": options.batch_tokens,
        # Absent by default, so that outputs begun before these options existed can be continued.
        **({"--precision": options.precision} if options.precision != "fp32" else {}),
        **({"--threshold": options.threshold} if options.threshold is not None else {}),
        **({"the ensemble": ensemble} if ensemble else {}),
        **given_file_options(options),
    }
