"""Mutated files, well-formed ones with arbitrary content, and absurd texts into every reader."""

import json
import random
import re
import resource
import tempfile
import time
from pathlib import Path

import pytest
import yaml
from helpers.processes import Processes
from helpers.trainings import ended
from helpers.untrained_run import CLASSES, make_run
from hypothesis import given, settings
from hypothesis import strategies as st

from sentiment import load
from sentiment.config.parser import setting_keys
from sentiment.data.tokenizer import Tokenizer, clean
from tests.fuzz import run, targets


def num_inputs(*options: str) -> int:
    """The number of inputs that ended in a result or in one line, if all of them did.

    In another process: a crash of pyarrow would end this one.
    """
    out, _ = ended(Processes(run.main, options), seconds=3_600)
    return int(re.findall(r"^(\d+) inputs in", out, flags=re.MULTILINE)[0])


def test_two_thousand_files_end_in_a_result_or_one_line():
    assert num_inputs("--inputs", "230", "--seed", "0") > 2_000


@pytest.mark.long
def test_a_hundred_thousand_files_end_in_a_result_or_one_line():
    assert num_inputs("--inputs", "12000", "--seed", "1") >= 100_000


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(2**31 - 2, 2**64 + 2),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["neg", "pos", "0", "1", "\0", "\u2028", "1e999", "~", "cuda:1"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)
KEYS = st.sampled_from([*setting_keys(), "class_path", "init_args", "config", "overwrite"])


def check(target: targets.Target, data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        target(data, Path(folder))


@given(
    st.lists(
        st.fixed_dictionaries(
            {"text": st.text(max_size=30) | VALUES, "label": st.sampled_from(["a", "b"]) | VALUES},
            optional={"more": VALUES},
        ),
        max_size=5,
    )
)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_arbitrary_json_lines(rows):
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    check(targets.reviews(".jsonl"), data)
    check(targets.predicted(".jsonl"), data)


@given(st.dictionaries(KEYS, VALUES, max_size=4))
@settings(max_examples=20, deadline=None, derandomize=True)
def test_arbitrary_settings(values):
    nested: dict = {}
    for key, value in values.items():
        section, _, name = key.rpartition(".")
        (nested.setdefault(section, {}) if section else nested)[name] = value
    text = yaml.safe_dump(nested, allow_unicode=True).encode("utf-8", "surrogatepass")
    check(targets.settings, text)


MILLION = 1_000_000


@pytest.fixture(scope="module")
def predictor(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "run"
    make_run(path)
    return load(path, device="cpu")


ABSURD = {
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


@pytest.mark.parametrize("text", ABSURD.values(), ids=ABSURD)
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
