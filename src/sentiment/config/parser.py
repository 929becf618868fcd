"""Settings from a file and the command line: dotted overrides, one-line errors, nearest names."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, NoReturn, get_args, get_type_hints

import yaml
from jsonargparse import ActionConfigFile, ArgumentParser, Namespace, set_parsing_settings

from sentiment.config.config import WITHOUT_EFFECT, Config, flat_settings
from sentiment.config.yaml import read_yaml
from sentiment.display.console import did_you_mean, sanitize
from sentiment.runtime.errors import UserError
from sentiment.runtime.files import atomic_write, truncate_text

set_parsing_settings(docstring_parse_attribute_docstrings=True)

_LONGEST_MESSAGE = 600  # which may quote a whole file


class SettingsParser(ArgumentParser):
    """An argument parser whose errors are one message with the nearest valid choice."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        text = _plain(message)
        if not self.exit_on_error:
            raise UserError(text)
        hint = nearest_choice(text, ("config", *_OPTIONS, "print_config"))
        message = f"{self.prog}: error: {text}{hint}"
        sys.stderr.write(f"{sanitize(message)}\n")
        raise SystemExit(2)


def _plain(message: str) -> str:
    """One line without Python's own words for types; a union's five lines become its types."""
    text = re.sub(r"<class '(\w+)'>", r"\1", " ".join(str(message).split()))
    text = text.replace("typing.", "").replace("NoneType", "null")
    union = re.search(r"(.*?): Does not validate against any .* Given value: (.*)", text)
    if union:
        kinds = re.findall(r"- Expected an? (.+?)(?= - Expected| Given value|$)", text)
        text = f"{union.group(1)}: Expected {' or '.join(kinds)}. Got value: {union.group(2)}"
    return truncate_text(text, _LONGEST_MESSAGE)


class TrainingRequest(NamedTuple):
    """What ``train.py`` is asked for.

    Attributes:
        config: the settings.
        overwrites: whether an earlier run may be overwritten.
        resumes: whether the run in ``config.output_dir`` is to be continued.
        resumes_if_begun: whether it is, if there is one, and else a new one begun.
        verifies: whether resuming is to be proved on these settings.
    """

    config: Config
    overwrites: bool = False
    resumes: bool = False
    resumes_if_begun: bool = False
    verifies: bool = False


def settings_parser(prog: str) -> SettingsParser:
    """A parser of settings: a file, and any of them as an option."""
    parser = SettingsParser(
        prog=prog,
        allow_abbrev=False,
        description="Train an LSTM sentiment classifier.",
        epilog="Any setting of the file can be overridden: --training.num_epochs 3",
    )
    parser.add_argument("--config", action=SettingsFile, help="YAML file with settings.")
    return parser


def training_parser(prog: str) -> SettingsParser:
    """The parser of ``train.py`` and ``sentiment train``."""
    parser = settings_parser(prog)
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="Replace what an earlier run left in output_dir, and its own teachers if they differ.",
    )
    parser.add_argument(
        "--resume",
        metavar="RUN",
        help="Continue the run in this folder, with its settings.",
    )
    parser.add_argument(
        "--auto_resume",
        action="store_true",
        help="Continue the run in output_dir, or begin it: for a command that is started again.",
    )
    parser.add_argument(
        "--verify_resume",
        action="store_true",
        help="Train twice, once killed on the way and resumed, and compare the two.",
    )
    parser.add_class_arguments(Config, as_group=True)
    return parser


def parse_training(arguments: Sequence[str] | None, prog: str) -> TrainingRequest:
    """What a training run is to do.

    Exits with status 2 and one message for an unknown key, a wrong type, a value out of range or
    settings that contradict each other.
    """
    parser = training_parser(prog)
    try:
        namespace = parser.parse_args(arguments)
        options = [namespace.pop(name) for name in _OPTIONS]
        if sum(bool(each) for each in options) > 1:
            raise UserError("give one of --overwrite, --resume, --auto_resume, --verify_resume")
        overwrites, resumed, resumes_if_begun, verifies = options
        if resumed is not None:
            given = list(sys.argv[1:] if arguments is None else arguments)
            return TrainingRequest(_parse_resumed(parser, resumed, namespace, given), resumes=True)
        config = _given(parser, namespace)
        return TrainingRequest(config, overwrites, False, resumes_if_begun, verifies)
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))


def parse_settings(arguments: Sequence[str] | None, prog: str, description: str) -> Config:
    """Settings and nothing else, for a command that has no other options.

    Exits as :func:`parse_training` does.
    """
    parser = settings_parser(prog)
    parser.description = description
    parser.add_class_arguments(Config, as_group=True)
    try:
        return _given(parser, parser.parse_args(arguments))
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))


_OPTIONS = ("overwrite", "resume", "auto_resume", "verify_resume")
# What may be given anew to a run that is resumed: where things lie now. Reviews are compared.
_CHANGEABLE = WITHOUT_EFFECT - {"output_dir"} | {"data.path", "vectors.path"}


def _parse_resumed(
    parser: SettingsParser, run: str, namespace: Namespace, arguments: list[str]
) -> Config:
    """A run's settings, with those given anew that do not change what is learned."""
    if namespace.get("config"):
        raise UserError("--resume takes the run's own settings: leave --config out")
    own = load_config(Path(run).expanduser() / "config.yaml")
    text = yaml.safe_dump(_plain_values(own))
    namespace = parser.parse_args([f"--config={text}", *arguments])
    for name in _OPTIONS:
        namespace.pop(name)
    before, config = flat_settings(own), _to_config(parser, namespace)
    for key, value in flat_settings(config).items():
        if value != before[key] and key not in _CHANGEABLE:
            raise UserError(
                f"{key} is {value!r}, but the run to resume has {before[key]!r}: a resumed run "
                "must be as if it had never stopped; begin another one to change it"
            )
    return replace(config, output_dir=run)


def _given(parser: SettingsParser, namespace: Namespace) -> Config:
    """Settings as somebody gives them now, who is told what those of old runs may hold."""
    config = _to_config(parser, namespace)
    if config.distillation.teachers is not None and config.distillation.num_teachers > 0:
        raise UserError(
            f"distillation.num_teachers is {config.distillation.num_teachers}, but "
            "distillation.teachers names those to learn from: set it to 0, or name none"
        )
    return config


def _to_config(parser: SettingsParser, namespace: Namespace) -> Config:
    namespace.pop("config", None)
    for name, hint in get_type_hints(Config).items():
        if is_dataclass(hint) and not isinstance(namespace[name], Namespace):
            raise UserError(f"{name} is {namespace[name]!r}, but must be a section of settings")
    for key, hint in setting_keys().items():  # which jsonargparse lets pass for any of them
        if namespace[key] is None and type(None) not in get_args(hint):
            raise UserError(f"{key} is null, but must have a value: leave it out for its default")
    return Config(**parser.instantiate(namespace).as_dict())


def save_config(config: Config, path: Path) -> None:
    """Write all settings as a YAML file that ``--config`` reads back to the same settings."""
    values = _plain_values(config)
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    atomic_write(path, text.encode("utf-8"))


def _plain_values(config: Config) -> dict[str, Any]:
    """All settings as YAML can hold them."""
    values = asdict(config)
    names = values["data"]["class_names"]
    values["data"]["class_names"] = None if names is None else list(names)
    return values


# What runs of earlier versions were made with whose settings do not name it.
_EARLIER_DEFAULTS = ("--data.validation=random",)


def load_config(path: Path) -> Config:
    """A run's settings from its YAML file; keys it leaves out have the defaults of their time.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: the file is not a valid settings file; the message says why.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no settings file {path}")
    parser = settings_parser("config")
    parser.add_class_arguments(Config, as_group=True)
    parser.exit_on_error = False
    try:
        namespace = parser.parse_args([*_EARLIER_DEFAULTS, "--config", str(path)])
        return _to_config(parser, namespace)
    except ValueError as error:
        reason = truncate_text(str(error).removeprefix(f"{path}: "), _LONGEST_MESSAGE)
        raise UserError(f"{path} is not a valid settings file: {reason}") from error


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


def nearest_choice(message: str, options: Sequence[str]) -> str:
    """Hint at the key, or at the choice for a key, that a wrong one was probably meant to be.

    Args:
        message: what jsonargparse says.
        options: what there is beside the settings.
    """
    keys = setting_keys()
    unknown = _UNKNOWN_KEY.search(message)
    if unknown:
        name = next(group for group in unknown.groups() if group)
        section = re.search(r"Group '([\w.]+)'", message)
        if section:
            name = f"{section.group(1)}.{name}"
        return did_you_mean(name, [*keys, *options])
    wrong_value = re.search(r'key "([\w.]+)".*Got value: (\S+)', message)
    if wrong_value and "Expected tuple" in message:
        return " (a list, as [a, b])"
    if wrong_value:
        choices = [str(each) for each in _literal_values(keys.get(wrong_value.group(1)))]
        return did_you_mean(wrong_value.group(2), choices)
    return ""


def _literal_values(hint: Any) -> list[Any]:
    values: list[Any] = []
    for each in get_args(hint):
        values += _literal_values(each) if get_args(each) else [each]
    return [each for each in values if isinstance(each, str)]


# The one that jsonargparse's own loader is made of, so that both see the same keys.
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Base):
    """Takes no text for a date, as jsonargparse does not."""

    yaml_implicit_resolvers: ClassVar = {
        first: [each for each in resolvers if not each[0].endswith(":timestamp")]
        for first, resolvers in _Base.yaml_implicit_resolvers.items()
    }


class SettingsFile(ActionConfigFile):
    """The option ``--config`` of a parser of settings."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: Any = None) -> None:
        path = Path(values).expanduser()
        if _is_there(path):
            options = {action.dest for action in parser._actions}
            check_settings_file(path, options=options)
        super().__call__(parser, cfg, values, option_string)


def check_settings_file(path: Path, *, options: set[str]) -> None:
    """Refuse what is not a mapping of settings and sections of plain values.

    What is no setting at all is left to the parser, which knows the nearest one.

    Args:
        path: the file.
        options: all that the parser knows, settings or not.

    Raises:
        UserError: the file holds something else; the message is one line.
    """
    values = read_yaml(path, _Loader)
    if not isinstance(values, dict):
        raise UserError(f"{path} holds no settings: write a key and its value a line, as seed: 1")
    if "space" in values:
        raise UserError(f"{path} holds settings to search: give it to sentiment sweep")
    try:
        _check_mapping(values, options)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None


def _check_mapping(values: dict[Any, Any], options: set[str]) -> None:
    settings = {each.name for each in fields(Config)}
    hints = get_type_hints(Config)
    for key, value in values.items():
        name = str(key)
        first = name.split(".")[0]
        if first in options and first not in settings and value not in (None, False):
            raise UserError(f"{first} is no setting: give it on the command line, as --{first}")
        if name in settings and is_dataclass(hints[name]) and not isinstance(value, dict):
            raise UserError(f"{name} must be a section of settings, not a {type(value).__name__}")
        _refuse_classes(name, value)


def _refuse_classes(key: str, value: Any) -> None:
    if any(part == "class_path" or part.startswith("__") for part in key.split(".")):
        raise UserError(f"{truncate_text(key)} is no setting: a settings file cannot name classes")
    if isinstance(value, dict):
        for inner, each in value.items():
            _refuse_classes(f"{key}.{inner}", each)
    elif isinstance(value, list):
        for each in value:
            _refuse_classes(key, each)


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # settings themselves instead of a file's name
        return False
