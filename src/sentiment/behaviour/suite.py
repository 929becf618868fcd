"""Files of behaviour tests, and which classes they call negative and positive."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sentiment.behaviour.templates import CHANGES, Change, Lists, check_template
from sentiment.config.yaml import read_mapping
from sentiment.display.console import did_you_mean
from sentiment.runtime.errors import UserError


def check_keys(
    where: str, values: Mapping[Any, Any], known: Sequence[str], *, needed: Sequence[str]
) -> None:
    for key in values:
        if key not in known:
            hint = did_you_mean(str(key), known, list_all=True)
            raise UserError(f"{where}: unknown key {key!r}{hint}")
    for key in needed:
        if key not in values:
            raise UserError(f"{where}: {key} is missing")


def _one_of(where: str, values: Mapping[str, Any], keys: Sequence[str]) -> str:
    """The only one of the keys that is given."""
    given = [key for key in keys if key in values]
    if len(given) != 1:
        found = f"{', '.join(given)} are given" if given else "both are missing"
        raise UserError(f"{where}: {' or '.join(keys)} is needed, but {found}")
    return given[0]


def read_choice(where: str, value: Any, choices: Sequence[str]) -> Any:
    if value not in choices:
        hint = did_you_mean(str(value), choices, list_all=True)
        raise UserError(f"{where} is {value!r}, which is unknown{hint}")
    return value


def read_texts(where: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise UserError(f"{where} must be a list of texts")
    if not value:
        raise UserError(f"{where} is empty: give at least one text")
    texts = tuple(read_text(where, text) for text in value)
    for number, text in enumerate(texts):
        if text in texts[:number]:
            raise UserError(f"{where} has {text!r} twice: delete one")
    return texts


def read_text(where: str, value: Any) -> str:
    if not isinstance(value, str):  # YAML reads an unquoted no or 7 as another type
        raise UserError(f"{where}: {value!r} is not a text: put it in quotes")
    if not value.strip():
        raise UserError(f"{where}: an empty text")
    try:
        value.encode()
    except UnicodeEncodeError:  # YAML can escape one ("\\ud83d"), UTF-8 cannot encode it
        raise UserError(f"{where}: {value!r} holds a lone surrogate") from None
    return value


def read_number(where: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UserError(f"{where} is {value!r}, but must be an integer of at least 1")
    return value


Kind = Literal["minimum", "invariance", "direction"]
Role = Literal["negative", "positive"]
ROLES: tuple[Role, Role] = ("negative", "positive")

_COMMON_NAMES = {
    "negative": {"neg", "negative", "bad", "rotten", "unfavorable", "unfavourable"},
    "positive": {"pos", "positive", "good", "fresh", "favorable", "favourable"},
    "neutral": {"neu", "neutral", "mixed", "none"},
}

SHARED_LISTS = "lexicon.yaml"  # word lists for all files of its folder
DEFAULT_TOLERANCE = 0.1  # of kind direction

_SHIPPED = Path(__file__).parent / "shipped"
_FILE_KEYS = ("capability", "about", "lexicon", "tests")
_COMMON_KEYS = ("name", "kind", "templates", "max_cases")
_KEYS: dict[str, tuple[str, ...]] = {
    "minimum": ("expect",),
    "invariance": ("change", "changed", "tolerance"),
    "direction": ("change", "changed", "must_not_lower", "must_not_raise", "tolerance"),
}


@dataclass(frozen=True)
class Behaviour:
    """One test: the texts that it makes and what must hold for them."""

    name: str
    kind: Kind
    where: str  # file and name, for messages
    templates: tuple[str, ...]  # sentences with slots
    lists: Lists = field(repr=False)  # the words for the slots
    changed: tuple[str, ...] = ()  # the changed version of each template, with the same words
    change: Change | None = None  # a change made to each text instead
    role: Role | None = None  # the right class, or the one whose probability is watched
    must_not: Literal["lower", "raise"] | None = None  # how this probability must not move
    tolerance: float | None = None  # how far it may move; None: only the class must stay
    max_cases: int | None = None  # how many to draw; None takes all


@dataclass(frozen=True)
class Capability:
    """The tests of one file, and what they are about."""

    name: str
    about: str
    tests: tuple[Behaviour, ...]


def shipped_behaviours() -> Path:
    """The folder of the tests that come with the package."""
    if not _SHIPPED.is_dir():
        raise FileNotFoundError(
            f"{_SHIPPED} is missing: reinstall the package, or give tests of your own with "
            "--tests FILE_OR_FOLDER"
        )
    return _SHIPPED


def read_behaviours(places: Sequence[Path]) -> list[Capability]:
    """Read test files, and all ``.yaml`` files of folders; each holds one capability."""
    capabilities: dict[str, tuple[Capability, Path]] = {}
    for path in (path for place in places for path in _files(place)):
        capability = read_capability(path)
        if capability.name in capabilities:
            raise UserError(
                f"{path}: capability {capability.name!r} is also that of "
                f"{capabilities[capability.name][1]}: name each file's own, and give each file once"
            )
        capabilities[capability.name] = capability, path
    return [capability for capability, _ in capabilities.values()]


def _files(place: Path) -> list[Path]:
    if not place.is_dir():
        return [place]
    endings = (".yaml", ".yml")
    paths = sorted(p for p in place.iterdir() if p.suffix in endings and p.name != SHARED_LISTS)
    if not paths:
        raise FileNotFoundError(f"{place} has no files of behaviour tests (.yaml)")
    return paths


def read_capability(path: Path) -> Capability:
    """Read one file, with the word lists of ``lexicon.yaml`` in the same folder."""
    values = read_mapping(path, "capability: …")
    check_keys(str(path), values, _FILE_KEYS, needed=("capability", "tests"))
    lists = _read_lists(path, values.get("lexicon", {}))
    lexicon = path.with_name(SHARED_LISTS)
    if lexicon.is_file():
        shared = read_mapping(lexicon, "lexicon: …")
        check_keys(str(lexicon), shared, ("lexicon",), needed=("lexicon",))
        for name, words in _read_lists(lexicon, shared["lexicon"]).items():
            if name in lists:
                raise UserError(f"{path}: list {name!r} is in {lexicon} too: give it another name")
            lists[name] = words
    tests = values["tests"]
    if not isinstance(tests, list) or not tests:
        raise UserError(f"{path}: tests must be a list of at least one test")
    behaviours: dict[str, Behaviour] = {}
    for number, test in enumerate(tests, 1):
        behaviour = _read_test(f"{path}, test {number}", path, test, lists)
        if behaviours.setdefault(behaviour.name, behaviour) is not behaviour:
            raise UserError(f"{path}: two tests are named {behaviour.name!r}: rename one")
    about = read_text(f"{path}: about", values["about"]) if "about" in values else ""
    name = read_text(f"{path}: capability", values["capability"])
    return Capability(name, about, tuple(behaviours.values()))


def _read_lists(path: Path, values: Any) -> dict[str, tuple[str, ...]]:
    if not isinstance(values, dict):
        raise UserError(f"{path}: lexicon must name lists, such as noun: [film, movie]")
    return {
        read_text(f"{path}: lexicon", name): read_texts(f"{path}: list {name!r}", words)
        for name, words in values.items()
    }


def _read_test(where: str, path: Path, values: Any, lists: Lists) -> Behaviour:
    if not isinstance(values, dict):
        raise UserError(f"{where}: must have keys and values, such as name: …")
    if "name" in values:
        where = f"{path}, test {read_text(f'{where}: name', values['name'])!r}"
    kind = read_choice(f"{where}: kind", values.get("kind"), tuple(_KEYS))
    needed = ("name", "templates", *(("expect",) if kind == "minimum" else ()))
    allowed = (*_COMMON_KEYS, *_KEYS[kind])
    check_keys(f"{where} of kind {kind}", values, allowed, needed=needed)
    details: dict[str, Any] = {"templates": _templates(where, "templates", values, lists)}
    if kind == "minimum":
        details["role"] = read_choice(f"{where}: expect", values["expect"], ROLES)
    elif _one_of(where, values, ("change", "changed")) == "change":
        details["change"] = _change(f"{where}: change", values["change"], lists)
    else:
        details["changed"] = changed = _templates(where, "changed", values, lists)
        if len(changed) != len(details["templates"]):
            raise UserError(
                f"{where}: templates has {len(details['templates'])}, but changed {len(changed)}: "
                "write one for each, in their order"
            )
    if kind == "direction":
        key = _one_of(where, values, ("must_not_lower", "must_not_raise"))
        details["must_not"] = key.removeprefix("must_not_")
        details["role"] = read_choice(f"{where}: {key}", values[key], ROLES)
        details["tolerance"] = DEFAULT_TOLERANCE
    if "tolerance" in values:
        value = values["tolerance"]
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            problem = f"tolerance is {value!r}, but must be a change of probability, 0 to 1"
            raise UserError(f"{where}: {problem}")
        details["tolerance"] = float(value)
    if "max_cases" in values:
        details["max_cases"] = read_number(f"{where}: max_cases", values["max_cases"])
    return Behaviour(name=values["name"], kind=kind, where=where, lists=lists, **details)


def _change(where: str, value: Any, lists: Lists) -> Change:
    if not isinstance(value, dict) or len(value) != 1:
        raise UserError(f"{where} must be one of {', '.join(CHANGES)}, such as typos: 1")
    ((name, argument),) = value.items()
    read_choice(where, name, CHANGES)
    if name == "typos":
        return Change(name, read_number(f"{where}: typos", argument))
    choices = {"case": ("upper", "lower"), "remove": ("punctuation",)}.get(name, tuple(lists))
    read_choice(f"{where}: {name}", argument, choices)
    return Change(name, argument, lists.get(argument, ()))


def _templates(where: str, key: str, values: dict[str, Any], lists: Lists) -> tuple[str, ...]:
    templates = read_texts(f"{where}: {key}", values[key])
    for template in templates:
        try:
            check_template(template, lists)
        except ValueError as error:
            raise UserError(f"{where}: {key}: {error}") from None
    return templates


@dataclass(frozen=True)
class Roles:
    """Indices of the negative and the positive class."""

    negative: int
    positive: int


def find_roles(class_names: Sequence[str], given: Mapping[str, str] | None = None) -> Roles | None:
    """Find the negative and the positive class of a run; None if the names don't show it.

    Classes are recognized by common names, in any case. Of two classes without such names, the
    first is the negative one. With three or more, all others must have names for neutral. ``given``
    names the class of each role instead.
    """
    if given:
        for role, name in given.items():
            if name not in class_names:
                raise UserError(f"--roles {role}={name}: the classes are {', '.join(class_names)}")
        negative, positive = (list(class_names).index(given[role]) for role in ROLES)
        if negative == positive:
            raise UserError(f"--roles: class {class_names[negative]!r} was given both roles")
        return Roles(negative, positive)
    meanings = [_role_by_name(name) for name in class_names]
    if meanings.count("negative") == meanings.count("positive") == 1 and None not in meanings:
        return Roles(meanings.index("negative"), meanings.index("positive"))
    if len(class_names) == 2:
        first, second = meanings  # at most one of them says positive or negative
        is_reversed = first != second and (first == "positive" or second == "negative")
        return Roles(1, 0) if is_reversed else Roles(0, 1)
    return None


def require_roles(class_names: Sequence[str], given: Mapping[str, str] | None = None) -> Roles:
    """Like :func:`find_roles`, but a UserError if the names don't show it."""
    roles = find_roles(class_names, given)
    if roles is None:
        raise UserError(
            f"the classes are {', '.join(class_names)}, whose names do not tell which is the "
            "negative and which the positive one: say so with --roles negative=NAME positive=NAME"
        )
    return roles


def class_of(label: str, class_names: Sequence[str], roles: Roles | None) -> int | None:
    """Index of the class that a label in a file means, or None.

    A label is a class's name, in any case; a common name of a role; or, unless the names are
    integers, the index itself.
    """
    label = label.strip()
    if label in class_names:
        return list(class_names).index(label)
    lowered = [name.lower() for name in class_names]
    if lowered.count(label.lower()) == 1:
        return lowered.index(label.lower())
    role = _role_by_name(label)
    if roles is not None and role in ROLES:
        return getattr(roles, role)
    are_integers = all(re.fullmatch(r"-?[0-9]+", name) for name in class_names)
    if not are_integers and re.fullmatch(r"[0-9]{1,6}", label) and int(label) < len(class_names):
        return int(label)
    return None


def _role_by_name(name: str) -> str | None:
    name = name.strip().lower()
    return next((role for role, names in _COMMON_NAMES.items() if name in names), None)
