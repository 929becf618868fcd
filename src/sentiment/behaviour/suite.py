"""The files of behaviour tests, checked as they are read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sentiment.behaviour.roles import ROLES, Role
from sentiment.behaviour.templates import CHANGES, Change, Lists, check_template
from sentiment.config.yaml import read_mapping
from sentiment.display.console import did_you_mean
from sentiment.runtime.errors import UserError


def check_keys(
    place: str, values: Mapping[Any, Any], known: Sequence[str], *, needed: Sequence[str]
) -> None:
    """Refuse unknown keys, and needed ones that are missing."""
    for key in values:
        if key not in known:
            hint = did_you_mean(str(key), known, list_all=True)
            raise UserError(f"{place}: unknown key {key!r}{hint}")
    for key in needed:
        if key not in values:
            raise UserError(f"{place}: no {key}, which is needed")


def one_of(place: str, values: Mapping[str, Any], keys: Sequence[str]) -> str:
    """The one of the keys that is given."""
    given = [key for key in keys if key in values]
    if len(given) != 1:
        found = f"{listed(given)} are" if given else "none is"
        raise UserError(f"{place}: {' or '.join(keys)} is needed, but {found} given")
    return given[0]


def read_choice(place: str, value: Any, choices: Sequence[str]) -> Any:
    """One of a few words."""
    if value not in choices:
        hint = did_you_mean(str(value), choices, list_all=True)
        raise UserError(f"{place} is {value!r}, which is unknown{hint}")
    return value


def read_texts(place: str, value: Any) -> tuple[str, ...]:
    """A list of texts, none of them twice."""
    if not isinstance(value, list):
        raise UserError(f"{place} must be a list of texts")
    if not value:
        raise UserError(f"{place} is empty: give at least one text")
    texts: dict[str, None] = {}
    for each in value:
        if (text := read_text(place, each)) in texts:
            raise UserError(f"{place} has {text!r} twice: delete one")
        texts[text] = None
    return tuple(texts)


def read_text(place: str, value: Any) -> str:
    """A text that is not empty; YAML takes an unquoted no or 7 for something else than text."""
    if not isinstance(value, str):
        raise UserError(f"{place}: {value!r} is no text: put it in quotes")
    if not value.strip():
        raise UserError(f"{place}: an empty text")
    try:
        value.encode()
    except UnicodeEncodeError:  # YAML can write one as "\\ud83d", and UTF-8 cannot
        raise UserError(f"{place}: {value!r} holds half a surrogate pair") from None
    return value


def read_tolerance(place: str, value: Any) -> float:
    """A change of a probability."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise UserError(f"{place} is {value!r}, but must be a change of probability, 0 to 1")
    return float(value)


def read_number(place: str, value: Any) -> int:
    """A number of things."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UserError(f"{place} is {value!r}, but must be an integer of at least 1")
    return value


def listed(names: Iterable[str]) -> str:
    """Names for a message."""
    return ", ".join(names)


Kind = Literal["minimum", "invariance", "direction"]

SHARED_LISTS = "lexicon.yaml"  # lists that all files of its folder may use
DEFAULT_TOLERANCE = 0.1  # of a direction

_SHIPPED = Path(__file__).parent / "shipped"
_FILE_KEYS = ("capability", "about", "lexicon", "tests")
_COMMON_KEYS = ("name", "kind", "templates", "max_cases")
_KEYS: dict[str, tuple[str, ...]] = {
    "minimum": ("expect",),
    "invariance": ("change", "changed", "tolerance"),
    "direction": ("change", "changed", "must_not_lower", "must_not_raise", "tolerance"),
}
_ALL_KEYS = tuple(dict.fromkeys(key for keys in (_COMMON_KEYS, *_KEYS.values()) for key in keys))


@dataclass(frozen=True)
class Behaviour:
    """One test: which texts it makes, and what must hold of them.

    Attributes:
        place: its file and name, for messages.
        templates: sentences with slots.
        lists: the words for them.
        changed: what each template is changed to, with the same words; or empty.
        change: what the program does to each text; or None.
        role: the class to be found (``minimum``), or whose probability is held (``direction``).
        must_not: which way that probability must not go.
        tolerance: by how much a probability may move; None where the label alone must stay.
        max_cases: how many to draw; None takes all.
    """

    name: str
    kind: Kind
    place: str
    templates: tuple[str, ...]
    lists: Lists = field(repr=False)
    changed: tuple[str, ...] = ()
    change: Change | None = None
    role: Role | None = None
    must_not: Literal["lower", "raise"] | None = None
    tolerance: float | None = None
    max_cases: int | None = None


@dataclass(frozen=True)
class Capability:
    """What a file is about, and its tests."""

    name: str
    about: str
    tests: tuple[Behaviour, ...]


def shipped_behaviours() -> Path:
    """The folder of the tests that come with the repository.

    Raises:
        FileNotFoundError: it is not there, as in an installed package.
    """
    if not _SHIPPED.is_dir():
        raise FileNotFoundError(
            f"{_SHIPPED} is not there: the behaviour tests come with the repository, not with an "
            "installed package: install with pip install -e from a checkout, or give tests of "
            "your own with --tests FILE_OR_FOLDER"
        )
    return _SHIPPED


def read_behaviours(places: Sequence[Path]) -> list[Capability]:
    """Read files of tests, and of folders all their ``.yaml`` files; each brings one capability.

    Raises:
        FileNotFoundError: a place is not there, or a folder has no such files.
        UserError: a file is not as it must be; the message says which, where and why.
    """
    paths = [path for place in places for path in _files(place)]
    capabilities: dict[str, Capability] = {}
    origins: dict[str, Path] = {}
    for path in paths:
        capability = read_capability(path)
        if capability.name in capabilities:
            raise UserError(
                f"{path}: capability {capability.name!r} is also that of "
                f"{origins[capability.name]}: give each file another, and each file once"
            )
        capabilities[capability.name], origins[capability.name] = capability, path
    return list(capabilities.values())


def _files(place: Path) -> list[Path]:
    if not place.is_dir():
        return [place]
    endings = (".yaml", ".yml")
    found = sorted(p for p in place.iterdir() if p.suffix in endings and p.name != SHARED_LISTS)
    if not found:
        raise FileNotFoundError(f"{place} has no files of behaviour tests (.yaml)")
    return found


def read_capability(path: Path) -> Capability:
    """Read one file, with the lists of the ``lexicon.yaml`` beside it.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: the file, or the lexicon beside it, is not as it must be.
    """
    values = read_mapping(path, "capability: …")
    check_keys(str(path), values, _FILE_KEYS, needed=("capability", "tests"))
    lists = _read_lists(path, values.get("lexicon", {}))
    beside = path.with_name(SHARED_LISTS)
    if beside.is_file():
        shared = read_mapping(beside, "lexicon: …")
        check_keys(str(beside), shared, ("lexicon",), needed=("lexicon",))
        for name, words in _read_lists(beside, shared["lexicon"]).items():
            if name in lists:
                raise UserError(f"{path}: list {name!r} is in {beside} too: give it another name")
            lists[name] = words
    tests = values["tests"]
    if not isinstance(tests, list) or not tests:
        raise UserError(f"{path}: tests must be a list of at least one test")
    behaviours: dict[str, Behaviour] = {}
    for number, test in enumerate(tests, 1):
        behaviour = _read_test(f"{path}, test {number}", path, test, lists)
        if behaviour.name in behaviours:
            raise UserError(f"{path}: two tests are named {behaviour.name!r}: rename one")
        behaviours[behaviour.name] = behaviour
    about = read_text(f"{path}: about", values["about"]) if "about" in values else ""
    name = read_text(f"{path}: capability", values["capability"])
    return Capability(name, about, tuple(behaviours.values()))


def _read_lists(path: Path, values: Any) -> dict[str, tuple[str, ...]]:
    if not isinstance(values, dict):
        raise UserError(f"{path}: lexicon must name lists, as noun: [film, movie]")
    return {
        read_text(f"{path}: lexicon", name): read_texts(f"{path}: list {name!r}", words)
        for name, words in values.items()
    }


def _read_test(place: str, path: Path, values: Any, lists: Lists) -> Behaviour:
    if not isinstance(values, dict):
        raise UserError(f"{place}: must have keys and values, as name: …")
    if "name" in values:
        place = f"{path}, test {read_text(f'{place}: name', values['name'])!r}"
    check_keys(place, values, _ALL_KEYS, needed=("name", "kind", "templates"))
    kind = read_choice(f"{place}: kind", values["kind"], tuple(_KEYS))
    allowed = (*_COMMON_KEYS, *_KEYS[kind])
    if others := [key for key in values if key not in allowed]:
        raise UserError(f"{place}: kind {kind} has no {others[0]}, but {listed(allowed)}")
    details: dict[str, Any] = {"templates": _templates(place, "templates", values, lists)}
    if kind == "minimum":
        one_of(place, values, ("expect",))
        details["role"] = read_choice(f"{place}: expect", values["expect"], ROLES)
    elif one_of(place, values, ("change", "changed")) == "change":
        details["change"] = _change(f"{place}: change", values["change"], lists)
    else:
        details["changed"] = changed = _templates(place, "changed", values, lists)
        if len(changed) != len(details["templates"]):
            raise UserError(
                f"{place}: templates has {len(details['templates'])}, but changed {len(changed)}: "
                "write one for each, in their order"
            )
    if kind == "direction":
        key = one_of(place, values, ("must_not_lower", "must_not_raise"))
        details["must_not"] = key.removeprefix("must_not_")
        details["role"] = read_choice(f"{place}: {key}", values[key], ROLES)
        details["tolerance"] = DEFAULT_TOLERANCE
    if "tolerance" in values:
        details["tolerance"] = read_tolerance(f"{place}: tolerance", values["tolerance"])
    if "max_cases" in values:
        details["max_cases"] = read_number(f"{place}: max_cases", values["max_cases"])
    return Behaviour(name=values["name"], kind=kind, place=place, lists=lists, **details)


def _change(place: str, value: Any, lists: Lists) -> Change:
    if not isinstance(value, dict) or len(value) != 1:
        raise UserError(f"{place} must be one of {listed(CHANGES)}, as typos: 1")
    ((name, argument),) = value.items()
    read_choice(place, name, tuple(CHANGES))
    if name == "typos":
        return Change(name, read_number(f"{place}: typos", argument))
    if name == "case":
        return Change(name, read_choice(f"{place}: case", argument, ("upper", "lower")))
    if name == "remove":
        return Change(name, read_choice(f"{place}: remove", argument, ("punctuation",)))
    read_choice(f"{place}: {name}", argument, tuple(lists))
    return Change(name, argument, lists[argument])


def _templates(place: str, key: str, values: dict[str, Any], lists: Lists) -> tuple[str, ...]:
    templates = read_texts(f"{place}: {key}", values[key])
    for template in templates:
        try:
            check_template(template, lists)
        except ValueError as error:
            raise UserError(f"{place}: {key}: {error}") from None
    return templates
