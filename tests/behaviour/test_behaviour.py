"""Behaviour tests as data: filled, changed, judged by rules of known mistakes; contrast pairs."""

import random
import re
import string
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from helpers.behaviour_files import LISTS, cases, predictor, write

from sentiment.behaviour.checks import (
    CapabilityOutcome,
    Proportion,
    make_cases,
    read_pairs,
    run_behaviours,
    run_pairs,
)
from sentiment.behaviour.suite import (
    Roles,
    class_of,
    find_roles,
    read_behaviours,
    read_capability,
    require_roles,
    shipped_behaviours,
)
from sentiment.behaviour.templates import make_typos, remove_punctuation, swap_words

PLACES = [shipped_behaviours()]
PRAISE, BLAME = {"good", "superb", "lovely"}, {"bad", "awful", "dull"}


def test_filling_takes_every_combination_once(tmp_path):
    made = cases(tmp_path, templates=["The {part} was {praise}, {praise}!", "Fine {part}"])
    words = [(part, praise) for part in LISTS["part"] for praise in LISTS["praise"]]
    expected = [f"The {part} was {praise}, {praise}!" for part, praise in words]
    assert [case.text for case in made] == expected + [f"Fine {part}" for part in LISTS["part"]]


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


@pytest.mark.parametrize("number", [1, 3])
def test_typos_swap_two_inner_neighbours_and_nothing_else(number):
    text = "The photography, sadly, wasn't worth the TICKET; a noon was llll."
    seen = set()
    for seed in range(200):
        changed = make_typos(text, number, random.Random(seed))
        assert changed == make_typos(text, number, random.Random(seed))
        places = [i for i, pair in enumerate(zip(text, changed, strict=True)) if pair[0] != pair[1]]
        assert len(places) == 2 * number
        for first, second in zip(places[::2], places[1::2], strict=True):
            assert second == first + 1
            assert (changed[first], changed[second]) == (text[second], text[first])
            # Inside a word: letters on both sides.
            assert all(text[i].isalpha() for i in range(first - 1, second + 2))
        seen.add(changed)
    assert len(seen) > 10
    assert make_typos("a cat sat noon llll", 5, random.Random(0)) == "a cat sat noon llll"


def test_names_are_swapped_consistently():
    text = "Ann Lee met Bea. Ann's Anna saw Bea; Ann Lee left."
    for seed in range(50):
        changed = swap_words(text, LISTS["name"] + ["Eve", "Fay"], random.Random(seed))
        match = re.fullmatch(r"(.+) met (.+)\. (.+)'s Anna saw (.+); (.+) left\.", changed)
        first, second, third, again, last = match.groups()
        assert first == last and second == again
        assert len({first, second, third}) == 3
        assert {first, second, third} <= {"Cleo", "Dora", "Eve", "Fay"}  # names not yet there
    assert swap_words("Ann and Bea", ["Ann", "Bea"], random.Random(0)) == "Bea and Ann"
    assert swap_words("a+b", ["a+b", "c"], random.Random(0)) == "c"


def test_punctuation_goes_but_for_that_of_words_and_numbers():
    text = "“It's well-made”, 9.5/10 – wow... No, really!"
    assert remove_punctuation(text) == "It's well-made 9.5/10 wow No really"
    kept = set(string.ascii_letters + string.digits + " '-./$")
    assert set(remove_punctuation("$" + string.printable)) <= kept | set("$+<=>^`|~_")


def test_cases_of_each_change(tmp_path):
    (tmp_path / "x").mkdir()

    def changed(change, template="{name}, the {part} is {praise}."):
        return cases(tmp_path / "x", kind="invariance", change=change, templates=[template])

    for case in changed({"case": "upper"}):
        assert case.changed != case.text and case.changed.casefold() == case.text.casefold()
        assert case.changed.isupper()
    for case in changed({"append": "more"}):
        assert case.changed.removeprefix(case.text + " ") in LISTS["more"]
    for case in changed({"swap": "name"}):
        before, after = case.text.split(", "), case.changed.split(", ")
        assert before[1] == after[1] and before[0] != after[0] and after[0] in LISTS["name"]
    assert changed({"typos": 1}) == changed({"typos": 1})
    with pytest.raises(ValueError, match=r"test 'a test': the change leaves 'so so' as it is"):
        changed({"case": "lower"}, "so so")


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


GOOD = {"name": "a", "kind": "minimum", "expect": "positive", "templates": ["{part}"]}
MOVED = {"name": "a", "kind": "direction", "must_not_lower": "positive", "templates": ["{part}"]}


@pytest.mark.parametrize(
    ("test", "message"),
    [
        ({**GOOD, "templtes": []}, "test 'a' of kind minimum: unknown key 'templtes' (did you me"),
        ({**GOOD, "kind": "minimal"}, "test 'a': kind is 'minimal', which is unknown (did you mea"),
        ({**GOOD, "expect": "pos"}, "test 'a': expect is 'pos', which is unknown (one of neg"),
        ({**GOOD, "tolerance": 0.1}, "of kind minimum: unknown key 'tolerance' (one of name, kin"),
        ({**GOOD, "templates": []}, "test 'a': templates is empty: give at least one text"),
        ({**GOOD, "templates": "{part}"}, "test 'a': templates must be a list of texts"),
        ({**GOOD, "templates": ["a", "a"]}, "test 'a': templates has 'a' twice: delete one"),
        ({**GOOD, "templates": [" "]}, "test 'a': templates: an empty text"),
        ({**GOOD, "templates": [True]}, "test 'a': templates: True is not a text: put it in quo"),
        ({**GOOD, "templates": ["\ud83d"]}, "not YAML: found invalid Unicode"),
        ({**GOOD, "templates": ["{prat}"]}, "'{prat}': slot {prat} has no list (did you mean par"),
        ({**GOOD, "templates": ["{part"]}, "'{part': a brace that belongs to no slot"),
        ({**GOOD, "templates": ["{part:a b}"]}, "a brace that belongs to no slot: slots are {LI"),
        ({**GOOD, "max_cases": 0}, "max_cases is 0, but must be an integer of at least 1"),
        ({**GOOD, "name": 7}, "test 1: name: 7 is not a text: put it in quotes"),
        ({"kind": "minimum", "templates": ["x"]}, "test 1 of kind minimum: name is"),
        ({"name": "a", "kind": "minimum", "templates": ["x"]}, "kind minimum: expect is"),
        ("text", "tests.yaml, test 1: must have keys and values"),
        (MOVED, "test 'a': change or changed is needed, but both are missing"),
        ({**MOVED, "change": {"typos": 1}, "changed": ["x"]}, "but change, changed are given"),
        ({**MOVED, "changed": ["x", "y"]}, "templates has 1, but changed 2: write one for each"),
        ({**MOVED, "change": "typos"}, "change must be one of swap, typos, case, remove, append"),
        ({**MOVED, "change": {"typo": 1}}, "change is 'typo', which is unknown (did you mean ty"),
        ({**MOVED, "change": {"typos": "1"}}, "change: typos is '1', but must be an integer of at"),
        ({**MOVED, "change": {"case": "uper"}}, "case is 'uper', which is unknown (did you"),
        ({**MOVED, "change": {"swap": "nam"}}, "swap is 'nam', which is unknown (did you mean na"),
        ({**MOVED, "change": {"swap": []}}, "change: swap is [], which is unknown (one of blam"),
        ({**MOVED, "change": {"typos": 1}, "tolerance": 2}, "tolerance is 2, but must be a change"),
        ({**MOVED, "change": {"typos": 1}, "must_not_raise": "positive"},
         "but must_not_lower, must_not_raise are given"),
    ],
)  # fmt: skip
def test_mistakes_in_a_test_are_named(tmp_path, test, message):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        read_behaviours([write(tmp_path, [test])])
    assert str(tmp_path / "tests.yaml") in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "tests.yaml holds nothing, but must hold keys and values"),
        (b"- a\n", "tests.yaml holds a list, but must hold keys and values"),
        (b"\x89PNG\r\n\x1a\n\xff", "tests.yaml: not UTF-8 at byte 0"),
        (b"capability: x\ntests: [a\n", "tests.yaml, line 3: not YAML: "),
        (b"capability: x\nlexicon:\n  a: [b]\n  a: [c]\n", "line 4: not YAML: the key 'a' occurs"),
        (b"capability: x\ntest: []\n", "unknown key 'test' (did you mean tests?)"),
        (b"capability: x\n", "tests.yaml: tests is missing"),
        (b"capability: x\ntests: []\n", "tests.yaml: tests must be a list of at least one test"),
        (b"capability: x\ntests: [a]\nlexicon: []\n", "lexicon must name lists, such as noun:"),
        (b"capability: x\ntests: [a]\nlexicon: {noun: []}\n", "list 'noun' is empty: give at le"),
        (b"capability: x\ntests: [a]\nlexicon: {noun: [no]}\n", "list 'noun': False is not a text"),
        (b"capability: x\ntests: [a]\nlexicon: {a: [b, b]}\n", "list 'a' has 'b' twice: delete"),
    ],
)  # fmt: skip
def test_broken_files_are_named(tmp_path, content, message):
    (tmp_path / "tests.yaml").write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        read_behaviours([tmp_path])
    assert str(caught.value).count("tests.yaml") == 1


def test_mistakes_between_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file .*absent.yaml"):
        read_behaviours([tmp_path / "absent.yaml"])
    with pytest.raises(FileNotFoundError, match=r"has no files of behaviour tests \(.yaml\)"):
        read_behaviours([tmp_path])
    path = write(tmp_path, [GOOD, GOOD])
    with pytest.raises(ValueError, match="tests.yaml: two tests are named 'a': rename one"):
        read_behaviours([path])
    path = write(tmp_path, [GOOD])
    with pytest.raises(ValueError, match="capability 'x' is also that of"):
        read_behaviours([path, tmp_path])
    (tmp_path / "lexicon.yaml").write_text("lexicon: {part: [plot], place: [Rome]}")
    with pytest.raises(ValueError, match="list 'part' is in .*lexicon.yaml too: give it another"):
        read_behaviours([path])
    (tmp_path / "lexicon.yaml").write_text("lexicon: {place: [Rome]}\ntests: []")
    with pytest.raises(ValueError, match="lexicon.yaml: unknown key 'tests'"):
        read_behaviours([path])


def test_lists_are_shared_by_a_folder(tmp_path):
    (tmp_path / "lexicon.yaml").write_text("lexicon: {place: [Rome, Oslo]}")
    path = write(tmp_path, [{**GOOD, "templates": ["The {part} of {place}"]}])
    (capability,) = read_behaviours([tmp_path])
    assert capability == read_capability(path)
    assert len(make_cases(capability.tests[0], seed=0)) == 6


NAMES = ("neg", "pos")
HEADER = "Sentiment\tText\n"


def read_sides(folder: Path, original: str, contrast: str, names=NAMES, ending="tsv"):
    paths = [folder / f"{name}.{ending}" for name in ("original", "contrast")]
    for path, text in zip(paths, (original, contrast), strict=True):
        path.write_bytes(text.encode())
    return read_pairs(*paths, names, find_roles(names))


predict = predictor(lambda text: 0.9 if "+" in text else 0.2)


def test_counts_of_pairs(tmp_path):
    """All combinations of right and wrong, and a pair whose label stays."""
    original = (
        "Positive\t+ 1\nPositive\t+ 2\nNegative\t+ 3\nNegative\t+ 4\nnegative\t- 5\npos\t+ 1\n"
    )
    contrast = "Negative\t- 1\nNegative\t+ 2\nPositive\t+ 3\nPositive\t- 4\nNEGATIVE\t+ 5\n1\t+ 6\n"
    outcome = run_pairs(read_sides(tmp_path, HEADER + original, HEADER + contrast), predict, NAMES)
    assert outcome.original == Proportion(4, 6)
    assert outcome.contrast == Proportion(3, 6)
    assert outcome.consistent == Proportion(2, 6)
    # Flips: 1 (right both times) and 4 (wrong both times) of 1 to 4; 5 and 6 must stay.
    assert outcome.flipped == Proportion(2, 4)
    assert outcome.kept == Proportion(1, 2)
    assert [pair.row for pair in outcome.broken] == [2, 3, 4, 5]
    broken = outcome.broken[2]
    assert broken.texts == ("+ 4", "- 4")
    assert broken.labels == ("neg", "pos") and broken.found == ("pos", "neg")
    assert broken.probabilities == (0.9, 0.8)


def test_values_in_quotes_and_other_columns(tmp_path):
    long = "word " * 50_000  # beyond csv's own limit
    sides = read_sides(
        tmp_path,
        f'\ufeffid,TEXT,Label\n7,"a ""b"", c\nd",pos\n\n8,{long},neg\n',
        "label,text\r\n0,x\r\n1,y\r\n",
        ending="csv",
    )
    assert sides[0].texts == ('a "b", c\nd', long) and sides[0].labels == (1, 0)
    assert sides[1].texts == ("x", "y") and sides[1].labels == (0, 1)


@pytest.mark.parametrize(
    ("original", "message"),
    [
        (HEADER, "original.tsv has no rows: pairs were expected"),
        (HEADER + "pos\tx\n\npos\n", "original.tsv, row 2: 1 values, but the header names 2 col"),
        (HEADER + "pos\t \n", "original.tsv, row 1: no text: fill it in or delete the pair"),
        (HEADER + "pos\tx\ngreat\tx\n", "row 2: label 'great' is not one of the classes neg, pos"),
        (HEADER + 'pos\t"x" y\n', "in line 2: '\t' expected after '\"': set --quoting none"),
        (HEADER + "pos\tx\n", r"original.tsv has 1 rows, but "),
    ],
)
def test_mistakes_in_a_file_are_named(tmp_path, original, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        read_sides(tmp_path, original, HEADER + "pos\tx\nneg\ty\n")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("neg", "pos"), Roles(0, 1)),
        (("Positive", "Negative"), Roles(1, 0)),
        (("0", "1"), Roles(0, 1)),
        (("good", "other"), Roles(1, 0)),
        (("pos", "positive"), Roles(0, 1)),
        (("positive", "neutral"), Roles(1, 0)),
        (("positive", "neutral", "negative"), Roles(2, 0)),
        (("negative", "positive", "mixed", "neutral"), Roles(0, 1)),
        (("very negative", "negative", "positive"), None),
        (("1", "2", "3"), None),
        (("neg", "pos", "bad"), None),
    ],
)
def test_roles_are_found_by_name_or_by_order_of_two(names, expected):
    assert find_roles(names) == expected
    if expected is None:
        with pytest.raises(ValueError, match=f"the classes are {', '.join(names)}, whose names do"):
            require_roles(names)


def test_roles_can_be_given():
    names = ("1", "2", "3")
    assert require_roles(names, {"negative": "3", "positive": "1"}) == Roles(2, 0)
    with pytest.raises(ValueError, match="--roles positive=4: the classes are 1, 2, 3"):
        find_roles(names, {"negative": "1", "positive": "4"})
    with pytest.raises(ValueError, match="--roles: class '1' was given both roles"):
        find_roles(names, {"negative": "1", "positive": "1"})


def test_labels_are_names_roles_or_numbers():
    def classes(names, *labels):
        return [class_of(label, names, find_roles(names)) for label in labels]

    assert classes(NAMES, "pos", " POS ", "Positive", "good", "1", "0") == [1, 1, 1, 1, 1, 0]
    assert classes(NAMES, "", "x", "2", "-1", "neutral", "９", "1.0") == [None] * 7
    assert classes(("1", "2"), "1", "2", "0", "positive") == [0, 1, None, 1]
    assert classes(("A", "a", "b"), "A", "a", "B", "1") == [0, 1, 2, 1]
    assert classes(("x", "y", "z"), "positive", "y") == [None, 1]  # no roles
    assert classes(("positive", "neutral", "negative"), "Neutral", "neg") == [1, 2]
