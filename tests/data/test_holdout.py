"""The validation split held out of the training reviews: the choice, and its settings."""

import json
import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from helpers.review_files import write, write_text_folder
from helpers.trainings import arguments, refusal
from hypothesis import example, given
from hypothesis import strategies as st

from sentiment.cli import main as cli
from sentiment.config.config import Config, DataConfig, deciding_settings
from sentiment.config.parser import parse_training
from sentiment.data import splits as holdout
from sentiment.data.reviews import load_training_splits
from sentiment.data.splits import dedup_key
from sentiment.data.tokenizer import TokenizedTexts
from sentiment.data.vocabulary import count_groups, expect_groups
from sentiment.runs.run import load_settings


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


def test_text_itself_counts_where_nothing_else_is_left() -> None:
    assert dedup_key(":)") == dedup_key(" :) ")
    assert len({dedup_key(":)"), dedup_key(":("), dedup_key(""), dedup_key("…")}) == 4


TEXTS = st.text(alphabet="aAbÉé’ …\x85_.\n", max_size=6)


@given(TEXTS, TEXTS)
@example("A great film", " a  great\nFILM!<br /><br />")
@example("A great film", "A «great» film…")
@example("A great film", "A great film 2")
@example("A great film", "A grëat film")
@example("A great film", "Agreat filmbr")
def test_keys_agree_with_folding(one: str, other: str) -> None:
    if fold(one) and fold(other):
        assert (dedup_key(one) == dedup_key(other)) == (fold(one) == fold(other))


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


def test_group_larger_than_the_share_is_held_out_where_there_is_none_smaller() -> None:
    held = hold_out(["a", "a", "a", "b", "b", "b", "b", "c", "d"], [0] * 7 + [1] * 2)
    assert held[:7].tolist() == [True] * 3 + [False] * 4
    assert held[7:].sum() == 1


@st.composite
def grouped(draw: st.DrawFn) -> tuple[list[str], list[int], np.ndarray]:
    """Reviews of up to three classes in groups of any sizes, some of them copies across classes."""
    size = draw(st.integers(2, 60))
    endings = st.sampled_from(["", "!"])
    texts = [f"Review {draw(st.integers(0, 2 * size))}{draw(endings)}" for _ in range(size)]
    labels = [draw(st.integers(0, 2)) for _ in texts]
    groups = [draw(st.integers(0, draw(st.integers(1, 20)))) for _ in texts]
    return texts, labels, np.array(groups)


@given(
    corpus=grouped(),
    share=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**40),
    num_folds=st.none() | st.integers(2, 6),
    with_groups=st.booleans(),
)
def test_no_group_on_both_sides_and_no_class_missing(corpus, share, seed, num_folds, with_groups):
    """Without groups, copies of one review are a group."""
    texts, labels, groups = corpus
    options = {"groups": groups} if with_groups else {}
    try:
        held = hold_out(texts, labels, share, seed, 3, num_folds=num_folds, **options)
    except ValueError as error:
        assert "too few to" in str(error)
        return
    if not with_groups:
        groups = np.array([fold(text) for text in texts])
    assert set(groups[held]).isdisjoint(groups[~held])
    assert set(np.array(labels)[held]) == set(np.array(labels)[~held]) == set(labels)


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
         "2 groups among 2 reviews, too few to make 3.*or make fewer folds"),
        ("aaaaaaaa", [0, 0, 1, 1] * 2, {"groups": [0, 0, 1, 1, 2, 2, 3, 3]},
         "2 groups among 4 reviews, too few .* as the others are copies of these: leave copies"),
    ],
)  # fmt: skip
def test_too_few_reviews_or_groups_of_a_class(texts, labels, options, message) -> None:
    if "groups" in options:
        options["groups"] = np.array(options["groups"])
    with pytest.raises(ValueError, match=f"reviews.csv: class .*{message}"):
        hold_out(list(texts), labels, **options)


def write_reviews(folder: Path, name: str = "train.csv", first_film: str = "film 0") -> Path:
    """Write 40 reviews, four of each film; the second class follows the first."""
    columns = {
        "text": [f"film{n // 4} review{n} {'bad' if n < 20 else 'good'}" for n in range(40)],
        "label": ["neg"] * 20 + ["pos"] * 20,
        "film": [first_film, *(f"film {n // 4}" for n in range(1, 40))],
    }
    return write(folder / name, columns).parent


def train(tmp_path: Path, *options: str) -> int:
    one_epoch = "--training.num_epochs=1"
    return cli.train(arguments(tmp_path / "data", tmp_path / "run", one_epoch, *options))


@pytest.mark.parametrize("name", ["train.csv", "train.tsv", "train.jsonl", "train.parquet"])
def test_groups_are_read_from_every_format(tmp_path, name):
    write_reviews(tmp_path, name)
    data = DataConfig(path=str(tmp_path), validation="groups", group_column="film")
    train, validation = load_training_splits(data)
    sides = [{row // 4 for row in each.rows.tolist()} for each in (train, validation)]
    assert sides[0].isdisjoint(sides[1])
    assert len(train) + len(validation) == 40
    assert np.bincount(validation.labels).tolist() == [4, 4]


def test_stretches_are_neighbouring_rows(tmp_path):
    write_reviews(tmp_path)
    data = DataConfig(path=str(tmp_path), validation="stretches", stretch_length=4)
    _, validation = load_training_splits(data)
    starts = validation.rows.reshape(-1, 4)
    assert (starts % 4 == np.arange(4)).all()
    assert (np.diff(starts, axis=1) == 1).all()


def test_text_files_have_no_groups(tmp_path):
    texts = {f"train/{label}/0_1.txt": "a review" for label in ("neg", "pos")}
    write_text_folder(tmp_path, texts)
    data = DataConfig(path=str(tmp_path), validation="groups", group_column="film")
    with pytest.raises(ValueError, match="texts without columns, and so has no 'film': set data"):
        load_training_splits(data)


def test_a_run_tells_how_its_reviews_were_held_out(tmp_path, capsys):
    write_reviews(tmp_path / "data")
    run = tmp_path / "run"
    assert train(tmp_path, "--data.validation=groups", "--data.group_column=film") == 0
    assert "8 for validation (held out by groups of film)" in capsys.readouterr().out
    assert json.loads((run / "run.json").read_text())["hold_out"] == "by groups of film"
    assert cli.evaluate(["--run", str(run), "--split", "validation"]) == 0
    assert "held out by groups of film" in " ".join(capsys.readouterr().out.split())
    report = json.loads((run / "evaluation" / "validation" / "report.json").read_text())
    assert (report["num_reviews"], report["hold_out"]) == (8, "by groups of film")


def test_a_run_is_not_measured_on_other_reviews_than_it_held_out(tmp_path, capsys):
    """With one row fewer, others are held out, which the run has learned from."""
    write_reviews(tmp_path / "data")
    run = tmp_path / "run"
    assert train(tmp_path, "--data.validation=stretches", "--data.stretch_length=4") == 0
    (path,) = (tmp_path / "data").iterdir()
    header, *rows = path.read_text().splitlines(keepends=True)
    path.write_text("".join([header, *rows[3:]]))
    shutil.copytree(run, f"{run}-2")
    both = [str(run), f"{run}-2"]
    commands = [["evaluate", str(run)], ["evaluate", str(run), "--data.missing=skip"]]
    commands += [["compare", *both], ["compare", *both, f"--data.path={tmp_path / 'data'}"]]
    for command in commands:
        message = refusal([*command[1:], "--split=validation"], capsys, command[0])
        assert f"{run} held out 8 validation reviews with digest" in message
        assert "which it may have learned from" in message


def test_a_run_of_an_earlier_version_keeps_its_validation_reviews(tmp_path, monkeypatch):
    """Its settings name no hold-out, which was random then, of IMDB too."""
    monkeypatch.setattr("sentiment.runs.run._check_digest", lambda path, name: None)
    (tmp_path / "config.yaml").write_text("data:\n  source: imdb\n")
    assert load_settings(tmp_path).data.hold_out == "random"
    resumed = parse_training([f"--resume={tmp_path}"], "train.py").config
    assert resumed.data.hold_out == "random"
    (tmp_path / "config.yaml").write_text("data:\n  source: imdb\n  validation: null\n")
    assert load_settings(tmp_path).data.hold_out == "stretches"
    named, default = Config(data=DataConfig(validation="random")), Config()
    assert deciding_settings(named) == deciding_settings(default)


@pytest.mark.parametrize("name", ["train.csv", "train.jsonl", "train.parquet"])
def test_a_row_without_a_group_is_told(tmp_path, name):
    write_reviews(tmp_path, name, first_film=" ")
    data = DataConfig(path=str(tmp_path), validation="groups", group_column="film")
    with pytest.raises(ValueError, match=f"{name}, row 1: no film, as in 1 of 40 rows: fill it in"):
        load_training_splits(data)


@pytest.mark.parametrize("seed", range(20))
def test_groups_of_a_word_are_counted_as_by_hand(seed, monkeypatch):
    monkeypatch.setattr("sentiment.data.vocabulary.TOKENS_AT_ONCE", 9)  # in parts
    generator = np.random.default_rng(seed)
    texts = [list(generator.choice(list("abcde"), size)) for size in generator.integers(0, 6, 9)]
    groups = generator.integers(0, 5, len(texts)).tolist()
    lexicon = sorted(set().union(*texts))
    number = {word: place for place, word in enumerate(lexicon)}
    tokenized = TokenizedTexts(
        np.array([number[word] for text in texts for word in text], dtype=np.int32),
        np.cumsum([0, *map(len, texts)]),
        lexicon,
    )
    pairs = {(group, word) for text, group in zip(texts, groups, strict=True) for word in text}
    assert +count_groups(tokenized, np.array(groups)) == Counter(word for _, word in pairs)
    alone = Counter(word for text in texts for word in set(text))
    assert +count_groups(tokenized, None) == alone
    size = len(texts)
    for of_text in (groups, range(size)):
        shares = [count / size for count in Counter(of_text).values()]
        expected = expect_groups(tokenized, None if of_text is not groups else np.array(groups))
        for word in lexicon:
            by_hand = sum(1 - (1 - share) ** alone[word] for share in shares)
            assert expected[word] == pytest.approx(by_hand)


def test_expected_groups_are_those_of_random_draws():
    groups = np.repeat([0, 1, 2, 3], [40, 30, 20, 10])
    holds = np.zeros(100, dtype=bool)
    holds[:12] = True
    tokenized = TokenizedTexts(np.full(12, 0, np.int32), np.cumsum([0, *holds]), ["word"])
    generator = np.random.default_rng(0)
    draws = [len(set(groups[generator.integers(0, 100, 12)])) for _ in range(4_000)]
    assert expect_groups(tokenized, groups)["word"] == pytest.approx(np.mean(draws), abs=0.03)


def test_words_of_few_groups_are_left_out(tmp_path):
    write_reviews(tmp_path / "data")
    run = tmp_path / "run"
    options = [
        "--data.validation=stretches",
        "--data.stretch_length=4",
        "--vocabulary.min_groups=2",
    ]
    assert train(tmp_path, *options) == 0
    words = [line.split("\t")[0] for line in (run / "vocabulary.txt").read_text().splitlines()]
    assert words[2:] == ["bad", "good"], "each film's name stands in one stretch alone"


def test_words_of_fewer_groups_than_chance_are_left_out(tmp_path):
    """A name in all reviews of two films, however frequent, but no word as rare of another kind."""
    texts = []
    for film in range(40):
        name = f"Star{film // 2} " * 3
        for number in range(4):
            word = "rare" if number == film % 4 == 0 else "often"
            texts.append(f"{name}{word} once{film}x{number}")
    labels = ["neg", "pos"] * 80
    write(tmp_path / "data" / "train.csv", {"text": texts, "label": labels})
    options = ["--data.validation=stretches", "--data.stretch_length=4"]
    assert train(tmp_path, *options, "--vocabulary.min_spread=0.7") == 0
    lines = (tmp_path / "run" / "vocabulary.txt").read_text().splitlines()
    assert [line.split("\t")[0] for line in lines[2:]] == ["often", "rare"]


def test_words_that_no_two_groups_share_are_too_few(tmp_path, capsys):
    write_reviews(tmp_path / "data")
    assert train(tmp_path, "--vocabulary.min_groups=99") == 1
    assert "and in vocabulary.min_groups = 99 groups of reviews" in capsys.readouterr().err
