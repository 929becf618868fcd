"""YAML files as plain mappings, with what YAML itself lets pass refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml


def read_mapping(path: Path) -> dict[Any, Any]:
    """Read a YAML file whose top is a mapping; nothing in it is executed.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not text, not YAML, not a mapping, or has a key twice.
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is not there") from None
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: not a text file in UTF-8 (byte {error.start}): give files of behaviour tests "
            "(.yaml)"
        ) from error
    try:
        _refuse_double_keys(path, yaml.compose(text, Loader=yaml.SafeLoader))
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{path}{_where(error)}: not YAML: {_reason(error)}") from error
    except RecursionError:
        raise ValueError(f"{path}: nested too deeply for a file of behaviour tests") from None
    except ValueError as error:  # of a date or a number that is none, or of ours
        raise ValueError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from error
    if not isinstance(values, dict):
        kind = "nothing" if values is None else f"a {type(values).__name__}"
        raise ValueError(f"{path}: holds {kind}, but must hold keys and values, as capability: …")
    return values


def _refuse_double_keys(path: Path, root: yaml.Node | None) -> None:
    """YAML forbids them, and PyYAML takes the last without a word."""
    waiting, seen = [root] if root is not None else [], set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:  # an alias, which may even be its own part
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
        elif isinstance(node, yaml.MappingNode):
            keys: set[str] = set()
            for key, value in node.value:
                name = key.value if isinstance(key, yaml.ScalarNode) else ""
                if name in keys:
                    line = key.start_mark.line + 1
                    raise ValueError(f"{path}: key {name!r} a second time in line {line}")
                keys |= {name} if name else set()
                waiting.append(value)


def _where(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    return f", line {mark.line + 1}" if mark is not None else ""


def _reason(error: yaml.YAMLError) -> str:
    reason = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    return " ".join(str(reason).split())
