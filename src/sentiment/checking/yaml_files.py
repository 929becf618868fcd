"""YAML files as plain mappings, with what YAML itself lets pass refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from sentiment.bounds import shortened
from sentiment.plain_yaml import parse_yaml


def read_mapping(path: Path) -> dict[Any, Any]:
    """Read a YAML file whose top is a mapping; nothing in it is executed.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not text, not YAML, not a mapping, has a key twice, or is out of all
            proportion.
    """
    try:
        values = parse_yaml(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is not there") from None
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: not a text file in UTF-8 (byte {error.start}): give files of behaviour tests "
            "(.yaml)"
        ) from error
    except yaml.YAMLError as error:
        raise ValueError(f"{path}{_where(error)}: not YAML: {_reason(error)}") from error
    if not isinstance(values, dict):
        kind = "nothing" if values is None else f"a {type(values).__name__}"
        raise ValueError(f"{path}: holds {kind}, but must hold keys and values, as capability: …")
    return values


def _where(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    return f", line {mark.line + 1}" if mark is not None else ""


def _reason(error: yaml.YAMLError) -> str:
    reason = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    return shortened(" ".join(str(reason).split()), 300)
