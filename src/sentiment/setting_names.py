"""The settings' dotted names, and which of them a wrong one was meant to be."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import Any, get_args, get_type_hints

from sentiment.config import Config
from sentiment.suggestions import did_you_mean

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
