"""Making the cases of behaviour tests, reading contrast pairs, and judging predictions of both.

A contrast pair is a review and a minimal edit of it, which usually changes its label. Gardner et
al., *Evaluating Models' Local Decision Boundaries via Contrast Sets*, Findings of EMNLP 2020, and
Kaushik, Hovy & Lipton, *Learning the Difference that Makes a Difference with
Counterfactually-Augmented Data*, ICLR 2020, publish such pairs for IMDB as two TSV files with
matching rows.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sentiment.behaviour.suite import Behaviour, Capability, Roles, class_of
from sentiment.behaviour.templates import Fillings
from sentiment.evaluation.metrics import wilson_interval
from sentiment.inference.predictor import Prediction
from sentiment.readers.blocks import NO_TEXT
from sentiment.readers.columns import FileOptions
from sentiment.readers.formats import open_source
from sentiment.runtime.errors import UserError


@dataclass(frozen=True)
class Proportion:
    """A count out of a total."""

    count: int
    total: int

    @property
    def share(self) -> float:
        """0 if the total is 0."""
        return self.count / self.total if self.total else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the share, as if the cases were independent."""
        return wilson_interval(self.count, self.total) if self.total else (0.0, 1.0)

    def as_dict(self, count: str, total: str, share: str) -> dict[str, object]:
        """Count, total, share and interval under these names, for JSON."""
        return {
            total: self.total,
            count: self.count,
            share: self.share if self.total else None,
            f"{share}_ci95": list(self.interval) if self.total else None,
        }


def add(proportions: Iterable[Proportion]) -> Proportion:
    """Sum of the counts out of the sum of the totals."""
    counts = [(proportion.count, proportion.total) for proportion in proportions]
    return Proportion(sum(count for count, _ in counts), sum(total for _, total in counts))


_MOST_CASES = 100_000  # per test; a file that asks for more is a mistake


@dataclass(frozen=True)
class Case:
    """A text to classify and, in tests of changes, the changed text."""

    text: str
    changed: str | None = None


def make_cases(behaviour: Behaviour, *, seed: int) -> list[Case]:
    """All distinct cases of a test, or ``max_cases`` drawn by the seed and the test's name.

    A draw takes equally many from each template, as far as it has that many. A template without
    cases, too many cases, or a change that changes nothing raises ``UserError``.
    """
    key = f"{seed}, {behaviour.name}"
    try:
        cases = _fill(behaviour, random.Random(key))
        if change := behaviour.change:
            # Seeded by text, so that a case stays the same when others are added.
            cases = [
                Case(case.text, change.apply(case.text, random.Random(f"{key}, {case.text}")))
                for case in cases
            ]
        for case in cases:
            if case.text == case.changed:
                raise UserError(f"the change leaves {case.text!r} as it is")
    except UserError as error:
        raise UserError(f"{behaviour.where}: {error}") from error
    return cases


def _fill(behaviour: Behaviour, generator: random.Random) -> list[Case]:
    groups: list[tuple[str, ...]] = [(template,) for template in behaviour.templates]
    if behaviour.changed:
        groups = list(zip(behaviour.templates, behaviour.changed, strict=True))
    fillings = [Fillings(group, behaviour.lists) for group in groups]
    for template, filling in zip(behaviour.templates, fillings, strict=True):
        if not filling:
            raise UserError(f"{template!r} has more slots of a list than the list has words")
    sizes = [len(filling) for filling in fillings]
    total = min(sum(sizes), behaviour.max_cases or sum(sizes))
    if total > _MOST_CASES:
        raise UserError(f"{total:,} cases, more than {_MOST_CASES:,}: give a lower max_cases")
    cases = [
        Case(*filling[index])
        for filling, count in zip(fillings, _divide(total, sizes), strict=True)
        for index in sorted(generator.sample(range(len(filling)), count))
    ]
    return list(dict.fromkeys(cases))


def _divide(total: int, sizes: Sequence[int]) -> list[int]:
    """Divide a draw evenly among groups; larger groups make up for those that are too small."""
    counts = [0] * len(sizes)
    smallest_first = sorted(range(len(sizes)), key=lambda index: sizes[index])
    for position, index in enumerate(smallest_first):
        counts[index] = min(sizes[index], total // (len(sizes) - position))
        total -= counts[index]
    return counts


Predict = Callable[[Sequence[str]], list[Prediction]]

# Smaller differences of probabilities are rounding, which depends on the other texts of a batch.
_ROUNDING = 1e-5


@dataclass(frozen=True)
class Failure:
    """A case that failed; ``changed`` and ``probability_before`` are None in kind ``minimum``."""

    text: str
    changed: str | None
    # Name of the right class (minimum), of the class whose probability is watched (direction) or
    # of the original text's prediction (invariance).
    expected: str
    got: str  # name of the predicted class, of the changed text if there is one
    probability: float  # of ``got`` in kind minimum, else of ``expected`` in the changed text
    probability_before: float | None  # of ``expected`` in the original text
    distance: float  # how badly it failed, 0 to 1


@dataclass(frozen=True)
class BehaviourOutcome:
    """A test and its failures, the worst first."""

    behaviour: Behaviour
    num_cases: int
    failures: tuple[Failure, ...]

    @property
    def failed(self) -> Proportion:
        return Proportion(len(self.failures), self.num_cases)


@dataclass(frozen=True)
class CapabilityOutcome:
    """A capability and the outcomes of its tests."""

    capability: Capability
    tests: tuple[BehaviourOutcome, ...]

    @property
    def failed(self) -> Proportion:
        return add(test.failed for test in self.tests)


def run_behaviours(
    capabilities: Sequence[Capability],
    predict: Predict,
    class_names: Sequence[str],
    roles: Roles,
    *,
    seed: int,
) -> list[CapabilityOutcome]:
    """Make all cases, classify their texts in one call, each different text once, and judge them.

    ``class_names`` are in the order of the predictions' probabilities; cases and changes are drawn
    by the seed.
    """
    cases = {
        behaviour.where: make_cases(behaviour, seed=seed)
        for capability in capabilities
        for behaviour in capability.tests
    }
    all_cases = [case for group in cases.values() for case in group]
    changed = [case.changed for case in all_cases if case.changed is not None]
    predictions = _predict_distinct(predict, [*(case.text for case in all_cases), *changed])

    def judge_all(behaviour: Behaviour) -> BehaviourOutcome:
        group = cases[behaviour.where]
        judged = [_judge(behaviour, case, predictions, class_names, roles) for case in group]
        failures = [failure for failure in judged if failure is not None]
        failures.sort(key=lambda failure: -failure.distance)
        return BehaviourOutcome(behaviour, len(group), tuple(failures))

    return [
        CapabilityOutcome(capability, tuple(map(judge_all, capability.tests)))
        for capability in capabilities
    ]


def _predict_distinct(predict: Predict, texts: Iterable[str]) -> dict[str, Prediction]:
    distinct = list(dict.fromkeys(texts))
    return dict(zip(distinct, predict(distinct), strict=True))


def _judge(
    behaviour: Behaviour,
    case: Case,
    predictions: Mapping[str, Prediction],
    class_names: Sequence[str],
    roles: Roles,
) -> Failure | None:
    before = predictions[case.text]
    if case.changed is None:  # minimum functionality: the right class
        assert behaviour.role is not None
        right = getattr(roles, behaviour.role)
        expected, got = class_names[right], before.label
        if got == expected:
            return None
        distance = before.probability - before.probabilities[right]
        return Failure(case.text, None, expected, got, before.probability, None, distance)
    after = predictions[case.changed]
    moves = [new - old for old, new in zip(before.probabilities, after.probabilities, strict=True)]
    tolerance = (1.0 if behaviour.tolerance is None else behaviour.tolerance) + _ROUNDING
    if behaviour.role is not None:  # direction: one probability must not fall, or not rise
        watched = getattr(roles, behaviour.role)
        distance = -moves[watched] if behaviour.must_not == "lower" else moves[watched]
        has_failed = distance > tolerance
    else:  # invariance: the same class, and probabilities within the tolerance
        watched = list(class_names).index(before.label)
        distance = max(map(abs, moves))
        has_failed = after.label != before.label or distance > tolerance
    if not has_failed:
        return None
    old, new = before.probabilities[watched], after.probabilities[watched]
    expected = class_names[watched]
    return Failure(case.text, case.changed, expected, after.label, new, old, distance)


_BLOCK_ROWS = 1_000
_DEFAULTS = FileOptions()
_NO_TEXT = "no text: fill it in or delete the pair"


@dataclass(frozen=True)
class LabelledTexts:
    """The texts of one file and the indices of their classes."""

    path: Path
    texts: tuple[str, ...]
    labels: tuple[int, ...]


@dataclass(frozen=True)
class BrokenPair:
    """A pair with at least one misclassified text; values are (original, contrast)."""

    row: int  # from 1, without the header
    texts: tuple[str, str]
    labels: tuple[str, str]
    found: tuple[str, str]  # names of the predicted classes
    probabilities: tuple[float, float]  # of the predicted classes


@dataclass(frozen=True)
class PairsOutcome:
    """How a run classifies contrast pairs."""

    files: tuple[str, str]
    original: Proportion  # texts that are classified correctly
    contrast: Proportion
    consistent: Proportion  # pairs of which both texts are classified correctly
    flipped: Proportion  # pairs whose predictions differ, of those whose labels differ
    kept: Proportion  # pairs whose predictions are equal, of those whose labels are equal
    broken: tuple[BrokenPair, ...]  # the pairs that are not consistent, by row


def read_pairs(
    original: Path,
    contrast: Path,
    class_names: Sequence[str],
    roles: Roles | None,
    options: FileOptions = _DEFAULTS,
) -> tuple[LabelledTexts, LabelledTexts]:
    """Read two files of labelled texts, whose rows belong together."""
    first, second = (_read_file(p, class_names, roles, options) for p in (original, contrast))
    num_originals, num_contrasts = (len(file.texts) for file in (first, second))
    if num_originals != num_contrasts:
        raise UserError(
            f"{original} has {num_originals} rows, but {contrast} has {num_contrasts}: each "
            "row of one must belong to the same row of the other"
        )
    return first, second


def run_pairs(
    files: tuple[LabelledTexts, LabelledTexts], predict: Predict, class_names: Sequence[str]
) -> PairsOutcome:
    """Classify the texts of all pairs in one call, each different text once."""
    original, contrast = files
    predictions = _predict_distinct(predict, original.texts + contrast.texts)
    hits, flipped, kept, broken = [], [], [], []
    rows = zip(original.texts, contrast.texts, original.labels, contrast.labels, strict=True)
    for row, (text, edited, label, new_label) in enumerate(rows, 1):
        before, after = predictions[text], predictions[edited]
        labels = class_names[label], class_names[new_label]
        predicted = before.label, after.label
        hit = predicted[0] == labels[0], predicted[1] == labels[1]
        hits.append(hit)
        if label != new_label:
            flipped.append(predicted[0] != predicted[1])
        else:
            kept.append(predicted[0] == predicted[1])
        if not all(hit):
            probabilities = before.probability, after.probability
            broken.append(BrokenPair(row, (text, edited), labels, predicted, probabilities))
    return PairsOutcome(
        files=(str(original.path), str(contrast.path)),
        original=_proportion([hit[0] for hit in hits]),
        contrast=_proportion([hit[1] for hit in hits]),
        consistent=_proportion([all(hit) for hit in hits]),
        flipped=_proportion(flipped),
        kept=_proportion(kept),
        broken=tuple(broken),
    )


def _proportion(answers: Sequence[bool]) -> Proportion:
    return Proportion(sum(answers), len(answers))


def _read_file(
    path: Path, class_names: Sequence[str], roles: Roles | None, options: FileOptions
) -> LabelledTexts:
    texts, labels = [], []
    source = open_source(path, options, with_label=True, others=[])
    for block in source.blocks(_BLOCK_ROWS):
        for index, problem in block.bad_rows.items():
            raise UserError(f"{block.place(index)}: {_NO_TEXT if problem == NO_TEXT else problem}")
        names = block.values(str(source.label_column))
        for index, (text, name) in enumerate(zip(block.texts, names, strict=True)):
            assert text is not None, "it would be a bad row"
            label = class_of(str(name), class_names, roles)
            if label is None:
                raise UserError(
                    f"{block.place(index)}: label {name!r} is not one of the classes "
                    f"{', '.join(class_names)}"
                )
            texts.append(text)
            labels.append(label)
    if not texts:
        raise UserError(f"{path} has no rows: pairs were expected")
    return LabelledTexts(path, tuple(texts), tuple(labels))
