from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sentiment.data.batches import BucketSampler


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
    def order(seed: int, epoch: int) -> list[int]:
        sampler = BucketSampler(imdb_like_lengths(500), batch_size=16, seed=seed)
        torch.rand(1), np.random.rand(1)  # global generators must not matter
        sampler.set_epoch(epoch)
        return torch.cat(list(sampler)).tolist()

    assert order(0, 1) == order(0, 1)
    assert order(0, 1) != order(0, 2)
    assert order(0, 1) != order(1, 1)


def test_reviews_meet_others_in_the_next_epoch():
    sampler = BucketSampler(imdb_like_lengths(10_000), batch_size=64)
    batches = []
    for epoch in (1, 2):
        sampler.set_epoch(epoch)
        batches.append({frozenset(batch.tolist()) for batch in sampler})
    assert not batches[0] & batches[1]
