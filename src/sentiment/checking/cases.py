"""Tests of behaviour turned into texts: filled, drawn, changed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

from sentiment.checking.behaviour import Behaviour
from sentiment.checking.templates import Fillings

_MOST_CASES = 100_000  # of a test: more is a slip of whoever wrote it


@dataclass(frozen=True)
class Case:
    """A text to classify, and what it is changed to where a change is what is tested."""

    text: str
    changed: str | None = None


def make_cases(behaviour: Behaviour, *, seed: int) -> list[Case]:
    """All cases of a test, or ``max_cases`` drawn by the seed and the test's name; none twice.

    Of several templates each gives an equal part of the draw, as far as it has so many.

    Raises:
        ValueError: there are too many cases or none, or a change leaves a text as it is.
    """
    try:
        cases = _fill(behaviour, random.Random(f"{seed}, {behaviour.name}"))
        if behaviour.change is not None:
            # By text, so that a case stays what it is when others are added.
            seeds = [f"{seed}, {behaviour.name}, {case.text}" for case in cases]
            cases = [
                Case(case.text, behaviour.change.apply(case.text, random.Random(each)))
                for case, each in zip(cases, seeds, strict=True)
            ]
        for case in cases:
            if case.text == case.changed:
                raise ValueError(f"the change leaves {case.text!r} as it is")
    except ValueError as error:
        raise ValueError(f"{behaviour.place}: {error}") from error
    return cases


def _fill(behaviour: Behaviour, generator: random.Random) -> list[Case]:
    templates = zip_longest(behaviour.templates, behaviour.changed)
    fillings = [
        Fillings([each for each in pair if each is not None], behaviour.lists) for pair in templates
    ]
    for template, filling in zip(behaviour.templates, fillings, strict=True):
        if not filling:
            raise ValueError(f"{template!r} has more slots of a list than the list has words")
    numbers = [len(filling) for filling in fillings]
    total = sum(numbers)
    number = min(total, behaviour.max_cases or total)
    if number > _MOST_CASES:
        raise ValueError(f"{number:,} cases, more than {_MOST_CASES:,}: give a lower max_cases")
    cases = [
        Case(*filling[index])
        for filling, part in zip(fillings, _parts(numbers, number), strict=True)
        for index in sorted(generator.sample(range(len(filling)), part))
    ]
    return list(dict.fromkeys(cases))


def _parts(numbers: Sequence[int], total: int) -> list[int]:
    """Divide a draw among groups evenly; what a small group lacks, the larger ones give."""
    parts = [0] * len(numbers)
    smallest_first = sorted(range(len(numbers)), key=lambda index: numbers[index])
    for position, index in enumerate(smallest_first):
        parts[index] = min(numbers[index], total // (len(numbers) - position))
        total -= parts[index]
    return parts
