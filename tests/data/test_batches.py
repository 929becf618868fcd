"""Reviews as ids: batches, their order, pieces of reviews, and the vocabulary."""

from collections import Counter
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sentiment.config.config import Config
from sentiment.data.batches import BucketSampler, Keep, add_excerpts, encode
from sentiment.data.pipeline import SoftLabels, TrainingData
from sentiment.data.tokenizer import TokenizedTexts, tokenize
from sentiment.data.vocabulary import (
    UNK_ID,
    build_vocabulary,
    count_tokens,
    load_vocabulary,
    number_lexicon,
    save_vocabulary,
)
from sentiment.training.context import TrainingContext
from sentiment.training.objectives import MicroBatches

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


def imdb_like_lengths(count: int) -> torch.Tensor:
    drawn = np.random.default_rng(0).lognormal(5.4, 0.6, count)
    return torch.from_numpy(drawn.clip(10, 400).astype(np.int64))


@given(
    lengths=st.lists(st.integers(1, 50), max_size=80),
    batch_size=st.integers(1, 90),
    unit=st.sampled_from(["reviews", "tokens"]),
    seed=st.integers(0, 5),
    epoch=st.integers(0, 5),
    shuffle=st.booleans(),
)
def test_every_review_stands_in_exactly_one_batch(lengths, batch_size, unit, seed, epoch, shuffle):
    lengths = torch.tensor(lengths, dtype=torch.int64)
    sampler = BucketSampler(lengths, batch_size=batch_size, unit=unit, seed=seed, shuffle=shuffle)
    sampler.set_epoch(epoch)
    batches = list(sampler)
    assert len(batches) == len(sampler)
    assert sorted(torch.cat(batches).tolist() if batches else []) == list(range(len(lengths)))
    for batch in batches:
        sizes = lengths[batch]
        assert (sizes[1:] <= sizes[:-1]).all(), "longest first"
        cells = len(batch) * int(sizes[0])
        assert len(batch) == 1 or (len(batch) if unit == "reviews" else cells) <= batch_size


def test_padding_is_under_three_percent():
    sampler = BucketSampler(imdb_like_lengths(22_500), batch_size=64)
    for epoch in range(3):
        sampler.set_epoch(epoch)
        cells = sum(len(batch) * int(sampler._lengths[batch].max()) for batch in sampler)
        share = 1 - imdb_like_lengths(22_500).sum() / cells
        assert 0 < share < 0.03
        assert sampler.padding_share() == pytest.approx(float(share), abs=1e-6)


def test_order_depends_on_seed_and_epoch_alone():
    def batches(seed: int, epoch: int) -> list[list[int]]:
        sampler = BucketSampler(imdb_like_lengths(10_000), batch_size=64, seed=seed)
        torch.rand(1), np.random.rand(1)  # global generators must not matter
        sampler.set_epoch(epoch)
        return [batch.tolist() for batch in sampler]

    assert batches(0, 1) == batches(0, 1) != batches(1, 1)
    before, after = ({frozenset(batch) for batch in batches(0, epoch)} for epoch in (1, 2))
    assert not before & after


WORDS = ["good", "bad", "film", "it", "is", ".", "!", "..."]
SENTENCES = st.lists(st.lists(st.integers(0, len(WORDS) - 1), max_size=25), min_size=1, max_size=6)


def encode_sentences(reviews: list[list[int]], keep: Keep = "head", max_length: int = 100):
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
    reviews=SENTENCES, seed=st.integers(0, 9), per_review=st.integers(1, 4),
    keep=st.sampled_from(["head", "tail", "head+tail"]), longest=st.integers(3, 100),
)  # fmt: skip
def test_pieces_are_whole_sentences_of_their_reviews(reviews, seed, per_review, keep, longest):
    whole, tokenized = encode_sentences(reviews, keep, longest)
    found = add_excerpts(whole, tokenized, per_review=per_review, max_length=longest, seed=seed)
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
    corpus, tokenized = encode_sentences([review])
    found = add_excerpts(corpus, tokenized, per_review=3000, max_length=100, seed=0)
    pieces = {}
    for row in range(1, len(found)):
        tokens = tuple(found.batch(torch.tensor([row])).tokens[0].tolist())
        pieces[tokens] = pieces.get(tokens, 0) + 1
    assert set(pieces) == allowed(review)
    short = sum(count for tokens, count in pieces.items() if len(tokens) == 4)
    assert 0.45 < short / 3000 < 0.55
    again = add_excerpts(corpus, tokenized, per_review=3000, max_length=100, seed=0)
    assert torch.equal(found.starts, again.starts)


def test_a_piece_learns_the_soft_label_of_its_review():
    reviews = [[0, 2, 4, 5, 1, 2, 4, 6] * 2 for _ in range(5)]
    corpus, tokenized = encode_sentences(reviews)
    corpus = add_excerpts(corpus, tokenized, per_review=2, max_length=100, seed=0)
    known = SoftLabels(unlabelled=torch.rand(5, 2), labelled=torch.rand(5, 2))
    data = TrainingData(
        corpus, corpus, None, None, None, None, unlabelled=corpus, soft_labels=known
    )
    context = TrainingContext(Config(), Path("unused"), torch.device("cpu"), torch.float32)
    batches = MicroBatches(data, context)
    rows = torch.arange(len(corpus))
    seen = {True: 0, False: 0}
    for micro_batch in batches.of_update(0, [rows])[0]:
        soft_labels = known.labelled if micro_batch.is_labelled else known.unlabelled
        expected = soft_labels[corpus.reviews_of(micro_batch.batch.indices)]
        assert torch.equal(micro_batch.soft_labels, expected)
        seen[micro_batch.is_labelled] += len(expected)
    assert seen[True] == seen[False] == len(corpus) > 5


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
