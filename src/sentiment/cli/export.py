"""``sentiment export``: writes a run's model for onnxruntime or torch alone."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from sentiment.cli.options import CommandParser
from sentiment.runtime.errors import UserError

_SUFFIXES = {"onnx": ".onnx", "torch": ".pt"}
_DESCRIPTION = (
    "Write a run's model as one file that does not need this package: from token ids (batch, time) "
    "and lengths (batch,), both int64 and of any size, to logits (batch, classes). Its metadata "
    "holds the vocabulary, the names of the classes and the temperature. The file is written only "
    "if its logits equal the run's."
)


def parse(arguments: Sequence[str], prog: str) -> argparse.Namespace:
    parser = CommandParser(prog, _DESCRIPTION)
    parser.add_run()
    help = "onnx (for onnxruntime and others) or torch (for torch.jit.load)"
    parser.add_argument("--format", required=True, choices=tuple(_SUFFIXES), help=help)
    help = "file to write (default: RUN/export/model.onnx or .pt)"
    parser.add_argument("--output", type=Path, help=help)
    parser.add_checkpoint()
    options = parser.parse_args(arguments)
    suffix = _SUFFIXES[options.format]
    if options.output is None:
        options.output = options.run / "export" / f"model{suffix}"
    elif options.output.suffix != suffix:
        parser.error(f"--output {options.output}: the name must end in {suffix}")
    return options


def execute(options: argparse.Namespace) -> None:
    missing = [name for name in ("onnx", "onnxruntime") if find_spec(name) is None]
    if options.format == "onnx" and missing:
        raise UserError(
            f"{' and '.join(missing)} not installed: pip install {' '.join(missing)} (or --format "
            "torch, which needs no other package)"
        )

    from sentiment.display.console import sanitize
    from sentiment.inference.export import export_run
    from sentiment.runs.run import load_run
    from sentiment.runtime.device import prepare_threads
    from sentiment.runtime.files import check_writable

    started = time.perf_counter()
    prepare_threads()
    run = load_run(options.run, checkpoint=options.checkpoint)
    check_writable(options.output.parent)
    difference = export_run(run, options.output, options.format)
    seconds = time.perf_counter() - started
    print(
        f"{sanitize(str(options.output))}: {options.output.stat().st_size / 1e6:.1f} MB in "
        f"{seconds:.1f} s; logits within {difference:.1g} of the run's"
    )
