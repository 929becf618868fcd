"""Options that several commands share."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, get_args

import yaml

from sentiment.config.config import Config, Missing, Quoting, check_device_name
from sentiment.config.parser import parse_training
from sentiment.config.sections import Bounds
from sentiment.config.yaml import StrictLoader
from sentiment.display.console import sanitize
from sentiment.runtime.errors import UserError
from sentiment.runtime.files import beside

if TYPE_CHECKING:
    from sentiment.readers.columns import FileOptions

Number = TypeVar("Number", int, float)


class CommandParser(argparse.ArgumentParser):
    """An argument parser without abbreviations whose errors are one line.

    With ``raises``, they raise ``UserError`` instead of ending the process.
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

    def add_file_options(self, *, with_label: bool = False) -> None:
        """How a file of texts is read; see :func:`file_options`."""
        help = (
            "column of the texts (default: text, review or another well-known name); given several "
            "times, these are joined"
        )
        self.add_argument("--text-column", action="append", default=[], metavar="NAME", help=help)
        self.set_defaults(label_column=None)
        if with_label:
            help = "column of the labels (default: label, sentiment or another well-known name)"
            self.add_argument("--label-column", metavar="NAME", help=help)
        help = "names of the columns of a file without a header, such as [id,text]"
        self.add_argument("--column-names", type=_names, metavar="NAMES", help=help)
        help = "character that separates values, or the word tab (default: detected)"
        self.add_argument("--delimiter", metavar="CHARACTER", help=help)
        help = "how quotes inside quoted values are written; none: quotes are not special"
        self.add_argument("--quoting", default="double", choices=get_args(Quoting), help=help)
        help = "encoding of a text file, such as cp1252 (default: utf-8)"
        self.add_argument("--encoding", help=help)

    def add_reading_settings(self, default: str) -> None:
        """The settings of the reviews that may differ from a run's; see :func:`given_settings`."""
        helps = {
            "path": f"file or folder with the reviews (default: {default})",
            "hub": "dataset of the hub, NAME or NAME:CONFIG",
            "text_column": "column of the texts, or several, such as [title,body]",
            "label_column": "column of the labels",
            "split_column": "column that says which rows train, validate and test",
            "column_names": "names of the columns of a file without a header, such as [label,text]",
            "delimiter": "character that separates values, or the word tab",
            "quoting": "double, backslash or none",
            "encoding": "encoding of text files, such as cp1252",
            "labels": "classes of labels that the run does not know, such as {0: neg, 2: null}",
            "missing": "error or skip: what to do with rows without a text",
        }
        kinds = {"labels": _mapping, "text_column": _names, "column_names": _names}
        choices = {"quoting": get_args(Quoting), "missing": get_args(Missing)}
        for name, help in helps.items():
            self.add_argument(
                f"--data.{name}", type=kinds.get(name, str), choices=choices.get(name),
                metavar="VALUE", help=help,
            )  # fmt: skip

    def add_checkpoint(self) -> None:
        choices, help = ("best", "last"), "weights to use (default: best)"
        self.add_argument("--checkpoint", default="best", choices=choices, help=help)

    def add_device(self, default: str | None, description: str) -> None:
        help = f"auto, cpu, cuda, cuda:1 or mps (default: {description})"
        self.add_argument("--device", default=default, type=_device_name, help=help)

    def add_model_options(self) -> None:
        self.add_checkpoint()
        self.add_device("auto", "auto")

    def add_ensemble(self) -> None:
        help = (
            "other runs and linear models (sentiment baseline) whose predictions are averaged with "
            "the run's"
        )
        self.add_argument(
            "--ensemble", nargs="+", type=Path, default=[], metavar="FOLDER", help=help
        )

    def add_precision(self) -> None:
        help = (
            "precision of matrix products; bf16 is faster where the processor supports it, and "
            "its effect on the probabilities is reported (default: fp32)"
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


def file_options(options: argparse.Namespace) -> FileOptions:
    """How to read a file, from the options of ``add_file_options``."""
    from sentiment.readers.columns import FileOptions

    names = options.column_names
    return FileOptions(  # which checks them
        text_column=tuple(options.text_column),
        label_column=options.label_column,
        column_names=(names,) if isinstance(names, str) else names,
        delimiter=options.delimiter,
        quoting=options.quoting,
        encoding=options.encoding,
    )


def given_settings(options: argparse.Namespace) -> dict[str, Any]:
    """The settings given to ``add_reading_settings``'s options, under their names in data."""
    settings = {key.partition(".")[2]: value for key, value in vars(options).items() if "." in key}
    return {name: value for name, value in settings.items() if value is not None}


def given_file_options(options: argparse.Namespace) -> dict[str, object]:
    """The options that say how a file is divided into values, if any was given."""
    given = {
        "--column-names": options.column_names,
        "--delimiter": options.delimiter,
        "--quoting": None if options.quoting == "double" else options.quoting,
        "--encoding": options.encoding,
    }
    return {name: value for name, value in given.items() if value is not None}


def _names(text: str) -> str | tuple[str, ...]:
    """A name, or names as [a,b]."""
    if not (text.startswith("[") and text.endswith("]")):
        return text
    return tuple(name.strip().strip("'\"") for name in text[1:-1].split(","))


def _mapping(text: str) -> dict[Any, Any]:
    try:
        value = yaml.load(text, Loader=StrictLoader)
    except yaml.YAMLError:
        value = None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(
            f"invalid value {text!r}: give a mapping, {{0: neg, 4: pos}}"
        )
    return value


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
            raise argparse.ArgumentTypeError(f"invalid value {text!r}: give {noun}, {expected}")
        return value

    return convert


positive = number(int, Bounds(ge=1))
