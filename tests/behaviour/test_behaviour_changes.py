"""Changes to texts: they change what they say, and nothing else."""

from __future__ import annotations

import random
import re
import string

import pytest
from helpers.behaviour_files import LISTS, cases

from sentiment.behaviour.templates import make_typos, remove_punctuation, swap_words


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
