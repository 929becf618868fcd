"""Labels: values of any type become names, and names become class indices."""

from __future__ import annotations

import difflib
import json
import re
import shlex
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import lru_cache

import numpy as np

from sentiment.display.console import did_you_mean, truncate
from sentiment.runtime.errors import UserError

# A label as a file holds it.
RawLabel = int | float | bool | str

# What programs write for a missing value: MySQL, R, pandas and spreadsheets.
MISSING = frozenset(
    ("", "\\N", "NA", "N/A", "n/a", "#N/A", "<NA>", "NULL", "null", "NaN", "nan", "NAN")
)
UNLABELLED = -1  # instead of a class's number: the row has no label
LEFT_OUT = -2  # data.labels leaves the row out

_NUMBER = re.compile(r"([+-]?)(?=\.?\d)0*(\d*)(?:\.(\d*?)0*)?", re.ASCII)
_TWINS = {"0": "False", "1": "True", "False": "0", "True": "1"}
_PLAIN = re.compile(r"[A-Za-z_][\w-]*|-?[1-9]\d*|0", re.ASCII)  # in YAML, and not reserved
_RESERVED = {"true", "false", "yes", "no", "on", "off", "null", "y", "n"}
_MAX_LISTED = 20
_MAX_MAPPED = 8  # labels that a message maps
_MAX_DESCRIBED = 10  # classes


@dataclass(frozen=True)
class LabelRules:
    """What the source, the settings and a run say about labels."""

    declared: tuple[str, ...] = ()  # the source's names of the integers from 0, as a ClassLabel's
    renames: Mapping[str, str | None] = field(default_factory=dict)  # data.labels
    class_names: tuple[str, ...] | None = None  # None takes those of the labels
    names_integers: bool = False  # whether class_names are also those of the integers from 0


@dataclass(frozen=True, eq=False)  # == of arrays is an array
class NumberedLabels:
    """The labels of a split."""

    labels: np.ndarray  # (num_rows,) int64, index into class_names, or UNLABELLED, or LEFT_OUT
    class_names: tuple[str, ...]
    found: list[str]  # names of the labels before data.labels, in order
    unlabelled: list[str]  # those of them that mean that there is no label, as NA, or -1 if it does
    unused: list[str]  # what data.labels lists, but no row has


@lru_cache(typed=True)  # 1, 1.0 and True are equal
def label_name(value: RawLabel | None) -> str | None:
    """The name of a label, the same for equal values of any type; None for an empty one.

    The number 1 is ``1`` as an integer, as a float and in the texts ``1``, ``1.0`` and ``01``. A
    boolean is ``True`` or ``False``, and so are the texts ``true`` and ``TRUE``.
    """
    if value is None or value != value:
        return None
    if isinstance(value, str):
        text = value.strip()
    elif isinstance(value, bool):
        text = str(value)
    else:
        text = format(Decimal(str(value)), "f")  # without an exponent
    if not text:
        return None
    if text.lower() in ("true", "false"):
        return text.capitalize()
    if number := _NUMBER.fullmatch(text):
        sign, whole, fraction = number.groups()
        text = (whole or "0") + (f".{fraction}" if fraction else "")
        return f"-{text}" if sign == "-" and text != "0" else text
    return text


def _order(name: str) -> tuple[bool, Decimal, str]:
    """A key that sorts numbers by value, and other names after them by their characters."""
    return (False, Decimal(name), "") if _is_number(name) else (True, Decimal(0), name)


def _is_number(name: str) -> bool:
    return _NUMBER.fullmatch(name) is not None


def number_labels(
    values: Sequence[RawLabel | None],
    rules: LabelRules,
    *,
    place: Callable[[int], str],
    origin: str,
) -> NumberedLabels:
    """Number the labels of a split, matching names by value and never by order of occurrence.

    An integer is the index of a class only where the source or ``data.class_names`` says so.
    ``place`` names the file and row of a label for messages, ``origin`` the split.

    Raises:
        UserError: a label is not one of the classes, or there are fewer than two classes.
    """
    names = list(map(label_name, values))
    found = sorted(set(filter(None, names)), key=_order)
    rules = replace(rules, renames=_canonical(rules.renames))
    classes = None
    if rules.class_names is not None:
        classes = _Classes(rules.class_names, names_integers=rules.names_integers)
    meanings = {name: _meaning(name, rules)[1] for name in found}
    unlabelled = [name for name in found if _is_missing_word(name, rules, classes)]
    meanings = {name: meaning for name, meaning in meanings.items() if name not in unlabelled}
    if _is_minus_one_unlabelled(meanings, rules, classes):
        is_rare = 5 * names.count("-1") < len(names)
        if is_rare or rules.declared or len(meanings) == 1:
            unlabelled.append("-1")
            del meanings["-1"]
        elif classes is None:  # else it is refused as unknown
            raise UserError(_describe_frequent_minus_one(names, rules, place))
    if classes is None:
        classes = _Classes(_name_classes(meanings.values(), rules, origin))
    targets: dict[str | None, int | None] = {
        name: LEFT_OUT if meaning is None else classes.find(meaning)
        for name, meaning in meanings.items()
    }
    if None in targets.values():
        unknown = {name for name, target in targets.items() if target is None}
        row = next(row for row, name in enumerate(names) if name in unknown)
        problem = _describe_unknown(values[row], meanings[names[row] or ""], classes)
        mend = _suggest([name for name in found if name in unknown], found, rules, classes)
        raise UserError(f"{place(row)}: {problem}: {mend}")
    labels = np.array([targets.get(name, UNLABELLED) for name in names], dtype=np.int64)
    named = {*found, *map(str, range(len(rules.declared)))}
    used = {_meaning(name, rules)[0] for name in named}
    unused = [key for key in rules.renames if key not in used]
    return NumberedLabels(labels, classes.names, found, unlabelled, unused)


class _Classes:
    """The classes that a label is looked up in."""

    def __init__(self, names: tuple[str, ...], *, names_integers: bool = False) -> None:
        self.names = names
        self.by_value: dict[str, int] = {}
        for index, name in enumerate(names):
            other = self.by_value.setdefault(label_name(name) or name, index)
            if other != index:
                raise UserError(
                    f"the classes {names[other]} and {name} are equal: leave one out of "
                    "data.class_names"
                )
        indices = {str(index): index for index in range(len(names))}
        has_numbers = any(map(_is_number, self.by_value))
        self.by_position = indices if names_integers and not has_numbers else {}

    def find(self, name: str) -> int | None:
        for index_by_name in (self.by_value, self.by_position):
            if (key := _equal(name, index_by_name)) is not None:
                return index_by_name[key]
        return None


def _equal(name: str, known: Collection[str]) -> str | None:
    """The known name of the same value; 0 and 1 match False and True if no other name is known."""
    if name in known:
        return name
    twin = _TWINS.get(name)
    return twin if twin is not None and set(known) in ({"0", "1"}, {"False", "True"}) else None


def _canonical(renames: Mapping[str, str | None]) -> dict[str, str | None]:
    canonical: dict[str, str | None] = {}
    for key, value in renames.items():
        name = label_name(key) or key
        if name in canonical:
            raise UserError(f"data.labels lists {name} twice: leave one out")
        canonical[name] = None if value is None else label_name(value)
    return canonical


def _meaning(name: str, rules: LabelRules) -> tuple[str | None, str | None]:
    """What data.labels lists a label as, if it does, and the class that it names, None for none."""
    is_index = name.isascii() and name.isdigit() and int(name) < len(rules.declared)
    means = rules.declared[int(name)] if is_index else name
    means = label_name(means) or means
    key = _equal(name, rules.renames) or _equal(means, rules.renames)
    return key, means if key is None else rules.renames[key]


def _is_missing_word(name: str, rules: LabelRules, classes: _Classes | None) -> bool:
    """Whether a label is a word for a missing one, and neither in data.labels nor a class."""
    is_known = name in rules.renames or (classes is not None and classes.find(name) is not None)
    return name in MISSING and not is_known


def _is_minus_one_unlabelled(
    meanings: Mapping[str, str | None], rules: LabelRules, classes: _Classes | None
) -> bool:
    """Whether -1 is among the labels and may stand for a missing label.

    It may if the other labels are exactly the integers from 0 and stand for all classes: then it
    cannot be the first class of -1, 0, … or of -1, 1, which another split might number from 0. It
    may not if data.labels lists it.
    """
    if "-1" not in meanings or "-1" in rules.renames:
        return False
    if classes is not None and classes.find("-1") is not None:
        return False
    others = [name for name in meanings if name != "-1"]
    if rules.declared or not others:
        return True
    if len(others) < 2 or others != [str(index) for index in range(len(others))]:
        return False
    if classes is None:
        return True
    reached = {classes.find(meaning) for other in others if (meaning := meanings[other])}
    return reached == set(range(len(classes.names)))


def _describe_frequent_minus_one(
    names: Sequence[str | None], rules: LabelRules, place: Callable[[int], str]
) -> str:
    """Why -1 in many rows is refused, with the settings for both of its meanings."""
    options = [labels_option({**rules.renames, "-1": name}) for name in ("NAME", None)]
    return (
        f"{place(names.index('-1'))}: label -1, as in {names.count('-1'):,} of {len(names):,} "
        f"rows: if it is a class, {options[0]}; if it means that there is no label, {options[1]} "
        "leaves these rows out"
    )


def _name_classes(
    meanings: Iterable[str | None], rules: LabelRules, origin: str
) -> tuple[str, ...]:
    """The names of new classes: the source's in its order, or those of the labels, sorted."""
    names = set(filter(None, meanings))
    if names <= _TWINS.keys() and not names <= {"0", "1"}:
        names = {_TWINS[name] if _is_number(name) else name for name in names}
    ordered = sorted(names, key=_order)
    if rules.declared:
        every = [_meaning(str(index), rules)[1] for index in range(len(rules.declared))]
        ordered = list(dict.fromkeys(filter(None, every)))
    if len(ordered) >= 2:
        return tuple(ordered)
    found = f"all labels are {ordered[0]!r}" if ordered else "no row has a label"
    raise UserError(
        f"{origin}: {found}, but there must be two classes: add reviews of another, or name the "
        "classes with --data.class_names"
    )


def _describe_unknown(value: RawLabel | None, meaning: str | None, classes: _Classes) -> str:
    name, meaning = label_name(value) or "", meaning or ""
    is_text = isinstance(value, str) and not _is_number(name)
    shown = repr(truncate(str(value).strip(), 60)) if is_text else name
    if meaning != name:
        shown += f", which means {meaning!r},"
    listed = ", ".join(classes.names[:_MAX_LISTED])
    if classes.by_position and _is_number(meaning):
        return f"label {shown}, but the classes are 0 to {len(classes.names) - 1} ({listed})"
    hint = "" if _is_number(meaning) else did_you_mean(meaning, classes.names)
    return f"label {shown} is not one of the classes {listed}{hint}"


def _suggest(
    unknown: Sequence[str], found: Sequence[str], rules: LabelRules, classes: _Classes
) -> str:
    """How to resolve unknown labels: by data.labels, unless that would change known ones too."""
    if len(unknown) > _MAX_MAPPED:
        return f"so are {len(unknown) - 1:,} more: are these labels of the same kind?"
    near = {name: difflib.get_close_matches(name, classes.names, n=1) for name in unknown}
    pairs = {name: None if _is_number(name) or not near[name] else near[name][0] for name in near}
    option = labels_option({**rules.renames, **pairs})
    if list(unknown) == ["-1"]:
        return f"if -1 means that there is no label (else name a class, not null): {option}"
    if all(_is_number(name) or name in _TWINS for name in found):
        num_known = len(found) - len(unknown)
        if 0 < num_known < len(classes.names):
            return "this split may number the classes differently: use the labels of train in it"
        if len(found) == len(classes.names):
            pairs = dict(zip(found, classes.names, strict=True))
            meant = ", ".join(f"{key} means {name}" for key, name in pairs.items())
            return f"if {meant}: {labels_option({**rules.renames, **pairs})}"
    return f"name its class, or null to leave such rows out, as {option}"


def labels_option(labels: Mapping[str, str | None]) -> str:
    """The option that sets ``data.labels``, quoted for a shell."""
    pairs = [
        f"{_scalar(key)}: {'null' if name is None else _scalar(name)}"
        for key, name in labels.items()
    ]
    return f"--data.labels {shlex.quote('{' + ', '.join(pairs) + '}')}"


def _scalar(text: str) -> str:
    is_plain = _PLAIN.fullmatch(text) and text.lower() not in _RESERVED
    return text if is_plain else json.dumps(text, ensure_ascii=False)


def describe_classes(labels: np.ndarray, class_names: Sequence[str]) -> str:
    """Classes with their counts: of many, the first ten."""
    counts = np.bincount(labels, minlength=len(class_names))
    parts = [
        f"{truncate(name, 30)} ({count:,})"
        for name, count in zip(class_names, counts.tolist(), strict=True)
    ]
    rest = len(parts) - _MAX_DESCRIBED
    return ", ".join(parts[:_MAX_DESCRIBED]) + (f" and {rest:,} more" if rest > 0 else "")
