"""Contrast pairs: how files are read, and what is counted."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sentiment.behaviour.checks import Proportion, read_pairs, run_pairs
from sentiment.behaviour.suite import Roles, class_of, find_roles, require_roles
from sentiment.inference.predictor import Prediction

NAMES, ROLES = ("neg", "pos"), Roles(0, 1)
HEADER = "Sentiment\tText\n"


def write(path: Path, content: str) -> Path:
    path.write_bytes(content.encode("utf-8"))
    return path


def read(folder: Path, original: str, contrast: str, names=NAMES, ending="tsv"):
    paths = [
        write(folder / f"{name}.{ending}", text)
        for name, text in (("original", original), ("contrast", contrast))
    ]
    return read_pairs(*paths, names, find_roles(names))


def predict(texts):
    """Positive with a plus, certain by their number."""
    assert len(set(texts)) == len(texts)
    predictions = []
    for text in texts:
        positive = 0.9 if "+" in text else 0.2
        rows = (1 - positive, positive)
        predictions.append(Prediction(NAMES[positive > 0.5], max(rows), rows, 1, False))
    return predictions


def test_counts_of_pairs(tmp_path):
    """All combinations of right and wrong, and a pair whose label stays."""
    original = (
        "Positive\t+ 1\nPositive\t+ 2\nNegative\t+ 3\nNegative\t+ 4\nnegative\t- 5\npos\t+ 1\n"
    )
    contrast = "Negative\t- 1\nNegative\t+ 2\nPositive\t+ 3\nPositive\t- 4\nNEGATIVE\t+ 5\n1\t+ 6\n"
    outcome = run_pairs(read(tmp_path, HEADER + original, HEADER + contrast), predict, NAMES)
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
    sides = read(
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
        (HEADER + "\tx\n", "original.tsv, row 1: label '' is not one of the classes"),
        (HEADER + "2\tx\n", "original.tsv, row 1: label '2' is not one of the classes"),
        (HEADER + 'pos\t"x" y\n', "in line 2: '\t' expected after '\"': set --quoting none"),
        (HEADER + "pos\tx\n", r"original.tsv has 1 rows, but "),
    ],
)
def test_mistakes_in_a_file_are_named(tmp_path, original, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        read(tmp_path, original, HEADER + "pos\tx\nneg\ty\n")


def test_files_that_are_none_of_pairs(tmp_path):
    good = write(tmp_path / "good.tsv", HEADER + "pos\tx\n")
    with pytest.raises(FileNotFoundError, match="there is no file .*absent.tsv"):
        read_pairs(good, tmp_path / "absent.tsv", NAMES, ROLES)


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
