from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from sentiment.text.batches import encode
from sentiment.text.vocabulary import UNK_ID

REVIEWS = st.lists(st.lists(st.integers(2, 99), max_size=12), min_size=1, max_size=8)


def encode_lists(reviews: list[list[int]], max_length: int):
    tokens = np.array([token for review in reviews for token in review], dtype=np.int32)
    offsets = np.cumsum([0, *map(len, reviews)])
    return encode(tokens, offsets, np.arange(len(reviews)), max_length=max_length)


@given(reviews=REVIEWS, max_length=st.integers(1, 15), data=st.data())
def test_a_batch_holds_the_reviews_asked_for(reviews, max_length, data):
    corpus = encode_lists(reviews, max_length)
    indices = data.draw(st.lists(st.integers(0, len(reviews) - 1), min_size=1, max_size=9))
    batch = corpus.batch(torch.tensor(indices))
    expected = [reviews[index][:max_length] or [UNK_ID] for index in indices]
    assert batch.lengths.tolist() == [len(review) for review in expected]
    assert batch.labels.tolist() == indices
    longest = max(map(len, expected))
    assert batch.tokens.tolist() == [review + [0] * (longest - len(review)) for review in expected]


def test_an_empty_review_becomes_one_unknown_word():
    corpus = encode_lists([[], [5, 6], [], []], 10)
    assert corpus.lengths.tolist() == [1, 2, 1, 1]
    assert corpus.tokens.tolist() == [UNK_ID, 5, 6, UNK_ID, UNK_ID]


def test_cutting_is_told():
    corpus = encode_lists([[5] * 7, [6] * 3], 4)
    assert corpus.lengths.tolist() == [4, 3]
    assert corpus.full_lengths.tolist() == [7, 3]
