"""What is said of files of behaviour tests that are not as they must be."""

from __future__ import annotations

import re

import pytest
from helpers.behaviour_files import write

from sentiment.behaviour.checks import make_cases
from sentiment.behaviour.suite import read_behaviours, read_capability

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
