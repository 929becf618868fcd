"""Behaviour tests as data: filled, drawn, and judged by rules whose mistakes are known."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import yaml
from helpers.behaviour_files import LISTS, cases, write

from sentiment.behaviour.checks import CapabilityOutcome, Proportion, make_cases, run_behaviours
from sentiment.behaviour.suite import (
    Roles,
    read_behaviours,
    read_capability,
    shipped_behaviours,
)
from sentiment.behaviour.templates import Fillings
from sentiment.inference.predictor import Prediction

PLACES = [shipped_behaviours()]
PRAISE, BLAME = {"good", "superb", "lovely"}, {"bad", "awful", "dull"}


def test_filling_takes_every_combination_once(tmp_path):
    made = cases(tmp_path, templates=["The {part} was {praise}, {praise}!", "Fine {part}"])
    words = [(part, praise) for part in LISTS["part"] for praise in LISTS["praise"]]
    expected = [f"The {part} was {praise}, {praise}!" for part, praise in words]
    assert [case.text for case in made] == expected + [f"Fine {part}" for part in LISTS["part"]]


def test_two_slots_of_a_list_differ():
    fillings = Fillings(["{a} {b} {a:2} {a:3}"], {"a": (*"xyz",), "b": (*"pq",)})
    filled = [text for index in range(len(fillings)) for text in fillings[index]]
    assert len(filled) == len(set(filled)) == 6 * 2
    for text in filled:
        one, _, two, three = text.split()
        assert {one, two, three} == set("xyz")


def test_a_draw_is_seeded_even_and_part_of_all(tmp_path):
    templates = ["{name}", "The {part} and the {part:2} of {name} and {name:2}: {praise}"]
    everything = {case.text for case in cases(tmp_path, templates=templates)}
    assert len(everything) == 5 + 6 * 20 * 2
    drawn = [cases(tmp_path, seed, templates=templates, max_cases=20) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    for texts in ({case.text for case in each} for each in drawn):
        assert len(texts) == 20 and texts < everything
        assert sum(text in LISTS["name"] for text in texts) == 5  # all, as it has no more
    even = cases(tmp_path, templates=["A {name}, {part}", "B {name}, {part}"], max_cases=10)
    assert Counter(case.text[0] for case in even) == {"A": 5, "B": 5}


def test_a_draw_from_more_than_can_be_listed(tmp_path):
    lists = {"w": [f"word{number}" for number in range(400)]}
    test = {"name": "a", "kind": "minimum", "expect": "positive", "max_cases": 30}
    template = "{w} {w:b} {w:c} {w:d}"
    path = write(tmp_path, [{**test, "templates": [template]}], lexicon=lists)
    made = make_cases(read_capability(path).tests[0], seed=3)
    assert len({case.text for case in made}) == 30
    assert all(len(set(case.text.split())) == 4 for case in made)
    path = write(
        tmp_path, [{**test, "templates": [template + "{w:e} {w:f} {w:g} {w:h}"]}], lexicon=lists
    )
    with pytest.raises(ValueError, match=r"tests.yaml, test 'a': .* too many combinations"):
        make_cases(read_capability(path).tests[0], seed=3)
    del test["max_cases"]
    path = write(tmp_path, [{**test, "templates": ["{w} {w:b}"]}], lexicon=lists)
    with pytest.raises(ValueError, match=r"159,600 cases, more than 100,000: give a lower max"):
        make_cases(read_capability(path).tests[0], seed=3)


def test_changed_templates_hold_the_same_words_and_more(tmp_path):
    template = "The {part} is {praise}."
    keys = {"templates": [template], "changed": [template + " {more}"]}
    made = cases(tmp_path, kind="direction", must_not_lower="positive", **keys)
    assert len(made) == 3 * 2 * 2 == len(set(made))
    for case in made:
        assert case.changed is not None
        assert case.changed.removeprefix(f"{case.text} ") in LISTS["more"]


def predictor(rule: Callable[[str], float]) -> Callable[[Sequence[str]], list[Prediction]]:
    """A rule for the probability of the second of the classes neg and pos."""

    def predict(texts: Sequence[str]) -> list[Prediction]:
        assert len(set(texts)) == len(texts)  # each text once
        rows = [(1 - rule(text), rule(text)) for text in texts]
        return [Prediction(("neg", "pos")[r[1] > r[0]], max(r), r, 1, False) for r in rows]

    return predict


def count_words(text: str, praise=frozenset(PRAISE), blame=frozenset(BLAME)) -> float:
    words = re.findall(r"[\w']+", text.lower())
    score = sum(word in praise for word in words) - sum(word in blame for word in words)
    return 0.5 + score / (2 * (abs(score) + 1)) - 1e-3


def with_negation(text: str) -> float:
    return 1 - count_words(text) if re.search(r"\b(not|never)\b", text) else count_words(text)


def run(path: Path, rule: Callable[[str], float]) -> CapabilityOutcome:
    (outcome,) = run_behaviours(
        read_behaviours([path]), predictor(rule), ("neg", "pos"), Roles(0, 1), seed=0
    )
    return outcome


def test_a_rule_fails_where_it_is_wrong_and_nowhere_else(tmp_path):
    path = write(tmp_path, [
        {"name": "plain", "kind": "minimum", "expect": "positive",
         "templates": ["The {part} was {praise}."]},
        {"name": "denied", "kind": "minimum", "expect": "negative",
         "templates": ["The {part} was not {praise}.", "It was {blame}."]},
        {"name": "names", "kind": "invariance", "change": {"swap": "name"}, "tolerance": 0,
         "templates": ["{name} is {praise}.", "{name} is not {blame}."]},
        {"name": "more", "kind": "direction", "must_not_lower": "positive", "tolerance": 0,
         "change": {"append": "more"}, "templates": ["The {part} is {blame}."]},
    ])  # fmt: skip
    assert run(path, with_negation).failed == Proportion(0, 6 + 8 + 20 + 6)
    outcome = run(path, count_words)
    assert [test.failed.count for test in outcome.tests] == [0, 6, 0, 0]
    for failure in outcome.tests[1].failures:
        assert " not " in failure.text
        assert (failure.expected, failure.got) == ("neg", "pos")
        assert failure.probability == count_words(failure.text)


def test_directions_and_invariances_fail_beyond_their_tolerance(tmp_path):
    def test(name, **keys):
        template = {"templates": ["{part}"], "changed": ["{part}!"]}
        return {"name": name, "kind": "direction", **template, **keys}

    path = write(tmp_path, [
        test("1", must_not_lower="positive"),  # within a tenth unless said otherwise
        test("2", must_not_raise="negative", tolerance=0.31),
        test("3", must_not_raise="positive", tolerance=0),
        test("4", must_not_lower="negative", tolerance=0),
        test("5", kind="invariance"),
        test("6", kind="invariance", tolerance=0.29),
    ])  # fmt: skip
    outcome = run(path, lambda text: 0.6 if "!" in text else 0.9)
    assert [each.failed.count for each in outcome.tests] == [3, 0, 0, 0, 0, 3]
    worst = outcome.tests[0].failures[0]
    assert (worst.expected, worst.probability_before, worst.probability) == ("pos", 0.9, 0.6)
    flipping = run(path, lambda text: 0.45 if "!" in text else 0.55)
    assert [each.failed.count for each in flipping.tests] == [0, 0, 0, 0, 3, 3]
    assert flipping.tests[4].failures[0].expected == "pos"
    assert flipping.tests[4].failures[0].got == "neg"


def test_shipped_files_hold_what_they_should():
    capabilities = read_behaviours(PLACES)
    assert len(capabilities) >= 8
    total = 0
    for capability in capabilities:
        assert capability.about
        for behaviour in capability.tests:
            made = make_cases(behaviour, seed=0)
            assert 20 <= len(made) <= 100, behaviour.place
            assert len(set(made)) == len(made)
            if behaviour.kind == "minimum":
                assert len({case.text for case in made}) == len(made)
            for text in (text for case in made for text in (case.text, case.changed) if text):
                assert not re.search(r"[{}]|\s\s|\ba [aeiou]|\ban [^aeiou]|^[a-z]| [.,]", text) or (
                    text == text.lower() and behaviour.change is not None
                ), text
            total += len(made)
    assert 600 <= total <= 2000


def test_shipped_labels_are_those_of_the_last_verdict():
    """Where nothing is denied or compared, whoever reads the last verdict alone gets all right."""
    lists = yaml.safe_load((PLACES[0] / "lexicon.yaml").read_text())["lexicon"]
    praise = [*lists["praise"], *lists["good"], *lists["praising_sentence"]]
    praise += ["loved", "adored", "enjoyed", "liked", "thrilled", "best", "finest", "funniest"]
    praise += ["moving", "exciting", "gripping", "funny", "fascinating", "big smile"]
    blame = [*lists["blame"], *lists["bad"], *lists["blaming_sentence"], "hated", "despised"]
    blame += ["loathed", "disliked", "bored", "worst", "dullest", "annoying", "pointless"]
    blame += ["tiresome", "tedious", "unbearable", "never recovered"]
    pattern = re.compile(rf"({'|'.join(map(re.escape, praise))})|{'|'.join(map(re.escape, blame))}")

    def rule(text: str) -> float:
        return [0.9 if match[1] else 0.1 for match in pattern.finditer(text)][-1]

    read = [each for each in read_behaviours(PLACES) if each.name in FREE_OF_DENIALS]
    assert len(read) == len(FREE_OF_DENIALS)
    outcomes = run_behaviours(read, predictor(rule), ("neg", "pos"), Roles(0, 1), seed=0)
    for test in (test for each in outcomes for test in each.tests):
        assert not test.failures or test.behaviour.kind == "invariance", test.failures[0]


FREE_OF_DENIALS = ("plain verdicts", "turns", "subjects", "additions")
