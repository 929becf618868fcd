"""The validation split held out of the training reviews."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentiment.config.config import DataConfig
from sentiment.data import splits as holdout
from sentiment.data.splits import dedup_key


def fold(text: str) -> str:
    """What copies have in common, by another way than :func:`dedup_key` takes."""
    return re.sub(r"[\W_]+", "", text.replace("<br />", " ").lower())


def hold_out(
    texts: list[str],
    labels: list[int],
    share: float = 0.1,
    seed: int = 0,
    num_classes: int = 2,
    groups: np.ndarray | None = None,
    **options,
) -> np.ndarray:
    """Which reviews validate; the others train, but for copies of these in other groups."""
    trains, validates = holdout.hold_out(
        texts,
        np.array(labels),
        DataConfig(validation_share=share, validation_seed=seed, **options),
        class_names=[f"class {label}" for label in range(num_classes)],
        origin="reviews.csv",
        groups=groups,
    )
    validated = {fold(text) for text, is_held in zip(texts, validates, strict=True) if is_held}
    is_copy = np.array([fold(text) in validated for text in texts])
    assert np.array_equal(trains, ~validates & ~is_copy)
    return validates


@pytest.mark.parametrize(
    "copy", ["A great film.", "a great FILM!", " a  great\nfilm<br /><br />", "A «great» film…"]
)
def test_copies_have_one_key(copy: str) -> None:
    assert dedup_key(copy) == dedup_key("A great film")


@pytest.mark.parametrize("other", ["A great film 2", "A grëat film", "Agreat filmbr", ""])
def test_other_reviews_have_other_keys(other: str) -> None:
    assert dedup_key(other) != dedup_key("A great film")


def test_text_itself_counts_where_nothing_else_is_left() -> None:
    assert dedup_key(":)") == dedup_key(" :) ")
    assert len({dedup_key(":)"), dedup_key(":("), dedup_key(""), dedup_key("…")}) == 4


@given(
    st.text(alphabet="aAbÉé’ …\x85_.\n", max_size=6),
    st.text(alphabet="aAbÉé’ …\x85_.\n", max_size=6),
)
def test_keys_agree_with_folding(one: str, other: str) -> None:
    if fold(one) and fold(other):
        assert (dedup_key(one) == dedup_key(other)) == (fold(one) == fold(other))


@st.composite
def corpora(draw: st.DrawFn) -> tuple[list[str], list[int]]:
    """Reviews of three classes with copies, also across classes."""
    size = draw(st.integers(min_value=6, max_value=60))
    texts = [f"review {draw(st.integers(0, 2 * size))}{'!' * draw(st.integers(0, 1))}"]
    texts += [f"review {draw(st.integers(0, 2 * size))}" for _ in range(size - 1)]
    return texts, [draw(st.integers(0, 2)) for _ in texts]


@given(corpora(), st.floats(0.01, 0.99), st.integers(0, 2**40))
def test_no_copy_on_both_sides_and_no_class_missing(corpus, share, seed):
    texts, labels = corpus
    try:
        held = hold_out(texts, labels, share, seed, num_classes=3)
    except ValueError as error:
        assert "too few to hold some out" in str(error)
        return
    sides = [
        {fold(text) for text, is_held in zip(texts, held, strict=True) if is_held == side}
        for side in (0, 1)
    ]
    assert sides[0].isdisjoint(sides[1])
    for label in set(labels):
        assert {bool(side) for side, other in zip(held, labels, strict=True) if other == label} == {
            True,
            False,
        }


@given(st.lists(st.integers(2, 200), min_size=2, max_size=4), st.floats(0.01, 0.99))
def test_share_of_each_class_is_exact_without_copies(sizes: list[int], share: float) -> None:
    labels = [label for label, size in enumerate(sizes) for _ in range(size)]
    texts = [f"review {number}" for number in range(len(labels))]
    held = hold_out(texts, labels, share, num_classes=len(sizes))
    for size, num_held in zip(sizes, np.bincount(np.array(labels)[held]), strict=True):
        assert num_held == min(max(round(share * size), 1), size - 1)


def test_choice_is_the_same_on_every_platform() -> None:
    texts = [f"review {number}" for number in range(40)]
    labels = [number % 2 for number in range(40)]
    assert np.flatnonzero(hold_out(texts, labels)).tolist() == [2, 3, 11, 20]
    assert np.flatnonzero(hold_out(texts, labels, seed=1)).tolist() == [9, 16, 36, 39]


def test_copies_with_different_labels_stay_together() -> None:
    texts = ["a Film", "a film!", "b", "c", "d", "e"]
    for seed in range(20):
        held = hold_out(texts, [0, 1, 0, 1, 0, 1], share=0.4, seed=seed)
        assert held[0] == held[1]
        assert held.sum() == 2


def test_group_larger_than_the_share_is_held_out_where_there_is_none_smaller() -> None:
    held = hold_out(["a", "a", "a", "b", "b", "b", "b", "c", "d"], [0] * 7 + [1] * 2)
    assert held[:7].tolist() == [True] * 3 + [False] * 4
    assert held[7:].sum() == 1


@st.composite
def grouped(draw: st.DrawFn) -> tuple[list[str], list[int], np.ndarray]:
    """Reviews of up to three classes in groups of any sizes, some of them copies."""
    size = draw(st.integers(2, 60))
    texts = [f"review {draw(st.integers(0, 4 * size))}" for _ in range(size)]
    labels = [draw(st.integers(0, 2)) for _ in texts]
    groups = [draw(st.integers(0, draw(st.integers(1, 20)))) for _ in texts]
    return texts, labels, np.array(groups)


@settings(deadline=None)  # scikit-learn takes a while to be imported
@given(grouped(), st.floats(0.01, 0.99), st.integers(0, 2**40), st.none() | st.integers(2, 6))
def test_no_group_on_both_sides_and_no_class_missing(corpus, share, seed, folds):
    texts, labels, groups = corpus
    try:
        held = hold_out(texts, labels, share, seed, 3, groups=groups, num_folds=folds)
    except ValueError as error:
        assert "too few to" in str(error)
        return
    assert set(groups[held]).isdisjoint(groups[~held])
    assert set(np.array(labels)[held]) == set(np.array(labels)[~held]) == set(labels)


@settings(deadline=None)
@given(grouped(), st.integers(0, 9), st.integers(2, 5))
def test_each_group_is_held_out_in_one_fold(corpus, seed, folds):
    texts, labels, groups = corpus
    try:
        held = [
            hold_out(
                texts, labels, seed=seed, num_classes=3, groups=groups, num_folds=folds, fold=n
            )
            for n in range(1, folds + 1)
        ]
    except ValueError:
        return
    assert (np.sum(held, axis=0) == 1).all()


@given(st.integers(2, 40), st.integers(1, 7), st.floats(0.05, 0.95), st.integers(0, 99))
def test_share_is_as_near_as_whole_groups_allow(num_groups, size, share, seed):
    """Of groups of one size and one class each, the nearest number is held out."""
    groups = np.repeat(np.arange(2 * num_groups), size)
    labels = (groups % 2).tolist()
    held = hold_out([f"text {n}" for n in range(len(groups))], labels, share, seed, groups=groups)
    for label in (0, 1):
        quota = min(max(round(share * num_groups * size), 1), num_groups * size - 1)
        num_held = int(held[np.array(labels) == label].sum())
        assert abs(num_held - quota) <= size / 2 or num_held in (size, (num_groups - 1) * size)


@pytest.mark.parametrize(
    ("texts", "labels", "options", "message"),
    [
        ("abc", [0, 0, 1], {}, "1 different review among 1 .*or give a validation split"),
        ("abcc", [0, 0, 1, 1], {}, "'class 1' has 1 different review among 2"),
        ("aabbcc", [0, 1, 1, 2, 2, 0], {"num_classes": 3}, "too few to hold some out"),
        ("abcd", [0, 0, 1, 1], {"groups": [0, 0, 0, 0]},
         "'class 0' has 1 group among 2 reviews, too few .*or set data.validation to random"),
        ("abcd", [0, 0, 0, 1], {"groups": [0, 1, 2, 3]}, "'class 1' has 1 group among 1 reviews"),
        ("abcd", [0, 0, 1, 1], {"groups": [0, 1, 2, 3], "num_folds": 3},
         "2 groups among 2 reviews, too few to make 3.*or lower the number of folds"),
    ],
)  # fmt: skip
def test_too_few_reviews_or_groups_of_a_class(texts, labels, options, message) -> None:
    if "groups" in options:
        options["groups"] = np.array(options["groups"])
    with pytest.raises(ValueError, match=f"reviews.csv: class .*{message}"):
        hold_out(list(texts), labels, **options)
