"""Absurd texts: a run still classifies them, quickly and in little memory."""

from __future__ import annotations

import random
import resource
import time

import pytest
from helpers.untrained_run import CLASSES, make_run

from sentiment import load
from sentiment.data.tokenizer import Tokenizer, clean

MILLION = 1_000_000


@pytest.fixture(scope="module")
def predictor(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "run"
    make_run(path)
    return load(path, device="cpu")


TEXTS = {
    "empty": "",
    "white space": " \t\n\u00a0\u2003" * 1_000,
    "NUL": "good\0bad \0\0\0",
    "lone surrogates": "\ud800good\udfff \udcff",
    "right to left": "\u202eסרט נפלא\u202c فيلم رائع",
    "combining marks": "g" + "\u0301\u0336\u0489" * 5_000 + "ood",
    "joiners": "\u200d".join("good") + "\u200b\ufeff",
    "emoji": "😀👍🏽👩‍👩‍👧‍👦🏳️‍🌈" * 100,
    "numbers of characters": "&#" + "1" * 5_000 + "; &#x" + "f" * 5_000 + "; &#0;&#55296;",
    "entities": "&" * 10_000 + "&amp;" * 10_000,
    "tags": "<br" * 10_000 + "<br" + " " * 10_000,
    "apostrophes": "'" * 3_000 + "n't" * 3_000,
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_any_text_is_classified(predictor, text):
    (prediction,) = predictor.predict([text])
    assert prediction.label in CLASSES
    assert sum(prediction.probabilities) == pytest.approx(1)
    (batched,) = predictor.predict(["good", text])[1:]
    assert batched.probabilities == pytest.approx(prediction.probabilities, abs=1e-5)


def test_numeric_character_references_follow_html_and_may_be_endless():
    assert clean("&#65;&#x42;&#00000000067;") == "ABC"
    assert clean("a&#" + "1" * 5_000 + ";b&#" + "2" * 2_000) == "a\ufffdb\ufffd"


@pytest.mark.parametrize(
    "alphabet",
    ["a", ".,;:!?()[]'\"-/"]
    + [
        pytest.param(alphabet, marks=pytest.mark.long)
        for alphabet in ("😀🎉👍", "好", "\u0301a", "http://.")
    ],
)
def test_ten_megabytes_without_a_space(predictor, alphabet):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    characters = 10 * MILLION // len(alphabet.encode()) * len(alphabet)
    text = "".join(random.Random(0).choices(alphabet, k=characters))
    started = time.process_time()
    (prediction,) = predictor.predict([text])
    assert time.process_time() - started < 15  # about 2
    assert prediction.was_cut or alphabet == "a"
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 1_000_000, f"{grown // 1024} MiB more"  # in kB


def test_punctuation_is_tokenized_in_less_than_quadratic_time():
    pieces = ["".join(random.Random(n).choices(".,;:!?()", k=1_000)) for n in range(20)]
    started = time.process_time()
    Tokenizer()([" ".join(pieces)])
    assert time.process_time() - started < 5  # 0.2 as it is, 15 by spaCy alone


def test_long_pieces_keep_all_their_characters():
    text = "".join(random.Random(0).choices("ab.,😀", k=300_000))
    assert "".join(Tokenizer(lower_case=False)([text]).words(0)) == text
