"""Options that several commands share."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn, TypeVar

from sentiment.config.bounds import Bounds
from sentiment.config.config import Config, check_device_name
from sentiment.config.parser import parse_training
from sentiment.display.console import sanitize
from sentiment.runtime.errors import UserError
from sentiment.runtime.files import beside

Number = TypeVar("Number", int, float)


class CommandParser(argparse.ArgumentParser):
    """An argument parser without abbreviations whose errors are one line.

    With ``raises``, they are a ``UserError`` instead of the end of the process.
    """

    raises = False

    def __init__(self, prog: str, description: str, *, epilog: str | None = None) -> None:
        super().__init__(prog=prog, description=description, epilog=epilog, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        if self.raises:
            raise UserError(f"{self.prog}: {sanitize(message)}")
        self.exit(2, f"{self.prog}: error: {sanitize(message)} (--help explains)\n")

    def add_run(self) -> None:
        self.add_argument("run", type=Path, metavar="RUN", help="the run's folder, runs/NAME")

    def add_output(self, help: str, name: str = "--output") -> None:
        self.add_argument(name, dest="output", type=Path, metavar="FOLDER", help=help)

    def add_count(self, name: str, default: int, help: str, *, metavar: str = "N") -> None:
        help = f"{help} (default: {default})"
        self.add_argument(name, type=positive, default=default, metavar=metavar, help=help)

    def add_split(self, default: str) -> None:
        splits = ("train", "validation", "test")
        help = f"split to read (default: {default})"
        self.add_argument("--split", default=default, choices=splits, help=help)

    def add_path(self, setting: str, help: str) -> None:
        """An option with a setting's name, as --data.path, for files that have moved."""
        name = setting.replace(".", "_")
        self.add_argument(f"--{setting}", dest=name, metavar="PATH", help=help)

    def add_checkpoint(self) -> None:
        choices, help = ("best", "last"), "weights to use (default: best)"
        self.add_argument("--checkpoint", default="best", choices=choices, help=help)

    def add_device(self, default: str | None, description: str) -> None:
        help = f"auto, cpu, cuda, cuda:1 or mps (default: {description})"
        self.add_argument("--device", default=default, type=_device_name, help=help)

    def add_model_options(self) -> None:
        self.add_checkpoint()
        self.add_device("auto", "auto")

    def add_precision(self) -> None:
        help = (
            "precision of matrix products; bf16 is about twice as fast where the processor "
            "supports it, and reports how far it moves the probabilities (default: fp32)"
        )
        self.add_argument("--precision", default="fp32", choices=("fp32", "bf16"), help=help)

    def parse_settings(self, arguments: Sequence[str], *, why: str) -> Config:
        """Settings given as for train; ``why`` is the error if a flag of train's is among them."""
        options = [action.dest for action in self._actions]
        request = parse_training(arguments, self.prog, more_options=options)
        if request.has_flags:
            self.error(why)
        return request.config

    def parse_with_settings(
        self, arguments: Sequence[str], *, suffix: str, why: str
    ) -> argparse.Namespace:
        """The options, the settings as ``config``, and the folder to write as ``output``.

        By default it is the settings' output_dir with a suffix. ``why`` as for parse_settings.
        """
        options, settings = self.parse_known_args(arguments)
        options.config = self.parse_settings(settings, why=why)
        folder = options.output or Path(beside(options.config.output_dir, suffix))
        options.output = folder.expanduser()
        return options


def _device_name(text: str) -> str:
    try:
        check_device_name(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def number(kind: Callable[[str], Number], bounds: Bounds) -> Callable[[str], Number]:
    """A type for ``add_argument``: numbers within bounds."""

    def convert(text: str) -> Number:
        try:
            value = kind(text)
            is_valid = bounds.allows(value)
        except ValueError:
            value, is_valid = kind("0"), False
        if not is_valid:
            noun = "an integer" if kind is int else "a number"
            expected = bounds.describe(value)
            raise argparse.ArgumentTypeError(f"{text!r}, but must be {noun}, {expected}")
        return value

    return convert


positive = number(int, Bounds(ge=1))
