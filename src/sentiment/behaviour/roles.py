"""Which class of a run, whatever its name, is the negative one and which the positive one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from sentiment.runtime.errors import UserError

Role = Literal["negative", "positive"]
ROLES: tuple[Role, Role] = ("negative", "positive")

_COMMON_NAMES = {
    "negative": {"neg", "negative", "bad", "rotten", "unfavorable", "unfavourable"},
    "positive": {"pos", "positive", "good", "fresh", "favorable", "favourable"},
    "neutral": {"neu", "neutral", "mixed", "none"},
}


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
