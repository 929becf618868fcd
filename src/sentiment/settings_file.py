"""A settings file, checked before jsonargparse reads it.

jsonargparse takes more from a file than settings: ``class_path`` imports any module, which runs it;
a file's name in the place of a section is opened, whatever it is; and options of the command line,
``overwrite`` among them, may stand in it. A file that comes with somebody's run must do none of it.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, ClassVar, get_type_hints

import yaml
from jsonargparse import ActionConfigFile

from sentiment.bounds import shortened
from sentiment.config import Config
from sentiment.plain_yaml import read_yaml

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
        ValueError: the file holds something else; the message is one line.
    """
    values = read_yaml(path, _Loader)
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds no settings: write a key and its value a line, as seed: 1")
    if "space" in values:
        raise ValueError(f"{path} holds settings to search: give it to sentiment sweep")
    try:
        _check_mapping(values, options)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _check_mapping(values: dict[Any, Any], options: set[str]) -> None:
    settings = {each.name for each in fields(Config)}
    hints = get_type_hints(Config)
    for key, value in values.items():
        name = str(key)
        first = name.split(".")[0]
        if first in options and first not in settings and value not in (None, False):
            raise ValueError(f"{first} is no setting: give it on the command line, as --{first}")
        if name in settings and is_dataclass(hints[name]) and not isinstance(value, dict):
            raise ValueError(f"{name} must be a section of settings, not a {type(value).__name__}")
        _refuse_classes(name, value)


def _refuse_classes(key: str, value: Any) -> None:
    if any(part == "class_path" or part.startswith("__") for part in key.split(".")):
        raise ValueError(f"{shortened(key)} is no setting: a settings file cannot name classes")
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
