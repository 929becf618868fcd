"""YAML files, checked before anything is built from them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from sentiment.runtime.errors import UserError
from sentiment.runtime.files import require_file, truncate_text

# PyYAML takes some ten seconds for so many characters; what people write has a few thousand.
_MOST_BYTES = 2**20
_DEEPEST = 20
_MOST_VALUES = 1_000_000  # with those that aliases repeat


def read_yaml(path: Path, loader: Any = yaml.SafeLoader) -> Any:
    """A YAML file's values; nothing in it is executed.

    Args:
        path: the file.
        loader: PyYAML's loader to read it with: they do not agree on every byte.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: it is none, no YAML in UTF-8, or not a tree of bounded size without a key twice;
            the message is one line and names the path.
    """
    try:
        return parse_yaml(path, loader)
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 at byte {error.start}: save it as UTF-8") from error
    except yaml.YAMLError as error:
        why = truncate_text(" ".join(str(error).split()), 300)
        raise UserError(f"{path}: not YAML: {why}") from error


def parse_yaml(path: Path, loader: Any = yaml.SafeLoader) -> Any:
    """The same for who says more exactly what is wrong with the YAML.

    Raises:
        UnicodeDecodeError: it is not UTF-8.
        yaml.YAMLError: it is not YAML, or a tag is none of YAML's own.
    """
    require_file(path)
    num_bytes = path.stat().st_size
    if num_bytes > _MOST_BYTES:
        raise UserError(f"{path}: {num_bytes:,} bytes, but it may have {_MOST_BYTES:,} at most")
    text = path.read_bytes().decode("utf-8")
    try:
        _check_size(text, loader)
        _refuse_double_keys(text, loader)
        return yaml.load(text, Loader=loader)
    except (AttributeError, LookupError, TypeError) as error:  # PyYAML's, over «!!int x»
        raise UserError(f"{path}: a value is not what its tag says: write it without") from error
    except ValueError as error:  # of ours, or of a date that is none
        raise UserError(f"{path}: {truncate_text(str(error), 300)}") from error


def _check_size(text: str, loader: Any) -> None:
    """Count what a text stands for, aliases as what they repeat, without building it."""
    sizes: dict[str, int] = {}  # of what has an anchor
    waiting: list[tuple[str | None, int]] = []  # anchors and beginnings of what is open
    num_values = 0
    for event in yaml.parse(text, Loader=loader):
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:  # not there, or open: part of itself
                raise UserError(f"line {_line(event)}: *{event.anchor} names nothing before it")
            num_values += sizes[event.anchor]
        elif isinstance(event, yaml.CollectionStartEvent):
            sizes.pop(event.anchor or "", None)
            waiting.append((event.anchor, num_values))
            num_values += 1
            if len(waiting) > _DEEPEST:
                raise UserError(f"nested too deeply in line {_line(event)}: unfold it")
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, start = waiting.pop()
            if anchor is not None:
                sizes[anchor] = num_values - start
        elif isinstance(event, yaml.ScalarEvent):
            num_values += 1
            if event.anchor is not None:
                sizes[event.anchor] = 1
        if num_values > _MOST_VALUES:
            raise UserError(f"its aliases repeat over {_MOST_VALUES:,} values: write fewer")


def _refuse_double_keys(text: str, loader: Any) -> None:
    """YAML forbids them, and PyYAML takes the last without a word."""
    root = yaml.compose(text, Loader=loader)
    waiting, seen = [root] if root is not None else [], set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:  # an alias
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
        elif isinstance(node, yaml.MappingNode):
            for line, name in _double_keys(node):
                raise UserError(f"key {name!r} a second time in line {line}")
            waiting += [value for _, value in node.value]


def _double_keys(node: yaml.MappingNode) -> Iterator[tuple[int, str]]:
    keys: set[str] = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode) and key.value:
            if key.value in keys:
                yield key.start_mark.line + 1, key.value
            keys.add(key.value)


def _line(event: yaml.Event) -> int:
    mark = event.start_mark
    return mark.line + 1 if mark is not None else 0


def read_mapping(path: Path) -> dict[Any, Any]:
    """Read a YAML file whose top is a mapping; nothing in it is executed.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: it is not text, not YAML, not a mapping, has a key twice, or is out of all
            proportion.
    """
    try:
        values = parse_yaml(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is not there") from None
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: not a text file in UTF-8 (byte {error.start}): give files of behaviour tests "
            "(.yaml)"
        ) from error
    except yaml.YAMLError as error:
        raise UserError(f"{path}{_where(error)}: not YAML: {_reason(error)}") from error
    if not isinstance(values, dict):
        kind = "nothing" if values is None else f"a {type(values).__name__}"
        raise UserError(f"{path}: holds {kind}, but must hold keys and values, as capability: …")
    return values


def _where(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    return f", line {mark.line + 1}" if mark is not None else ""


def _reason(error: yaml.YAMLError) -> str:
    reason = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    return truncate_text(" ".join(str(reason).split()), 300)
