"""Warnings of texts that the vocabulary or the vectors hardly cover, and that their mends work."""

import random
import re
from pathlib import Path

import pytest
from helpers.review_files import write
from helpers.vectors_files import write_text

from sentiment.config.parser import parse_training
from sentiment.data.checks import warn_of_unspaced
from sentiment.data.pipeline import prepare_training

WORDS = [f"{first}{second}{last}" for first in "bdf" for second in "aeiou" for last in "klmnprst"]


def write_reviews(folder: Path, texts: list[str]) -> None:
    labels = ["neg", "pos"] * (len(texts) // 2)
    write(folder / "train.csv", {"text": texts, "label": labels})


def warnings(folder: Path, caplog, *options: str) -> list[str]:
    caplog.clear()
    arguments = [f"--data.path={folder}", f"--data.cache_dir={folder / 'cache'}", *options]
    prepare_training(parse_training(arguments, "test").config)
    return [
        each.getMessage()
        for each in caplog.records
        if each.name == "sentiment.data.checks" and each.funcName != "warn_of_rare_classes"
    ]


def mend(message: str) -> list[str]:
    """The options that a message says to set."""
    return [f"{key}={value}" for key, value in re.findall(r"(--[\w.]+) (\S+)", message)]


@pytest.mark.parametrize(
    ("copies", "options", "message"),
    [
        (1, [], "the vocabulary has only 0 words"),
        (3, ["--vocabulary.max_size=50"], "the vocabulary has only 50 words"),
        (3, ["--vocabulary.max_size=101", "--vocabulary.min_frequency=5"], "has only"),
    ],
)
def test_a_small_vocabulary_grows_as_the_message_says(tmp_path, caplog, copies, options, message):
    texts = [
        f"{' '.join(WORDS[start : start + 6])} good{copy}"
        for copy in range(copies)
        for start in range(0, 120, 6)
    ]
    write_reviews(tmp_path, [*texts, "good film", "good film indeed"])
    first, *_ = warnings(tmp_path, caplog, *options)
    assert message in first or copies == 1
    mended = warnings(tmp_path, caplog, *options, *mend(first))
    assert not [text for text in mended if "only" in text]


def test_a_small_corpus_is_told_to_grow(tmp_path, caplog):
    write_reviews(tmp_path, ["a good film", "a bad film", "good", "bad"] * 4)
    (only,) = warnings(tmp_path, caplog)
    assert only == (
        "the vocabulary has only 4 words: the training reviews hold 4 different ones, so give more "
        "reviews"
    )


def test_unknown_tokens_become_known_as_the_message_says(tmp_path, caplog):
    draw = random.Random(0)
    texts = [" ".join(draw.choices(WORDS, k=12)) for _ in range(60)]
    write_reviews(tmp_path, texts)
    options = ["--vocabulary.max_size=90", "--vocabulary.min_frequency=1"]
    *_, unknown = warnings(tmp_path, caplog, *options)
    assert re.match(r"unknown: 1?\d % of the training and 2\d % of the validation|unknown", unknown)
    assert mend(unknown) == ["--vocabulary.max_size=null"]
    assert warnings(tmp_path, caplog, *options, *mend(unknown)) == []


def test_words_of_validation_that_training_lacks_need_more_reviews(tmp_path, caplog):
    write_reviews(tmp_path, [f"{' '.join(WORDS)} {number}" for number in range(10)])
    new = {"text": [f"{word}ish {word}" for word in WORDS[:10]], "label": ["neg", "pos"] * 5}
    write(tmp_path / "validation.csv", new)
    *_, unknown = warnings(tmp_path, caplog)
    assert "50 % of the validation tokens: 50% of the latter are in no training review" in unknown


CHINESE = "这个电影真的喜欢，我觉得很精彩，朋友也说喜欢。"


def test_text_without_white_space_is_read_as_the_message_says(tmp_path, caplog):
    write_reviews(tmp_path, [f"{CHINESE}第{number}次。" for number in range(10)])
    (unspaced,) = warnings(tmp_path, caplog)
    assert "data.language en splits at it: set --data.language zh to read" in unspaced
    assert not [text for text in warnings(tmp_path, caplog, *mend(unspaced)) if "space" in text]


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        (CHINESE, "en", True),
        (CHINESE, "xx", True),
        ("ภาพยนตร์เรื่องนี้ดีมาก", "en", True),
        ("この映画はとても面白かったです。", "de", True),
        (CHINESE, "zh", False),
        ("这个 电影 真的 喜欢 ， 我 觉得 很 精彩", "en", False),
        ("영화가 정말 재미있었어요", "en", False),
        ("a film named 这个电影真的喜欢 in English", "en", False),
        ("https://example.com/a/very/long/address", "en", False),
        ("", "en", False),
    ],
)
def test_which_texts_lack_white_space(text, language, expected):
    assert warn_of_unspaced([text] * 3, language) is expected


OPTIONS = ["--model.embedding_size=3", "--vocabulary.min_frequency=1"]
SENTENCES = [f"The Film Was {word.title()} And Very Long For Me" for word in WORDS]


@pytest.mark.parametrize("lower_case", ["true", "false"])
def test_vectors_in_another_case_are_found_as_the_message_says(tmp_path, caplog, lower_case):
    write_reviews(tmp_path, SENTENCES)
    words = " ".join(SENTENCES)
    words = [*(words if lower_case == "true" else words.lower()).split(), "Me", "me"]
    vectors = write_text(tmp_path, [f"{word} 1 2 3" for word in dict.fromkeys(words)], "v.txt")
    options = [f"--vectors.path={vectors}", *OPTIONS, f"--data.lower_case={lower_case}"]
    (case,) = warnings(tmp_path, caplog, *options)
    assert re.match(r"only .* have a vector: give vectors .*; or, if .* in another case, set", case)
    assert mend(case) == [f"--data.lower_case={'false' if lower_case == 'true' else 'true'}"]
    assert warnings(tmp_path, caplog, *options, *mend(case)) == []
