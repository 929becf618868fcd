"""Pieces of reviews: spans of whole sentences with the labels of their reviews."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from sentiment.config.config import Config
from sentiment.data.batches import Keep, add_pieces, encode
from sentiment.data.pipeline import TrainingData
from sentiment.data.tokenizer import TokenizedTexts
from sentiment.training.checkpoint import TrainingContext
from sentiment.training.objectives import MicroBatches

WORDS = ["good", "bad", "film", "it", "is", ".", "!", "..."]
REVIEWS = st.lists(st.lists(st.integers(0, len(WORDS) - 1), max_size=25), min_size=1, max_size=6)


def make(reviews: list[list[int]], keep: Keep = "head", max_length: int = 100):
    tokens = np.array([token for review in reviews for token in review], dtype=np.int32)
    tokenized = TokenizedTexts(tokens, np.cumsum([0, *map(len, reviews)]), WORDS)
    ids = np.arange(len(WORDS), dtype=np.int32) + 2
    labels = np.arange(len(reviews))
    return encode(tokenized, ids, labels, max_length=max_length, keep=keep), tokenized


def allowed(review: list[int]) -> set[tuple[int, ...]]:
    """All spans of whole sentences but the review itself, of three tokens or more."""
    sentences: list[list[int]] = [[]]
    for index, token in enumerate(review):
        sentences[-1].append(token)
        is_last_end = index + 1 == len(review) or WORDS[review[index + 1]] not in (".", "!", "...")
        if WORDS[token] in (".", "!", "...") and is_last_end:
            sentences.append([])
    sentences = [sentence for sentence in sentences if sentence]
    spans = set()
    for first in range(len(sentences)):
        for last in range(first + 1, len(sentences) + 1):
            span = [token for sentence in sentences[first:last] for token in sentence]
            if last - first < len(sentences) and len(span) >= 3:
                spans.add(tuple(token + 2 for token in span))
    return spans


@given(
    reviews=REVIEWS, seed=st.integers(0, 9), per_review=st.integers(1, 4),
    keep=st.sampled_from(["head", "tail", "head+tail"]), longest=st.integers(3, 100),
)  # fmt: skip
def test_pieces_are_whole_sentences_of_their_reviews(reviews, seed, per_review, keep, longest):
    whole, tokenized = make(reviews, keep, longest)
    found = add_pieces(whole, tokenized, per_review=per_review, max_length=longest, seed=seed)
    pieces = torch.arange(len(reviews), len(found))
    assert found.num_reviews == whole.num_reviews == len(reviews)
    assert found.reviews_of(torch.arange(len(reviews))).tolist() == list(range(len(reviews)))
    assert len(pieces) <= per_review * sum(bool(allowed(review)) for review in reviews)
    for row, review in zip(pieces.tolist(), found.reviews_of(pieces).tolist(), strict=True):
        batch = found.batch(torch.tensor([row]))
        cut = {span[:longest] for span in allowed(reviews[review])}
        assert tuple(batch.tokens[0].tolist()) in cut
        assert batch.labels.item() == review
    for row in range(len(reviews)):
        before, after = (corpus.batch(torch.tensor([row])) for corpus in (whole, found))
        assert torch.equal(before.tokens, after.tokens)


def test_all_spans_are_drawn_shorter_ones_more_often():
    review = [0, 2, 4, 5, 1, 2, 4, 6, 3, 4, 0, 5]  # three sentences of four tokens
    corpus, tokenized = make([review])
    found = add_pieces(corpus, tokenized, per_review=3000, max_length=100, seed=0)
    pieces = {}
    for row in range(1, len(found)):
        tokens = tuple(found.batch(torch.tensor([row])).tokens[0].tolist())
        pieces[tokens] = pieces.get(tokens, 0) + 1
    assert set(pieces) == allowed(review)
    short = sum(count for tokens, count in pieces.items() if len(tokens) == 4)
    assert 0.45 < short / 3000 < 0.55
    again = add_pieces(corpus, tokenized, per_review=3000, max_length=100, seed=0)
    assert torch.equal(found.starts, again.starts)


def test_a_review_of_one_sentence_has_no_pieces():
    corpus, tokenized = make([[0, 2, 4, 5], []])
    assert len(add_pieces(corpus, tokenized, per_review=3, max_length=9, seed=0)) == 2


def test_a_piece_learns_the_soft_label_of_its_review():
    reviews = [[0, 2, 4, 5, 1, 2, 4, 6] * 2 for _ in range(5)]
    corpus, tokenized = make(reviews)
    corpus = add_pieces(corpus, tokenized, per_review=2, max_length=100, seed=0)
    soft_labels = torch.rand(5, 2)
    data = TrainingData(
        corpus, corpus, None, None, None, None, unlabelled=corpus, soft_labels=soft_labels
    )
    context = TrainingContext(Config(), Path("unused"), torch.device("cpu"), torch.float32)
    batches = MicroBatches(data, context)
    rows = torch.arange(len(corpus))
    seen = 0
    for micro_batch in batches.of_update(0, [rows])[0]:
        if not micro_batch.is_labelled:
            expected = soft_labels[corpus.reviews_of(micro_batch.batch.indices)]
            assert torch.equal(micro_batch.soft_labels, expected)
            seen += len(expected)
    assert seen == len(corpus) > 5
