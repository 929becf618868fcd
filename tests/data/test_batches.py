from __future__ import annotations

from typing import get_args

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from sentiment.data.batches import Keep, encode
from sentiment.data.tokenizer import TokenizedTexts
from sentiment.data.vocabulary import UNK_ID

REVIEWS = st.lists(st.lists(st.integers(2, 99), max_size=12), min_size=1, max_size=8)

KEEPS = st.sampled_from(get_args(Keep))


def encode_lists(reviews: list[list[int]], max_length: int, keep: Keep = "head"):
    """Encode reviews of ids; the lexicon holds them backwards, so that places are no ids."""
    tokens = np.array([99 - token for review in reviews for token in review], dtype=np.int32)
    offsets = np.cumsum([0, *map(len, reviews)])
    tokenized = TokenizedTexts(tokens, offsets, [f"word {99 - place}" for place in range(98)])
    ids = np.arange(99, 1, -1, dtype=np.int32)
    return encode(tokenized, ids, np.arange(len(reviews)), max_length=max_length, keep=keep)


def kept(review: list[int], max_length: int, keep: Keep) -> list[int]:
    """What cutting leaves of a review, written down by slices."""
    if len(review) <= max_length:
        return review or [UNK_ID]
    if keep == "tail":
        return review[-max_length:]
    head = max_length if keep == "head" else max_length - max_length // 2
    return review[:head] + (review[-(max_length - head) :] if head < max_length else [])


@given(reviews=REVIEWS, max_length=st.integers(1, 15), keep=KEEPS, data=st.data())
def test_a_batch_holds_the_reviews_asked_for(reviews, max_length, keep, data):
    corpus = encode_lists(reviews, max_length, keep)
    indices = data.draw(st.lists(st.integers(0, len(reviews) - 1), min_size=1, max_size=9))
    batch = corpus.batch(torch.tensor(indices))
    expected = [kept(reviews[index], max_length, keep) for index in indices]
    assert batch.lengths.tolist() == [len(review) for review in expected]
    assert batch.labels.tolist() == indices
    longest = max(map(len, expected))
    assert batch.tokens.tolist() == [review + [0] * (longest - len(review)) for review in expected]


def test_cutting_is_told():
    corpus = encode_lists([[5] * 7, [6] * 3], 4)
    assert corpus.lengths.tolist() == [4, 3]
    assert corpus.full_lengths.tolist() == [7, 3]
    assert corpus.was_cut().tolist() == [True, False]


@given(reviews=REVIEWS, lengths=st.tuples(*[st.integers(1, 15)] * 2), keeps=st.tuples(KEEPS, KEEPS))
def test_a_corpus_can_be_cut_again(reviews, lengths, keeps):
    once = encode_lists(reviews, lengths[0], keeps[0])
    again = encode_lists(reviews, lengths[1], keeps[1]).cut(lengths[0], keeps[0])
    everything = torch.arange(len(reviews))
    assert torch.equal(again.batch(everything).tokens, once.batch(everything).tokens)


def test_tokens_in_a_file_are_read_where_a_batch_needs_them(tmp_path):
    tokens = np.arange(1000, dtype=np.int32) % 98
    np.save(tmp_path / "tokens.npy", tokens)
    mapped = np.load(tmp_path / "tokens.npy", mmap_mode="c")
    lexicon = [f"word {place}" for place in range(98)]

    def encode_tokens(tokens: np.ndarray, offsets: np.ndarray):
        tokenized = TokenizedTexts(tokens, offsets, lexicon)
        ids, labels = np.arange(98, dtype=np.int32), np.zeros(len(offsets) - 1)
        return encode(tokenized, ids, labels, max_length=70)

    corpora = [encode_tokens(each, np.arange(0, 1001, 100)) for each in (tokens, mapped)]
    assert np.shares_memory(corpora[1].tokens.numpy(), mapped)
    batches = [corpus.batch(torch.tensor([7, 2])).tokens for corpus in corpora]
    assert torch.equal(*batches)
    with_empty = encode_tokens(mapped, np.array([0, 0, 500, 500, 1000]))
    assert np.shares_memory(with_empty.tokens.numpy(), mapped), "empty reviews cost no copy"
    assert corpora[0].unknown_share() == corpora[1].unknown_share() == 11 / 1000
