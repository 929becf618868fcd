"""Which class of a run is the negative one and which the positive one.

Tests of behaviour speak of two roles, as runs name their classes as they like: neg and pos,
negative and positive, 0 and 1. Classes beside the two (neutral) play none.
"""

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
    """Indices of the classes that play the two roles."""

    negative: int
    positive: int

    def index(self, role: Role) -> int:
        """The class of a role."""
        return self.negative if role == "negative" else self.positive


def find_roles(class_names: Sequence[str], given: Mapping[str, str] | None = None) -> Roles | None:
    """Find the negative and the positive class of a run; None if their names do not tell.

    They are those of a common name (in any case) or, of two classes without one, the first and the
    second. Three classes or more are matched only if the others are neutral by their names.

    Args:
        class_names: the run's classes, in the order of its logits.
        given: names of both roles' classes, which are then taken as they are.

    Raises:
        UserError: a given name is no class, or one class was given both roles.
    """
    if given:
        negative, positive = (_given_index(class_names, given[role], role) for role in ROLES)
        if negative == positive:
            raise UserError(f"--roles: class {class_names[negative]!r} was given both roles")
        return Roles(negative, positive)
    meanings = [_common_role(name) for name in class_names]
    if meanings.count("negative") == meanings.count("positive") == 1 and None not in meanings:
        return Roles(meanings.index("negative"), meanings.index("positive"))
    if len(class_names) == 2:
        first, second = meanings  # of which one may be neutral, or say nothing
        is_turned = first != second and (first == "positive" or second == "negative")
        return Roles(1, 0) if is_turned else Roles(0, 1)
    return None


def require_roles(class_names: Sequence[str], given: Mapping[str, str] | None = None) -> Roles:
    """As :func:`find_roles`, but an error where the names do not tell.

    Raises:
        UserError: as there, or there are three classes or more whose names do not tell.
    """
    roles = find_roles(class_names, given)
    if roles is None:
        raise UserError(
            f"the classes are {', '.join(class_names)}, whose names do not tell which is the "
            "negative and which the positive one: say so with --roles negative=NAME positive=NAME"
        )
    return roles


def class_of(label: str, class_names: Sequence[str], roles: Roles | None) -> int | None:
    """The class that a label in a file stands for, or None.

    A label is a class's name, in any case; or a common name of a role; or, where the names are not
    integers themselves, the class's number from 0.
    """
    label = label.strip()
    if label in class_names:
        return list(class_names).index(label)
    lowered = [name.lower() for name in class_names]
    if lowered.count(label.lower()) == 1:
        return lowered.index(label.lower())
    role = _common_role(label)
    if roles is not None and role in ROLES:
        return roles.negative if role == ROLES[0] else roles.positive
    are_integers = all(re.fullmatch(r"-?[0-9]+", name) for name in class_names)
    if not are_integers and re.fullmatch(r"[0-9]{1,6}", label) and int(label) < len(class_names):
        return int(label)
    return None


def _common_role(name: str) -> str | None:
    """``negative``, ``positive`` or ``neutral`` for a name that is common for it."""
    matches = (role for role, names in _COMMON_NAMES.items() if name.strip().lower() in names)
    return next(matches, None)


def _given_index(class_names: Sequence[str], name: str, role: str) -> int:
    if name not in class_names:
        raise UserError(f"--roles {role}={name}: the classes are {', '.join(class_names)}")
    return list(class_names).index(name)
