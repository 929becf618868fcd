from __future__ import annotations

from collections import Counter

import pytest

from sentiment.data.tokenizer import tokenize
from sentiment.data.vocabulary import (
    UNK_ID,
    build_vocabulary,
    count_tokens,
    load_vocabulary,
    number_lexicon,
    save_vocabulary,
)

COUNTS = Counter({"film": 9, "the": 30, "été": 2, "b": 2, "a": 2, "rare": 1, "#": 5})


def test_words_follow_frequency_then_alphabet():
    assert build_vocabulary(COUNTS, min_frequency=2).itos == [
        "<pad>", "<unk>", "the", "film", "#", "a", "b", "été",
    ]  # fmt: skip
    assert build_vocabulary(COUNTS, max_size=2).itos == ["<pad>", "<unk>", "the", "film"]


def test_counting_is_that_of_python():
    texts = ["good good film", "bad film", ""]
    assert count_tokens(tokenize(texts)) == Counter(" ".join(texts).split())


def test_unknown_words_are_unk_and_leave_no_trace():
    vocabulary = build_vocabulary(COUNTS)
    size = len(vocabulary.stoi)
    assert number_lexicon(vocabulary, ["the", "nowhere", "film"]).tolist() == [2, UNK_ID, 3]
    assert len(vocabulary.stoi) == size


def test_saved_equals_loaded(tmp_path):
    vocabulary = build_vocabulary(COUNTS, min_frequency=2)
    save_vocabulary(vocabulary, tmp_path / "vocabulary.txt")
    loaded = load_vocabulary(tmp_path / "vocabulary.txt")
    assert loaded.itos == vocabulary.itos
    assert dict(loaded.stoi) == dict(vocabulary.stoi)
    assert (tmp_path / "vocabulary.txt").read_text(encoding="utf-8").split("\n")[2] == "the\t30"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"the 30\n", "line 1: expected a word, a tab and a count"),
        (b"<pad>\t0\n<unk>\t0\nthe\tx\n", "line 3"),
        (b"<pad>\t0\n<unk>\t0\na\t1\nthe\t30\n", "by decreasing count"),
        (b"the\t30\n", "must hold <pad>, <unk>"),
        (b"<pad>\t0\n<unk>\t0\na\t1\na\t1\n", "each word once"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b"", "must hold"),
    ],
)
def test_what_is_not_a_vocabulary_is_refused(tmp_path, content, message):
    path = tmp_path / "vocabulary.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_vocabulary(path)


def test_a_missing_vocabulary_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no vocabulary file"):
        load_vocabulary(tmp_path / "vocabulary.txt")
