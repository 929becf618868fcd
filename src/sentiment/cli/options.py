"""What the commands' options have in common."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NoReturn

from sentiment.config.config import check_device_name
from sentiment.display.console import sanitize


class CommandParser(argparse.ArgumentParser):
    """An argument parser that takes no abbreviations and whose errors are one line."""

    def __init__(self, prog: str, description: str) -> None:
        super().__init__(prog=prog, description=description, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {sanitize(message)} (--help explains)\n")

    def add_run(self) -> None:
        """The run, as the first argument."""
        self.add_argument("run", type=Path, metavar="RUN", help="the run's folder, runs/NAME")

    def add_model_options(self) -> None:
        """Which weights, and where to compute."""
        self.add_argument(
            "--checkpoint",
            default="best",
            choices=("best", "last"),
            help="weights (default: best)",
        )
        self.add_argument(
            "--device",
            default="auto",
            type=_device_name,
            help="auto, cpu, cuda, cuda:1 or mps (default: auto)",
        )

    def add_precision(self) -> None:
        """In which arithmetic to compute."""
        self.add_argument(
            "--precision",
            default="fp32",
            choices=("fp32", "bf16"),
            help="arithmetic of matrix products; bf16 is about twice as fast where the processor "
            "has it, and says how far it moved the probabilities (default: fp32)",
        )


def _device_name(text: str) -> str:
    try:
        check_device_name(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def positive(text: str) -> int:
    """An integer of at least 1, as a type for ``add_argument``."""
    number = int(text) if text.isascii() and text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r}, but must be an integer of at least 1")
    return number
