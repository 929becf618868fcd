"""Settings from a YAML file and dotted command-line overrides, typed and checked.

jsonargparse does the parsing; this module adds what its users should not have to know: which known
key is nearest to an unknown one, and that a setting out of range is a mistake of the command line
(exit status 2), not a crash.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, NoReturn, get_args, get_type_hints

import yaml
from jsonargparse import ArgumentParser, Namespace, set_parsing_settings

from sentiment.config import Config
from sentiment.shown import printable

set_parsing_settings(docstring_parse_attribute_docstrings=True)

# jsonargparse's phrases for a key it does not know, each with the key in its first group.
_UNKNOWN_KEY = re.compile(
    r"does not accept option '([^']+)'|Option '([^']+)' is not accepted"
    r"|unrecognized arguments: (?:--)?([^\s=]+)"
)


def setting_keys(config_class: type = Config, prefix: str = "") -> dict[str, Any]:
    """All dotted keys of the settings with their types, sections resolved."""
    hints = get_type_hints(config_class)
    keys: dict[str, Any] = {}
    for each in fields(config_class):
        key = prefix + each.name
        if is_dataclass(hints[each.name]):
            keys.update(setting_keys(hints[each.name], key + "."))
        else:
            keys[key] = hints[each.name]
    return keys


class SettingsParser(ArgumentParser):
    """An argument parser whose errors are one message with the nearest valid choice."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        text = _plain(message)
        if not self.exit_on_error:
            raise ValueError(text)
        message = f"{self.prog}: error: {text}{_nearest_choice(text)}"
        sys.stderr.write(f"{printable(message)}\n")
        raise SystemExit(2)


def _plain(message: str) -> str:
    """One line without Python's own words for types; a union's five lines become its types."""
    text = re.sub(r"<class '(\w+)'>", r"\1", " ".join(str(message).split()))
    text = text.replace("typing.", "").replace("NoneType", "null")
    union = re.search(r"(.*?): Does not validate against any .* Given value: (.*)", text)
    if union:
        kinds = re.findall(r"- Expected an? (.+?)(?= - Expected| Given value|$)", text)
        text = f"{union.group(1)}: Expected {' or '.join(kinds)}. Got value: {union.group(2)}"
    return text


def _nearest_choice(message: str) -> str:
    """Hint at the key, or at the choice for a key, that a wrong one was probably meant to be."""
    keys = setting_keys()
    unknown = _UNKNOWN_KEY.search(message)
    if unknown:
        name = next(group for group in unknown.groups() if group)
        section = re.search(r"Group '([\w.]+)'", message)
        if section:
            name = f"{section.group(1)}.{name}"
        return _did_you_mean(name, [*keys, "config", "overwrite", "print_config"])
    wrong_value = re.search(r'key "([\w.]+)".*Got value: (\S+)', message)
    if wrong_value:
        choices = [str(each) for each in _literal_values(keys.get(wrong_value.group(1)))]
        return _did_you_mean(wrong_value.group(2), choices)
    return ""


def _literal_values(hint: Any) -> list[Any]:
    values: list[Any] = []
    for each in get_args(hint):
        values += _literal_values(each) if get_args(each) else [each]
    return [each for each in values if isinstance(each, str)]


def _did_you_mean(name: str, choices: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
    if not near:  # A key given without its section: compare the last parts.
        last = {choice.rsplit(".", 1)[-1]: choice for choice in choices}
        near = [
            last[match]
            for match in difflib.get_close_matches(name.rsplit(".", 1)[-1], last, n=1, cutoff=0.6)
        ]
    return f" (did you mean {near[0]}?)" if near else ""


def training_parser(prog: str) -> SettingsParser:
    """The parser of ``train.py`` and ``sentiment train``."""
    parser = SettingsParser(
        prog=prog,
        allow_abbrev=False,
        description="Train an LSTM sentiment classifier.",
        epilog="Any setting of the file can be overridden: --training.num_epochs 3",
    )
    parser.add_argument("--config", action="config", help="YAML file with settings.")
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="Replace what an earlier run left in output_dir.",
    )
    parser.add_class_arguments(Config, as_group=True)
    return parser


def parse_training(arguments: Sequence[str] | None, prog: str) -> tuple[Config, bool]:
    """Settings of a training run, and whether an earlier run may be overwritten.

    Exits with status 2 and one message for an unknown key, a wrong type, a value out of range or
    settings that contradict each other.
    """
    parser = training_parser(prog)
    try:
        namespace = parser.parse_args(arguments)
        overwrite = namespace.pop("overwrite")
        return _to_config(parser, namespace), overwrite
    except ValueError as error:
        parser.error(str(error))


def _to_config(parser: SettingsParser, namespace: Namespace) -> Config:
    namespace.pop("config", None)
    for name, hint in get_type_hints(Config).items():
        if is_dataclass(hint) and not isinstance(namespace[name], Namespace):
            raise ValueError(f"{name} is {namespace[name]!r}, but must be a section of settings")
    return Config(**parser.instantiate(namespace).as_dict())


def save_config(config: Config, path: Path) -> None:
    """Write all settings as a YAML file that ``--config`` reads back to the same settings."""
    values = asdict(config)
    names = values["data"]["class_names"]
    values["data"]["class_names"] = None if names is None else list(names)
    path.write_text(yaml.safe_dump(values, sort_keys=False, allow_unicode=True), encoding="utf-8")


def load_config(path: Path) -> Config:
    """Settings from a YAML file; keys it leaves out have their defaults.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not a valid settings file; the message says why.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no settings file {path}")
    parser = training_parser("config")
    parser.exit_on_error = False
    try:
        namespace = parser.parse_args(["--config", str(path)])
        namespace.pop("overwrite")
        return _to_config(parser, namespace)
    except ValueError as error:
        raise ValueError(f"{path} is not a valid settings file: {error}") from error
