"""Batches of reviews of nearly equal lengths, in an order that seed and epoch determine."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
from torch.utils.data import Sampler

from sentiment.runtime.errors import UserError

BatchUnit = Literal["reviews", "tokens"]
# Reviews are shuffled, then sorted by length within pools of this many batches: enough that the
# reviews of a batch have similar lengths, few enough that batches differ between epochs.
_BATCHES_PER_POOL = 50


class BucketSampler(Sampler[torch.Tensor]):
    """Yields the indices of the reviews of each batch, longest first.

    Args:
        lengths: (num_reviews,) number of tokens of each review, at least 1.
        batch_size: size of a batch in ``unit``; a review with more tokens is a batch by itself.
        unit: what ``batch_size`` counts; tokens include padding.
        seed: determines the order together with the epoch.
        shuffle: False sorts all reviews by length, for evaluation.
    """

    def __init__(
        self,
        lengths: torch.Tensor,
        *,
        batch_size: int,
        unit: BatchUnit = "reviews",
        seed: int = 0,
        shuffle: bool = True,
    ) -> None:
        if batch_size < 1:
            raise UserError(f"batch_size is {batch_size}, but must be at least 1")
        self._lengths = lengths.numpy().astype(np.int64)
        if len(self._lengths) and self._lengths.min() < 1:
            raise UserError("a review without tokens cannot be in a batch")
        self._batch_size = batch_size
        self._unit = unit
        self._seed = seed
        self._shuffle = shuffle
        self._epoch = 0
        self._planned: tuple[int, list[np.ndarray]] | None = None

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, which determines the order of the next iteration."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._batches())

    def __iter__(self) -> Iterator[torch.Tensor]:
        for batch in self._batches():
            yield torch.from_numpy(batch)

    def padding_share(self) -> float:
        """Share of padding in this epoch's batches, between 0 and 1."""
        cells = sum(len(batch) * int(self._lengths[batch[0]]) for batch in self._batches())
        return 1 - int(self._lengths.sum()) / cells if cells else 0.0

    def _batches(self) -> list[np.ndarray]:
        if self._planned is None or self._planned[0] != self._epoch:
            self._planned = (self._epoch, self._plan())
        return self._planned[1]

    def _plan(self) -> list[np.ndarray]:
        if not self._shuffle:
            return self._cut(np.argsort(-self._lengths, kind="stable"))
        if len(self._lengths) == 0:
            return []
        generator = np.random.default_rng((self._seed, self._epoch))
        order = generator.permutation(len(self._lengths))
        batches: list[np.ndarray] = []
        for pool in np.split(order, range(self._pool_size(), len(order), self._pool_size())):
            batches += self._cut(pool[np.argsort(-self._lengths[pool], kind="stable")])
        return [batches[position] for position in generator.permutation(len(batches))]

    def _pool_size(self) -> int:
        reviews = self._batch_size
        if self._unit == "tokens":
            reviews = max(1, round(self._batch_size / max(1.0, float(self._lengths.mean()))))
        return reviews * _BATCHES_PER_POOL

    def _cut(self, order: np.ndarray) -> list[np.ndarray]:
        """Cut reviews in order of decreasing length into batches."""
        batches = []
        start = 0
        while start < len(order):
            longest = int(self._lengths[order[start]])
            count = self._batch_size if self._unit == "reviews" else self._batch_size // longest
            batches.append(order[start : start + max(1, count)])
            start += max(1, count)
        return batches


def by_update(sampler: BucketSampler, accumulation_steps: int) -> Iterator[list[torch.Tensor]]:
    """Group the batches of an epoch by the update of the weights that accumulates them."""
    batches = iter(sampler)
    while group := list(itertools.islice(batches, accumulation_steps)):
        yield group


def shard(batch: torch.Tensor, rank: int, size: int) -> torch.Tensor:
    """The part of a batch (indices, longest review first) for one of ``size`` ranks.

    Neighbours have similar lengths and go to different ranks, so that all finish together.
    """
    return batch[rank::size]
