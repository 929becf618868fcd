"""Batches without end, of which each is known by its number alone."""

from __future__ import annotations

import torch

from sentiment.text.bucketing import BatchUnit, BucketSampler


class EndlessBatches:
    """One pass over the reviews after another, each in an order of its own.

    A training that is resumed asks for the next number: there is no place in the sequence to keep.

    Args:
        lengths: (num_reviews,) tokens of each review; at least one review.
        batch_size: size of a batch in ``unit``.
        unit: what ``batch_size`` counts.
        seed: decides the order.
    """

    def __init__(
        self, lengths: torch.Tensor, *, batch_size: int, unit: BatchUnit, seed: int
    ) -> None:
        assert len(lengths) > 0
        self._sampler = BucketSampler(lengths, batch_size=batch_size, unit=unit, seed=seed)
        self._begin(0, 0)

    def batch(self, number: int) -> torch.Tensor:
        """(batch,) indices of the reviews of a batch, longest first; numbers count from 0."""
        if number < self._first:
            self._begin(0, 0)
        while number >= self._first + len(self._batches):  # by tokens, passes differ in batches
            self._begin(self._pass + 1, self._first + len(self._batches))
        return self._batches[number - self._first]

    def _begin(self, number: int, first: int) -> None:
        """Plan a pass, whose first batch has the number ``first``."""
        self._pass, self._first = number, first
        self._sampler.set_epoch(number)
        self._batches = list(self._sampler)
