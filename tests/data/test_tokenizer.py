import functools
import hashlib
import re
import sys
import types
from importlib.metadata import version

import numpy as np
import pytest
from helpers.corpus import SHARED, needs_imdb
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sentiment.data.tokenizer import (
    cache_key,
    clean,
    cut_pieces,
    load_rules,
    tokenize,
    tokenize_cached,
)
from sentiment.runtime.errors import UserError

TEXTS = [
    "A great film!<br /><br />Isn't it? I'd say it's 10/10 :-) ...",
    "",
    "   \n\t ",
    "Don't go, e.g. at 9p.m. to the U.S.A.; (really) &quot;awful&quot; &amp; l-o-n-g",
    "caf\u00e9 \u2028 \x85 \u00a0x\u3000y \U0001f600\U0001f600 na\u0308ive",
    "\u0627\u0644\u0633\u0644\u0627\u0645 \u4f60\u597d\u3002",
]


@functools.cache
def rules(language: str):
    import spacy

    return spacy.blank(language)  # called on a text: zh and others cut before their tokenizer


def spacy_tokens(text: str, language: str = "en", lower_case: bool = True) -> list[str]:
    words = [word.text for word in rules(language)(clean(text)) if not word.text.isspace()]
    return [word.lower() for word in words] if lower_case else words


def test_cleaning():
    assert clean("a<br />b<BR>c &lt;i&gt; &amp;") == "a b c <i> &"
    assert clean("2 < 3") == "2 < 3"


@pytest.mark.parametrize("lower_case", [True, False])
def test_tokens_are_spacys(lower_case):
    tokenized = tokenize(TEXTS, lower_case=lower_case)
    assert len(tokenized) == len(TEXTS)
    for index, text in enumerate(TEXTS):
        assert tokenized.words(index) == spacy_tokens(text, lower_case=lower_case)


MARKS = st.sampled_from(list("abcINTnt'’.,:;!?()[]-/&$%<>=*_~\" \t\n019"))
SHORT = st.from_regex(
    r"[a-zA-Z]{0,4}[a-zA-Z.'(]?[a-zA-Z]{0,3}[,!?;:).]{0,2}", fullmatch=True
) | st.sampled_from(
    ["cannot", "Mr.", "cant,", "a.", "A.", "US.", "im", "Im!", "gonna?", "xD", "o.O"]
)


@settings(max_examples=400)
@given(st.text(MARKS | st.characters(), max_size=60) | SHORT)
def test_tokens_are_spacys_on_any_text_and_piece(text):
    assert tokenize([text]).words(0) == spacy_tokens(text)


@settings(max_examples=100)
@given(
    st.text(st.sampled_from(list("abcÉßж'’.,:;!?()[]-/&$%«»„“…€° 019kmg")), max_size=90),
    st.sampled_from(["de", "fr", "it", "pl", "hu", "xx"]),
)
@example("Z.B. der Film, d.h. „Das Boot“, war's wert: 10/10!", "de")
@example("L'homme qu'il a vu, c'est-à-dire aujourd'hui… J'ai 5€.", "fr")
@example("Фильм понравился (очень)! Т.е. советую, г. Москва.", "ru")
@example("İstanbul'da 3. gün, çok güzel!", "tr")
@example("Phim hay quá, không chê!", "xx")
@example("这个电影，真的 喜欢iPhone。\n好", "zh")
def test_tokens_of_other_languages_are_spacys(text, language):
    words = tokenize([text], lower_case=False, language=language).words(0)
    assert words == spacy_tokens(text, language, lower_case=False)


@pytest.fixture
def thai(monkeypatch):
    """A package in pythainlp's place whose words are runs of letters, two of them with a space."""
    package = types.ModuleType("pythainlp.tokenize")
    package.word_tokenize = re.compile(r"good film|[a-z]+|\s+").findall
    monkeypatch.setitem(sys.modules, "pythainlp", types.ModuleType("pythainlp"))
    monkeypatch.setitem(sys.modules, "pythainlp.tokenize", package)
    load_rules.cache_clear()
    yield
    load_rules.cache_clear()


def test_languages_with_a_package_are_read_as_whole_texts(thai, tmp_path):
    texts = ["a  good\n film indeed", "", "film good"]
    expected = [["a", "good film", "indeed"], [], ["film", "good"]]
    for _ in range(2):  # the second time from the cache
        tokenized = tokenize_cached(texts, tmp_path, language="th")
        assert [tokenized.words(index) for index in range(3)] == expected


@pytest.mark.parametrize(
    ("language", "package"),
    [("ja", "sudachipy"), ("ko", "natto-py"), ("th", "pythainlp"), ("vi", "pyvi")],
)
def test_a_language_that_needs_a_package_names_it(language, package, monkeypatch):
    for name in ("sudachipy", "natto", "pythainlp", "pyvi"):
        monkeypatch.setitem(sys.modules, name, None)
    load_rules.cache_clear()
    with pytest.raises(
        UserError, match=rf"install {package}.*, or set data\.language to"
    ) as refused:
        tokenize(["a"], language=language)
    mend = str(refused.value).rsplit("data.language to ", 1)[1][:2]
    assert tokenize(["a"], language=mend).words(0) == ["a"]


def test_an_unknown_language_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match=r"data\.language is 'qq'.* de, .* zh; xx is for any"):
        tokenize(["a"], language="qq")


@pytest.mark.long
@needs_imdb
def test_pieces_are_cut_as_spacy_cuts_them():
    """Every different piece of the 75,000 reviews."""
    import pyarrow.parquet as pq

    pieces: set[str] = set()
    for name in ("train", "unsupervised"):
        table = pq.read_table(SHARED / "imdb" / f"{name}.parquet", columns=["text"])
        for text in table.column("text").to_pylist():
            pieces.update(clean(text).split())
    for piece in pieces:
        assert cut_pieces([piece], False, "en")[0] == [token.text for token in rules("en")(piece)]


def test_processes_do_not_change_the_result():
    texts = [f"{text} number {number}" for number in range(1_300) for text in TEXTS]
    one, two = tokenize(texts, num_processes=1), tokenize(texts, num_processes=2)
    assert one.lexicon == two.lexicon
    assert np.array_equal(one.tokens, two.tokens)
    assert np.array_equal(one.offsets, two.offsets)


def test_cache_gives_the_same_tokens_without_tokenizing(tmp_path, monkeypatch):
    first = tokenize_cached(TEXTS, tmp_path)
    monkeypatch.setattr("sentiment.data.tokenizer.tokenize", None)  # calling it would fail
    second = tokenize_cached(TEXTS, tmp_path)
    assert second.lexicon == first.lexicon
    assert np.array_equal(second.tokens, first.tokens)
    assert np.array_equal(second.offsets, first.offsets)


def test_cache_never_reuses_tokens_of_other_texts_or_settings(tmp_path):
    keys = {
        cache_key(TEXTS, lower_case=True),
        cache_key(TEXTS, lower_case=False),
        cache_key(TEXTS[::-1], lower_case=True),
        cache_key(["ab", "c"], lower_case=True),
        cache_key(["a", "bc"], lower_case=True),
        cache_key(["abc"], lower_case=True),
    }
    assert len(keys) == 6
    assert cache_key(TEXTS, lower_case=True, language="de") not in keys
    tokenize_cached(["Good"], tmp_path, lower_case=True)
    assert tokenize_cached(["Good"], tmp_path, lower_case=False).words(0) == ["Good"]
    assert tokenize_cached(["Bad"], tmp_path, lower_case=True).words(0) == ["bad"]


def test_another_version_of_a_language_s_package_tokenizes_anew(monkeypatch):
    keys = set()
    for number in ("1.0", "2.0"):
        versions = {"pythainlp": number, "spacy": version("spacy")}
        monkeypatch.setattr("sentiment.data.tokenizer.version", versions.__getitem__)
        keys.add(cache_key(["Good"], lower_case=True, language="th"))
    assert len(keys) == 2


def test_keys_of_english_are_those_from_before_the_setting():
    settings = ("3", version("spacy"), sys.version_info[:2])
    expected = hashlib.sha256(f"{settings} True 1".encode() + (4).to_bytes(8, "little") + b"Good")
    key = cache_key(["Good"], lower_case=True, language="en")
    assert key == expected.hexdigest()[:32] == cache_key(["Good"], lower_case=True)


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path):
    blocker = tmp_path / "file"
    blocker.write_text("not a folder")
    assert tokenize_cached(["Good film"], blocker).words(0) == ["good", "film"]
