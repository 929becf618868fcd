"""Settings from files and command lines: dotted overrides, one-line errors, nearest names."""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, get_args, get_type_hints

import yaml
from jsonargparse import (
    ActionConfigFile,
    ArgumentParser,
    Namespace,
    set_loader,
    set_parsing_settings,
)

from sentiment.config.config import WITHOUT_EFFECT, Config, flat_settings
from sentiment.config.yaml import StrictLoader, read_yaml
from sentiment.display.console import did_you_mean, sanitize, truncate
from sentiment.runtime.errors import UserError
from sentiment.runtime.files import atomic_write, find_earlier


def _load_yaml(text: str) -> Any:
    """Parse an option's value as jsonargparse's own loader does, which fails on ``{-1: null}``."""
    value = yaml.load(text, Loader=StrictLoader)
    is_key = isinstance(value, dict) and value and all(item is None for item in value.values())
    if is_key and (":" not in text or text.strip().endswith(":")):
        return text  # such as a path, C:
    return value


set_parsing_settings(docstring_parse_attribute_docstrings=True)
set_loader("yaml", _load_yaml, exceptions=(yaml.YAMLError,))

_MAX_MESSAGE = 600  # characters; jsonargparse may quote a whole file
_FLAGS = {
    "overwrite": "Replace the run in output_dir, and its own teachers if their settings differ.",
    "resume": "Continue the run in this folder, with its settings.",
    "auto_resume": "Continue the run in output_dir if there is one, else begin it: for a "
    "command that is started repeatedly.",
    "verify_resume": "Train twice, killing and resuming the second training, and compare results.",
}


class SettingsParser(ArgumentParser):
    """An argument parser whose errors are one line with the nearest valid choice.

    ``more_options`` are options of another parser that the hint may suggest too.
    """

    more_options: Sequence[str] = ()

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        text = _shorten(message)
        hint = _nearest_choice(text, ("config", "print_config", *_FLAGS, *self.more_options))
        if not self.exit_on_error:
            raise UserError(f"{text}{hint}")
        sys.stderr.write(f"{sanitize(f'{self.prog}: error: {text}{hint}')}\n")
        raise SystemExit(2)


def _shorten(message: str) -> str:
    """A message of jsonargparse on one line, with types in plain words."""
    text = re.sub(r"<class '(\w+)'>", r"\1", " ".join(str(message).split()))
    text = text.replace("typing.", "").replace("NoneType", "null")
    union = re.search(r"(.*?): Does not validate against any .* Given value: (.*)", text)
    if union:
        types = re.findall(r"- Expected an? (.+?)(?= - Expected| Given value|$)", text)
        text = f"{union.group(1)}: Expected {' or '.join(types)}. Got value: {union.group(2)}"
    return truncate(text, _MAX_MESSAGE)


class TrainingRequest(NamedTuple):
    """The settings and flags of ``train.py``."""

    config: Config
    overwrites: bool = False  # replaces an earlier run
    resumes: bool = False  # continues the run in config.output_dir
    resumes_if_begun: bool = False  # continues it if it exists, else begins it
    verifies: bool = False  # proves on these settings that resuming is exact

    @property
    def has_flags(self) -> bool:
        return any(self[1:])


@functools.cache  # building one takes three times as long as parsing a file
def _settings_parser(prog: str, description: str, *, with_flags: bool = False) -> SettingsParser:
    parser = SettingsParser(
        prog=prog,
        allow_abbrev=False,
        description=description,
        epilog="Any setting of the file can be overridden: --training.num_epochs 3",
    )
    parser.add_argument("--config", action=SettingsFile, help="YAML file with settings.")
    for name, help in _FLAGS.items() if with_flags else ():
        if name == "resume":
            parser.add_argument("--resume", metavar="RUN", help=help)
        else:
            parser.add_argument(f"--{name}", action="store_true", help=help)
    parser.add_class_arguments(Config, as_group=True)
    return parser


def parse_training(
    arguments: Sequence[str] | None,
    prog: str,
    *,
    more_options: Sequence[str] = (),
    exit_on_error: bool = True,
) -> TrainingRequest:
    """The settings and flags of a training; invalid ones end the process with exit status 2.

    ``more_options`` are suggested too if an option is unknown. Without ``exit_on_error``, invalid
    options raise ``UserError`` or ``FileNotFoundError``.
    """
    parser = _settings_parser(prog, "Train an LSTM sentiment classifier.", with_flags=True)
    parser.more_options = more_options
    parser.exit_on_error = exit_on_error
    try:
        arguments = _file_first(sys.argv[1:] if arguments is None else arguments)
        namespace = parser.parse_args(arguments)
        overwrites, resumed, resumes_if_begun, verifies = (namespace.pop(name) for name in _FLAGS)
        if sum(map(bool, (overwrites, resumed, resumes_if_begun, verifies))) > 1:
            raise UserError("give one of --overwrite, --resume, --auto_resume, --verify_resume")
        if resumed is not None:
            config = _resumed_config(parser, resumed, namespace, arguments)
            return TrainingRequest(config, resumes=True)
        config = _new_config(parser, namespace)
        return TrainingRequest(config, overwrites, False, resumes_if_begun, verifies)
    except (UserError, FileNotFoundError) as error:
        if not exit_on_error:
            raise
        parser.error(str(error))


def parse_settings(arguments: Sequence[str] | None, prog: str, description: str) -> Config:
    """The settings, for a command without other options; exits as :func:`parse_training` does."""
    parser = _settings_parser(prog, description)
    try:
        arguments = _file_first(sys.argv[1:] if arguments is None else arguments)
        return _new_config(parser, parser.parse_args(arguments))
    except (UserError, FileNotFoundError) as error:
        parser.error(str(error))


def _file_first(arguments: Sequence[str]) -> list[str]:
    """``--config`` before all others: options override the file wherever they stand."""
    files: list[str] = []
    others: list[str] = []
    for before, argument in zip(["", *arguments], arguments, strict=False):
        is_file = argument.startswith("--config=") or "--config" in (before, argument)
        (files if is_file else others).append(argument)
    return files + others


# Settings that may change when a run is resumed: where files lie. The reviews are compared.
_CHANGEABLE = WITHOUT_EFFECT - {"output_dir"} | {
    "data.path", "data.exclude", "vectors.path",
}  # fmt: skip


def _resumed_config(
    parser: SettingsParser, run: str, namespace: Namespace, arguments: list[str]
) -> Config:
    """A run's settings, changed by those of the command line that do not change the result."""
    if namespace.get("config"):
        raise UserError("--resume takes the run's own settings: leave --config out")
    folder = Path(run).expanduser()
    was_started = folder.is_dir() or find_earlier(folder) is not None
    if not (folder / "config.yaml").exists() and was_started:
        raise FileNotFoundError(
            f"the training of {run} has not begun yet: repeat the command that started it, which "
            "first resumes its pre-training or its teachers"
        )
    saved = load_config(folder / "config.yaml")
    text = yaml.safe_dump(asdict(saved))
    namespace = parser.parse_args([f"--config={text}", *arguments])
    for name in _FLAGS:
        namespace.pop(name)
    before, config = flat_settings(saved), _to_config(parser, namespace)
    for key, value in flat_settings(config).items():
        if key == "training.num_epochs" and value > before[key]:
            if not saved.training.is_open_ended:
                raise UserError(
                    f"training.num_epochs is {value}, but the learning rate of {run} falls to 0 "
                    f"within its {before[key]} (training.schedule {saved.training.schedule}): "
                    f"{start_anew(saved, run)}"
                )
        elif value != before[key] and key not in _CHANGEABLE:
            raise UserError(
                f"{key} is {value!r}, but the run to resume has {before[key]!r}: a resumed run "
                "must be as if it had never stopped; train a new run to change it"
            )
    return replace(config, output_dir=run)


def start_anew(config: Config, run: str | Path) -> str:
    """The options that train on from a run that cannot be continued, for messages."""
    options = f"--config {run}/config.yaml --training.init_from {run} --output_dir FOLDER"
    if config.pretraining.is_wanted:
        options += " --pretraining.path null --pretraining.num_epochs 0"
    return f"start a new run from its weights with {options}"


def _new_config(parser: SettingsParser, namespace: Namespace) -> Config:
    """The settings of a new run, checked more strictly than those of an earlier one."""
    config = _to_config(parser, namespace)
    if config.distillation.teachers is not None and config.distillation.num_teachers > 0:
        raise UserError(
            f"distillation.num_teachers is {config.distillation.num_teachers}, but "
            "distillation.teachers names some already: set distillation.num_teachers to 0, or "
            "distillation.teachers to null"
        )
    return config


def _to_config(parser: SettingsParser, namespace: Namespace) -> Config:
    namespace.pop("config", None)
    for name, hint in get_type_hints(Config).items():
        if is_dataclass(hint) and not isinstance(namespace[name], Namespace):
            raise UserError(f"{name} is {namespace[name]!r}, but must be a section of settings")
    for key, hint in setting_keys().items():  # jsonargparse lets null pass for any type
        if namespace[key] is None and type(None) not in get_args(hint):
            raise UserError(f"{key} is null, but must have a value: leave it out for its default")
    return Config(**parser.instantiate(namespace).as_dict())


def save_config(config: Config, path: Path) -> None:
    """Write all settings as a YAML file that ``--config`` reads back to the same settings."""
    atomic_write(path, as_yaml(config))


def as_yaml(config: Config) -> bytes:
    return yaml.safe_dump(asdict(config), sort_keys=False, allow_unicode=True).encode("utf-8")


# The defaults of earlier versions, for their runs whose settings files lack these keys.
_EARLIER_DEFAULTS = ("--data.validation=random", "--data.missing=skip")


def load_config(path: Path) -> Config:
    """A run's settings from its YAML file; missing keys get the defaults of earlier versions."""
    if not path.is_file():
        raise FileNotFoundError(f"no settings file {path}")
    parser = _settings_parser("config", "")
    parser.exit_on_error = False
    try:
        namespace = parser.parse_args([*_EARLIER_DEFAULTS, "--config", str(path)])
        return _to_config(parser, namespace)
    except UserError as error:
        reason = truncate(str(error).removeprefix(str(path)).lstrip(":, "), _MAX_MESSAGE)
        raise UserError(f"{path} is not a valid settings file: {reason}") from error


def setting_keys(config_class: Any = Config, prefix: str = "") -> dict[str, Any]:
    """All dotted keys of the settings with their types."""
    hints = get_type_hints(config_class)
    keys: dict[str, Any] = {}
    for field in fields(config_class):
        hint: Any = hints[field.name]
        if is_dataclass(hint):
            keys |= setting_keys(hint, f"{prefix}{field.name}.")
        else:
            keys[prefix + field.name] = hint
    return keys


# jsonargparse's phrases for an unknown key, with the key in one of the groups.
_UNKNOWN_KEY = re.compile(
    r"does not accept option '([^']+)'|Option '([^']+)' is not accepted"
    r"|unrecognized arguments: (?:--)?([^\s=]+)"
)


def _nearest_choice(message: str, options: Sequence[str]) -> str:
    """A hint at the key or choice nearest to a wrong one; ``options`` are not settings."""
    keys = setting_keys()
    unknown = _UNKNOWN_KEY.search(message)
    if unknown:
        name = next(group for group in unknown.groups() if group)
        section = re.search(r"Group '([\w.]+)'", message)
        if section:
            name = f"{section.group(1)}.{name}"
        return did_you_mean(name, [*keys, *options])
    wrong_value = re.search(r'key "([\w.]+)".*Got value: (\S+)', message)
    if wrong_value is None:
        return ""
    if "Expected tuple" in message:
        return " (a list, such as [a, b])"
    if "Expected dict" in message:
        return " (a mapping, such as {a: b, c: d})"
    choices = _literal_values(keys.get(wrong_value.group(1)))
    return did_you_mean(wrong_value.group(2), choices)


def _literal_values(hint: Any) -> list[str]:
    values: list[Any] = []
    for argument in get_args(hint):
        values += _literal_values(argument) if get_args(argument) else [argument]
    return [value for value in values if isinstance(value, str)]


class SettingsFile(ActionConfigFile):
    """The option ``--config``, which checks a file before jsonargparse reads it."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: Any = None) -> None:
        path = Path(values).expanduser()
        try:
            is_file = path.exists()
        except (OSError, ValueError):  # the values themselves, not a file's name
            is_file = False
        if is_file:
            _check_settings_file(path, options={action.dest for action in parser._actions})
        super().__call__(parser, cfg, values, option_string)


def _check_settings_file(path: Path, *, options: set[str]) -> None:
    """Refuse what is not a mapping of settings and sections of plain values.

    Unknown keys are left to the parser, which suggests one of its ``options`` or settings.
    """
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise UserError(f"{path} holds no settings: write a key and its value, such as seed: 1")
    if "space" in values:
        raise UserError(f"{path} holds settings to search: give it to sentiment sweep")
    hints = get_type_hints(Config)
    for key, value in values.items():
        name = str(key)
        first = name.split(".")[0]
        if first in options and first not in hints and value not in (None, False):
            raise UserError(f"{path}: {first} is not a setting: give it as --{first} instead")
        if is_dataclass(hints.get(name)) and not isinstance(value, dict):
            kind = type(value).__name__
            raise UserError(f"{path}: {name} must be a section of settings, not a {kind}")
        if (bad := _class_key(name, value)) is not None:
            raise UserError(
                f"{path}: {truncate(bad, 60)} is not a setting: a settings file cannot name Python "
                "classes"
            )


def _class_key(key: str, value: Any) -> str | None:
    """The first key at or below ``key`` by which jsonargparse would import a class, if any."""
    if any(part == "class_path" or part.startswith("__") for part in key.split(".")):
        return key
    if isinstance(value, dict):
        inner = [(f"{key}.{name}", inner) for name, inner in value.items()]
    else:
        inner = [(key, item) for item in value] if isinstance(value, list) else []
    return next(filter(None, (_class_key(*pair) for pair in inner)), None)
