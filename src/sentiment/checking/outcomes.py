"""What a run makes of the cases: which fail, how often, how badly."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sentiment.checking.behaviour import Behaviour, Capability
from sentiment.checking.cases import Case, make_cases
from sentiment.checking.roles import Roles
from sentiment.checking.tally import Tally, add

if TYPE_CHECKING:
    from sentiment.predictor import Prediction

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
    def failed(self) -> Tally:
        """How many cases of how many fail."""
        return Tally(len(self.failures), self.num_cases)


@dataclass(frozen=True)
class CapabilityOutcome:
    """A capability and what its tests came to."""

    capability: Capability
    tests: tuple[BehaviourOutcome, ...]

    @property
    def failed(self) -> Tally:
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
        ValueError: a test cannot be filled.
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
