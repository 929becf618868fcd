"""Behaviour tests: their cases, and how a model did on them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING

from sentiment.behaviour.roles import Roles
from sentiment.behaviour.suite import Behaviour, Capability
from sentiment.behaviour.templates import Fillings
from sentiment.evaluation.metrics import wilson_interval
from sentiment.runtime.errors import UserError

if TYPE_CHECKING:
    from sentiment.inference.predictor import Prediction


@dataclass(frozen=True)
class Proportion:
    """A count out of a total."""

    count: int
    total: int

    @property
    def share(self) -> float:
        """The count's share of the total; 0 of nothing."""
        return self.count / self.total if self.total else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """The share's 95 % interval (Wilson 1927), which takes the cases for independent."""
        return wilson_interval(self.count, self.total) if self.total else (0.0, 1.0)

    def as_dict(self, count: str, total: str, share: str) -> dict[str, object]:
        """The figures under the names given for them, for JSON."""
        return {
            total: self.total,
            count: self.count,
            share: self.share if self.total else None,
            f"{share}_ci95": list(self.interval) if self.total else None,
        }


def add(tallies: Iterable[Proportion]) -> Proportion:
    """Counts and totals added up."""
    count = total = 0
    for each in tallies:
        count, total = count + each.count, total + each.total
    return Proportion(count, total)


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
        UserError: there are too many cases or none, or a change leaves a text as it is.
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
                raise UserError(f"the change leaves {case.text!r} as it is")
    except ValueError as error:
        raise UserError(f"{behaviour.place}: {error}") from error
    return cases


def _fill(behaviour: Behaviour, generator: random.Random) -> list[Case]:
    templates = zip_longest(behaviour.templates, behaviour.changed)
    fillings = [
        Fillings([each for each in pair if each is not None], behaviour.lists) for pair in templates
    ]
    for template, filling in zip(behaviour.templates, fillings, strict=True):
        if not filling:
            raise UserError(f"{template!r} has more slots of a list than the list has words")
    numbers = [len(filling) for filling in fillings]
    total = sum(numbers)
    number = min(total, behaviour.max_cases or total)
    if number > _MOST_CASES:
        raise UserError(f"{number:,} cases, more than {_MOST_CASES:,}: give a lower max_cases")
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


# What classifies: Predictor.predict, or a rule.
Predict = Callable[[Sequence[str]], "list[Prediction]"]

# Below this, two probabilities are one: a text's company in its batch moves the last digits.
_ROUNDING = 1e-5


@dataclass(frozen=True)
class Failure:
    """A case that is not as it must be.

    Attributes:
        text: what was classified.
        changed: what it was changed to; None for minimum functionality.
        expected: name of the class that was to be found, or of the one whose probability was to
            stay (for an invariance that of the unchanged text).
        got: name of the class found, of the changed text where there is one.
        probability: of ``got`` for minimum functionality, else of ``expected`` in the changed text.
        probability_before: of ``expected`` in the unchanged text; None for minimum functionality.
        distance: how far off it is, 0 to 1: the worst failures first.
    """

    text: str
    changed: str | None
    expected: str
    got: str
    probability: float
    probability_before: float | None
    distance: float


@dataclass(frozen=True)
class BehaviourOutcome:
    """A test's cases and its failures, the worst first."""

    behaviour: Behaviour
    num_cases: int
    failures: tuple[Failure, ...]

    @property
    def failed(self) -> Proportion:
        """How many cases of how many fail."""
        return Proportion(len(self.failures), self.num_cases)


@dataclass(frozen=True)
class CapabilityOutcome:
    """A capability and what its tests came to."""

    capability: Capability
    tests: tuple[BehaviourOutcome, ...]

    @property
    def failed(self) -> Proportion:
        """How many cases of how many fail."""
        return add(test.failed for test in self.tests)


def run_behaviours(
    capabilities: Sequence[Capability],
    predict: Predict,
    class_names: Sequence[str],
    roles: Roles,
    *,
    seed: int,
) -> list[CapabilityOutcome]:
    """Make all cases, classify their texts in one go, each once, and judge them.

    Args:
        capabilities: the tests.
        predict: texts to predictions, one for each.
        class_names: the classes, in the order of the predictions' probabilities.
        roles: which of them are the negative and the positive one.
        seed: what the draws of cases and changes depend on.

    Raises:
        UserError: a test cannot be filled.
    """
    cases = [
        [make_cases(behaviour, seed=seed) for behaviour in capability.tests]
        for capability in capabilities
    ]
    every = [case for tests in cases for test in tests for case in test]
    changed = [case.changed for case in every if case.changed is not None]
    texts = list(dict.fromkeys([*(case.text for case in every), *changed]))
    predictions = dict(zip(texts, predict(texts), strict=True))
    return [
        CapabilityOutcome(
            capability,
            tuple(
                _judge_test(behaviour, test_cases, predictions, class_names, roles)
                for behaviour, test_cases in zip(capability.tests, test_groups, strict=True)
            ),
        )
        for capability, test_groups in zip(capabilities, cases, strict=True)
    ]


def _judge_test(
    behaviour: Behaviour,
    cases: Sequence[Case],
    predictions: Mapping[str, Prediction],
    class_names: Sequence[str],
    roles: Roles,
) -> BehaviourOutcome:
    failures = []
    for case in cases:
        if case.changed is None:
            failure = _judge(behaviour, case, predictions[case.text], class_names, roles)
        else:
            before, after = predictions[case.text], predictions[case.changed]
            failure = _judge_change(behaviour, case, before, after, class_names, roles)
        if failure is not None:
            failures.append(failure)
    failures.sort(key=lambda failure: -failure.distance)
    return BehaviourOutcome(behaviour, len(cases), tuple(failures))


def _judge(
    behaviour: Behaviour,
    case: Case,
    found: Prediction,
    class_names: Sequence[str],
    roles: Roles,
) -> Failure | None:
    """Minimum functionality: the class is the expected one."""
    assert behaviour.role is not None
    right = roles.index(behaviour.role)
    if found.label == class_names[right]:
        return None
    distance = found.probability - found.probabilities[right]
    return Failure(
        case.text, None, class_names[right], found.label, found.probability, None, distance
    )


def _judge_change(
    behaviour: Behaviour,
    case: Case,
    before: Prediction,
    after: Prediction,
    class_names: Sequence[str],
    roles: Roles,
) -> Failure | None:
    """Invariance: label, and probabilities within the tolerance; direction: one probability."""
    moves = [new - old for old, new in zip(before.probabilities, after.probabilities, strict=True)]
    tolerance = (1.0 if behaviour.tolerance is None else behaviour.tolerance) + _ROUNDING
    if behaviour.role is not None:
        watched = roles.index(behaviour.role)
        distance = -moves[watched] if behaviour.must_not == "lower" else moves[watched]
        has_failed = distance > tolerance
    else:
        watched = list(class_names).index(before.label)
        distance = max(map(abs, moves))
        has_failed = after.label != before.label or distance > tolerance
    if not has_failed:
        return None
    return Failure(
        text=case.text,
        changed=case.changed,
        expected=class_names[watched],
        got=after.label,
        probability=after.probabilities[watched],
        probability_before=before.probabilities[watched],
        distance=distance,
    )
