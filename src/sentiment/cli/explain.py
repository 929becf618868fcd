"""``sentiment explain``: what each word contributed, and the LSTM's gates."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from zlib import crc32

from sentiment.cli.options import CommandParser, file_options, positive
from sentiment.runtime.errors import UserError

if TYPE_CHECKING:
    from sentiment.readers.columns import FileOptions

_LONGEST_NAME = 40


def parse(arguments: Sequence[str], prog: str) -> argparse.Namespace:
    parser = CommandParser(prog, "Show what each word of a text contributed, and the LSTM's gates.")
    parser.add_run()
    parser.add_argument("text", nargs="?", metavar="TEXT", help="the text, in quotes")
    help = "file to take the text from, as for predict"
    parser.add_argument("--file", type=Path, help=help)
    parser.add_argument("--row", type=positive, help="row of the file, from 1 without the header")
    parser.add_file_options()
    parser.add_output("folder for explain.html and explain.png (default: RUN/explanations/NAME)")
    help = (
        "integration steps to start with; more are taken until the completeness gap is at most "
        "1 %%, up to 16 times as many, or fewer for a text of thousands of words"
    )
    parser.add_count("--steps", 50, help, metavar="STEPS")
    parser.add_model_options()
    options = parser.parse_args(arguments)
    if (options.text is None) == (options.file is None):
        parser.error("give either the text in quotes, or --file with --row")
    if (options.file is None) != (options.row is None):
        parser.error("--file and --row belong together: --file reviews.csv --row 1")
    return options


def execute(options: argparse.Namespace) -> None:
    from sentiment.display.console import sanitize
    from sentiment.display.plots import save_figure
    from sentiment.explain.explain import explain
    from sentiment.explain.page import draw, write_explanation
    from sentiment.explain.terminal import render, wants_colors
    from sentiment.inference.predictor import load
    from sentiment.runtime.device import prepare_threads
    from sentiment.runtime.files import check_writable

    prepare_threads()
    text, name = options.text, None
    if text is None:
        text = _read_row(options.file, options.row, file_options(options))
        name = f"{options.file.stem}-{options.row}"
    output = options.output or options.run / "explanations" / (name or _name(text))
    predictor = load(options.run, checkpoint=options.checkpoint, device=options.device)
    check_writable(output)
    explanation = explain(predictor, text, steps=options.steps)
    origin = f"{options.run} ({options.checkpoint})"
    save_figure(draw(explanation), output / "explain.png")
    write_explanation(output / "explain.html", explanation, origin=origin)
    encoding = sys.stdout.encoding or "utf-8"
    shown = render(explanation, colors=wants_colors(sys.stdout))
    print(shown.encode(encoding, "replace").decode(encoding))
    print(f"\npicture: {sanitize(str(output / 'explain.png'))}")
    print(f"page: {sanitize(str(output / 'explain.html'))}")


def _read_row(path: Path, row: int, options: FileOptions) -> str:
    from sentiment.readers.formats import open_source

    num_rows = 0
    for block in open_source(path, options, others=[]).blocks(1_000):
        index, num_rows = row - block.first_row, block.last_row
        if row <= num_rows:
            if index in block.bad_rows:
                raise UserError(f"{block.place(index)}: {block.bad_rows[index]}")
            return str(block.texts[index])
    raise UserError(f"{path} has {num_rows:,} rows, but --row asks for {row:,}")


def _name(text: str) -> str:
    """A folder's name from the text's first words and a checksum."""
    start = "-".join(re.findall(r"\w+", text.lower()))[:_LONGEST_NAME].strip("-")
    digest = f"{crc32(text.encode('utf-8', 'surrogatepass')):08x}"
    return f"{start or 'text'}-{digest}"
