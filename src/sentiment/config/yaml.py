"""Strict YAML, for settings, search files and behaviour tests: checked before it is built."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar

import yaml

from sentiment.display.console import truncate
from sentiment.runtime.errors import UserError
from sentiment.runtime.files import read_text

_MAX_BYTES = 2**20  # PyYAML parses them in ten seconds; settings have a few thousand
_MAX_DEPTH = 20
_MAX_VALUES = 1_000_000  # including those that aliases repeat

_CLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class StrictLoader(_CLoader):
    """Reads what jsonargparse's loader reads: 1e-3 is a number, and nothing is a date."""

    yaml_implicit_resolvers: ClassVar = {
        first: [(tag, regexp) for tag, regexp in resolvers if not tag.endswith(":timestamp")]
        for first, resolvers in _CLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Refuse duplicate keys, which YAML forbids; PyYAML would silently take the last."""
        keys: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in keys:
                problem = f"the key {key.value!r} occurs twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            keys.add(key.value)
        return super().construct_mapping(node, deep)


StrictLoader.add_implicit_resolver(  # YAML 1.1 wants 1.0e-3
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+"), list("-+0123456789")
)


def read_yaml(path: Path) -> Any:
    """The values of a YAML file; nothing in it is executed.

    Raises ``UserError`` if it is not YAML in UTF-8, too large or deeply nested, or has a key twice.
    """
    text = read_text(path, max_bytes=_MAX_BYTES)
    try:
        _check_size(text)
        return yaml.load(text, Loader=StrictLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = "" if mark is None else f", line {mark.line + 1}"
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
        reason = truncate(" ".join(str(problem).split()), 300)
        raise UserError(f"{path}{line}: not YAML: {reason}") from error
    except (AttributeError, LookupError, TypeError) as error:  # PyYAML's, for «!!int x»
        raise UserError(f"{path}: a value does not fit its tag: remove the tag") from error
    except ValueError as error:  # ours, or Python's about a number of thousands of digits
        raise UserError(f"{path}: {truncate(str(error), 300)}") from error


def read_mapping(path: Path, example: str) -> dict[Any, Any]:
    """The keys and values of a YAML file; ``example`` shows one, for the message."""
    values = read_yaml(path)
    if not isinstance(values, dict):
        kind = "nothing" if values is None else f"a {type(values).__name__}"
        raise UserError(f"{path} holds {kind}, but must hold keys and values, such as {example}")
    return values


def _check_size(text: str) -> None:
    """Count values, an alias as those it repeats, without building them."""
    sizes: dict[str, int] = {}  # by anchor
    open_collections: list[tuple[str | None, int]] = []  # anchor, number of values before it
    num_values = 0
    for event in yaml.parse(text, Loader=StrictLoader):
        line = event.start_mark.line + 1 if event.start_mark is not None else 0
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:  # unknown, or part of the value it names
                raise UserError(f"line {line}: *{event.anchor} refers to no earlier value")
            num_values += sizes[event.anchor]
        elif isinstance(event, yaml.CollectionStartEvent):
            sizes.pop(event.anchor or "", None)
            open_collections.append((event.anchor, num_values))
            num_values += 1
            if len(open_collections) > _MAX_DEPTH:
                raise UserError(f"line {line} is nested too deeply: at most {_MAX_DEPTH} levels")
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, start = open_collections.pop()
            if anchor is not None:
                sizes[anchor] = num_values - start
        elif isinstance(event, yaml.ScalarEvent):
            num_values += 1
            if event.anchor is not None:
                sizes[event.anchor] = 1
        if num_values > _MAX_VALUES:
            raise UserError(f"its aliases repeat over {_MAX_VALUES:,} values: write fewer")
