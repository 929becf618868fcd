"""A label means the same class in every type of column, format and split."""

import logging
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from helpers.review_files import load, refusal, write
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sentiment.config.config import DataConfig
from sentiment.config.parser import parse_training
from sentiment.data.reviews import load_split, load_training_splits
from sentiment.readers.labels import (
    LEFT_OUT,
    UNLABELLED,
    LabelRules,
    NumberedLabels,
    describe_classes,
    label_name,
    number_labels,
)
from sentiment.readers.sources import choose_reviews
from sentiment.runtime.errors import UserError

# How a column may hold an integer, or a boolean as 0 and 1.
NUMBERS: dict[str, Callable[[int], Any]] = {
    "integers": int,
    "floats": float,
    "digits": str,
    "decimals": lambda value: f"{value}.0",
    "padded": lambda value: f" {value:+03d} ",
}
BOOLEANS = NUMBERS | {
    "booleans": bool,
    "capitalized": lambda value: str(bool(value)),
    "lower": lambda value: str(bool(value)).lower(),
    "upper": lambda value: str(bool(value)).upper(),
}


def number(values: list[Any], **rules: Any) -> NumberedLabels:
    return number_labels(
        values, LabelRules(**rules), place=lambda row: f"row {row + 1}", origin="here"
    )


def meaning(name: str) -> int:
    """The integer that a class's name stands for."""
    return {"False": 0, "True": 1}[name] if name in ("False", "True") else int(name)


@st.composite
def splits(draw: st.DrawFn) -> tuple[list[int], list[int], list[Any], list[Any]]:
    """Integers of a training split and of a part of it, and both as columns hold them."""
    is_binary = draw(st.booleans())
    classes = [0, 1] if is_binary else draw(st.lists(st.integers(-3, 12), min_size=2, unique=True))
    assume(-1 not in classes or sorted(classes) != list(range(-1, len(classes) - 1)))
    train = classes + draw(st.lists(st.sampled_from(classes), max_size=5))
    part = draw(st.lists(st.sampled_from(classes), min_size=1, max_size=6))
    kinds = BOOLEANS if is_binary else NUMBERS
    first, second = (kinds[draw(st.sampled_from(sorted(kinds)))] for _ in range(2))
    return train, part, list(map(first, train)), list(map(second, part))


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
@given(columns=splits(), other=st.sampled_from(["csv", "jsonl", "parquet"]))
@settings(max_examples=15, deadline=None)
def test_no_format_shifts_a_class(tmp_path_factory, suffix, columns, other):
    folder = tmp_path_factory.mktemp("labels")
    train, part, train_values, part_values = columns
    texts = [f"review {row}" for row in range(len(train) + len(part))]
    write(folder / f"train.{suffix}", {"text": texts[: len(train)], "label": train_values})
    write(folder / f"test.{other}", {"text": texts[len(train) :], "label": part_values})
    write(folder / "validation.csv", {"text": ["another"], "label": [train[0]]})
    data = DataConfig(path=str(folder))
    reviews, _ = load_training_splits(data)
    names = reviews.class_names
    assert [meaning(names[label]) for label in reviews.labels] == train
    tested = load_split(data, "test", names)
    assert [meaning(names[label]) for label in tested.labels] == part


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ([1, 1.0, "1", "1.0", " 01 ", "+1", "1.", "1.00"], "1"),
        ([-1, -1.0, "-1", "-1.0"], "-1"),
        ([0, 0.0, -0.0, "-0", ".0", "00"], "0"),
        ([0.5, "0.5", ".50", "+0.500"], "0.5"),
        ([1e16, 10**16, "1" + "0" * 16], "1" + "0" * 16),
        ([True, "True", "true", "TRUE "], "True"),
        ([None, float("nan"), "", " "], None),
        (["1e3"], "1e3"),
        (["."], "."),
        (["good film "], "good film"),
    ],
)
def test_names_of_values(values, name):
    assert {label_name(value) for value in values} == {name}


def test_classes_are_ordered_by_value():
    assert number([10, "9", 2.5, "b", "B", -3]).class_names == ("-3", "2.5", "9", "10", "B", "b")


def test_integers_are_indices_only_where_the_source_or_the_user_says_so():
    names = ("neg", "pos")
    assert number([1, "0"], class_names=names, names_integers=True).labels.tolist() == [1, 0]
    assert number([True, False], class_names=names, names_integers=True).labels.tolist() == [1, 0]
    with pytest.raises(UserError, match="label 1 is not one of the classes neg, pos: if 0 means "):
        number([1, 0], class_names=names)
    numbered = number([1, 1], declared=("pos", "neg", "mixed"))
    assert numbered.class_names == ("pos", "neg", "mixed")
    assert numbered.labels.tolist() == [1, 1]
    assert number([1, 0], declared=("pos", "neg"), class_names=names).labels.tolist() == [0, 1]
    with pytest.raises(UserError, match="label 3 is not one of the classes pos, neg, mixed"):
        number([3], declared=("pos", "neg", "mixed"))


def test_names_of_the_source_beside_a_run_that_knew_the_integers_only():
    stars = tuple(f"{number} stars" for number in range(1, 6))
    with pytest.raises(UserError, match="label 1, which means '2 stars', is not one of the"):
        number([1, 2], declared=stars, class_names=("1", "2", "3", "4", "5"))


@pytest.mark.parametrize(
    ("values", "rules", "labels"),
    [
        ([-1, 0, 1, None, *[1] * 7], {}, [-1, 0, 1, -1, *[1] * 7]),
        (["x", "NA", "y", "\\N", "nan", " NULL "], {}, [0, -1, 1, -1, -1, -1]),
        (["x", "NA", "y"], {"renames": {"NA": "none"}}, [1, 0, 2]),
        (["x", "NA", "y", "N/A"], {"class_names": ("NA", "x", "y")}, [1, 0, 2, -1]),
        ([0, "NaN", 1], {"declared": ("neg", "pos")}, [0, -1, 1]),
        ([-1, 1, "", 1], {}, [0, 1, -1, 1]),
        ([-1, 1, 2], {}, [0, 1, 2]),
        ([0, -1, 4], {}, [1, 0, 2]),
        ([-1, *[0, 1] * 5], {"class_names": ("0", "1")}, [-1, *[0, 1] * 5]),
        ([-1, 0, 1], {"class_names": ("-1", "0", "1")}, [0, 1, 2]),
        ([-1, -1], {"class_names": ("0", "1")}, [-1, -1]),
        ([-1, 1], {"declared": ("neg", "pos")}, [-1, 1]),
        ([-1, 0, 1], {"renames": {"-1": "bad"}}, [2, 0, 1]),
        ([-1, 0, 1], {"renames": {"-1": None}}, [-2, 0, 1]),
    ],
)
def test_unlabelled_rows(values, rules, labels):
    assert (UNLABELLED, LEFT_OUT) == (-1, -2)
    assert number(values, **rules).labels.tolist() == labels


@pytest.mark.parametrize("names", [("0", "1"), ("0", "1", "2")])
@pytest.mark.parametrize("is_index", [False, True])
def test_minus_one_that_may_be_a_class_is_refused(names, is_index):
    """-1, 1 may be the classes 0, 1 of another file, and -1, 0, 1 the classes 0, 1, 2."""
    values = [-1, 1] if len(names) == 2 else [-1, 0, 1]
    class_names = tuple(f"class {name}" for name in names) if is_index else names
    with pytest.raises(UserError, match=r"label -1.*--data\.labels '\{-1: "):
        number(values, class_names=class_names, names_integers=is_index)


def test_labels_are_renamed_merged_and_left_out():
    renames = {"0": "neg", "4.0": "pos", "2": None, "3": "pos"}
    numbered = number([0.0, "4", 2, 3, "odd"], renames=renames)
    assert numbered.class_names == ("neg", "odd", "pos")
    assert numbered.labels.tolist() == [0, 2, LEFT_OUT, 2, 1]
    assert number([True, False], renames={"0": "neg", "1": "pos"}).labels.tolist() == [1, 0]
    numbered = number([0, 2], declared=("a", "b", "c"), renames={"0": "x", "b": None, "c": "y"})
    assert numbered.class_names == ("x", "y")
    assert numbered.unused == []


def reviews_folder(folder: Path, labels: list[Any], validation: list[Any] | None = None) -> Path:
    texts = [f"review {row}" for row in range(2 * len(labels))]
    write(folder / "train.csv", {"text": texts, "label": labels * 2})
    if validation is not None:
        texts = [f"another {row}" for row in range(len(validation))]
        write(folder / "validation.csv", {"text": texts, "label": validation})
    return folder


def test_a_listed_label_must_occur(tmp_path):
    reviews_folder(tmp_path, ["good", "bad"], ["good", "odd"])
    load(tmp_path, "train", labels={"odd": None})  # in validation only
    message = refusal(UserError, tmp_path, "train", labels={"Good": "pos"})
    assert message.startswith(
        "data.labels lists Good, but the labels are bad, good, odd (did you mean good?)"
    )
    reviews_folder(tmp_path, ["no", "yes"], ["no", "yes"])
    message = refusal(UserError, tmp_path, "train", labels=yaml.safe_load("{no: a, yes: b}"))
    assert "lists False, True, but the labels are no, yes (YAML reads yes, no" in message


@pytest.mark.parametrize(
    ("train", "validation"),
    [
        (["bad", "good"], ["bad", "Goood"]),
        (["bad", "good"], ["bad", "good", "it's odd"]),
        (["bad", "good"], [1, 2]),
        ([0, 1], [0, 1, 2]),
        ([0, 1], [-1, 0, 1, 1, 2]),
        ([0, 1, 2], [-1, 0, 0]),
        (["no", "yes"], [False, True]),
    ],
)
def test_what_a_refusal_names_works_when_followed(tmp_path, train, validation):
    reviews_folder(tmp_path, train, validation)
    option = refusal(UserError, tmp_path, "validation").split("--data.labels ")[1]
    config = parse_training(shlex.split(f"--data.path={tmp_path} --data.labels {option}"), "train")
    _, found = load_training_splits(config.config.data)
    assert len(found) > 0


def test_a_frequent_minus_one_is_refused_with_both_meanings(tmp_path):
    (tmp_path / "all.csv").write_text("text,label\n" + "a -1,-1\nb 0,0\nc 1,1\n" * 9)
    message = refusal(UserError, tmp_path / "all.csv", "all")
    assert "row 1: label -1, as in 9 of 27 rows" in message
    classes = []
    for option in re.findall(r"--data.labels ('.*?')", message):
        arguments = f"--data.path={tmp_path / 'all.csv'} --data.labels {option}"
        data = parse_training(shlex.split(arguments), "train").config.data
        reviews = load_split(data, "all")
        classes.append((reviews.class_names, len(reviews)))
    assert classes == [(("0", "1", "NAME"), 27), (("0", "1"), 18)]


def test_words_for_missing_labels_are_said(tmp_path, caplog):
    columns = {"text": list("abcdef"), "label": ["x", "y", "NA", "x", "\\N", "y"]}
    write(tmp_path / "test.csv", columns)
    assert load(tmp_path).texts == ["a", "b", "d", "f"]
    assert "2 of 6 reviews without a label (NA or \\N counts as missing): left out" in caplog.text
    option = caplog.text.split("--data.labels ")[1].split(" makes")[0]
    data = parse_training(shlex.split(f"--data.labels {option}"), "train").config.data
    assert load(tmp_path, labels=data.labels).class_names == ("NAME", "x", "y")


@pytest.mark.parametrize(("train", "part"), [([0, 1], [1, 2]), (range(5), [1, 2, 4, 5])])
def test_numbers_that_count_from_elsewhere_are_not_mapped(train, part):
    """data.labels would change the labels of train too."""
    with pytest.raises(UserError, match="may number the classes differently: use the labels"):
        number(part, class_names=number([*train]).class_names)


def test_rows_without_a_text(tmp_path, caplog):
    texts = ["a", "NA", "b", " "]
    write(tmp_path / "test.csv", {"text": texts, "label": [0, 1, 1, 0]})
    with caplog.at_level(logging.INFO):
        reviews = load(tmp_path, missing="skip")
    assert (reviews.texts, reviews.labels.tolist(), reviews.rows.tolist()) == (
        ["a", "b"], [0, 1], [0, 2]
    )  # fmt: skip
    assert "2 rows without a text left out" in caplog.text


def test_rows_keep_their_numbers_and_groups_where_others_are_left_out(tmp_path):
    columns = {"text": list("abcdef"), "label": ["x", "", "y", "x", "y", "x"]}
    write(tmp_path / "train.csv", columns | {"film": [1, "", 2, 2, 3, 3]})
    settings = {"validation": "groups", "group_column": "film", "validation_share": 0.4}
    data = DataConfig(path=str(tmp_path), **settings)
    train, validation = load_training_splits(data)
    rows = sorted([*train.rows, *validation.rows])
    assert rows == [0, 2, 3, 4, 5]
    assert not set(train.groups) & set(validation.groups)


@pytest.mark.parametrize("num_classes", [2, 10, 300])
def test_the_line_on_classes_shows_ten(num_classes):
    names = [f"{'long ' * index}class {index}" for index in range(num_classes)]
    line = describe_classes(np.repeat(np.arange(num_classes), 1000), names)
    assert line.startswith("class 0 (1,000), long class 1 (1,000)")
    assert line.count("(1,000)") == min(num_classes, 10)
    assert line.endswith(" and 290 more") == (num_classes == 300)


def test_a_run_keeps_its_names_and_learns_further_labels(tmp_path):
    reviews_folder(tmp_path, [1.0, 2.0], [1, 2])
    data = DataConfig(path=str(tmp_path))
    train, _ = load_training_splits(data, ("1.0", "2.0"))  # as earlier versions named them
    assert train.class_names == ("1.0", "2.0")
    assert train.labels.tolist() == [0, 1, 0, 1]
    own = DataConfig(path=str(tmp_path), labels={0: "neg", 4: "pos"})
    settings = {"path": str(tmp_path / "train.csv"), "labels": {1: "neg", 2.0: "pos"}}
    data, split = choose_reviews(own, "test", settings)
    assert data.labels == {"0": "neg", "4": "pos", "1": "neg", "2.0": "pos"}
    assert load_split(data, split, ("neg", "pos")).labels.tolist() == [0, 1, 0, 1]
