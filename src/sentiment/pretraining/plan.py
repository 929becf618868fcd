"""Which reviews a language model reads, update by update: a function of seed and epoch alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from sentiment.pretraining.windows import num_windows
from sentiment.text.batches import EncodedCorpus
from sentiment.text.bucketing import BucketSampler

_SHORTEST = 2  # words of a review of which one can be predicted


class Plan:
    """The batches of several corpora, mixed.

    Args:
        corpora: what to read.
        batch_size: reviews in a batch.
        window: words of a window.
        is_repeated: whether each review is read twice in a row.
        seed: decides the order together with the epoch.

    Raises:
        ValueError: no review has two words.
    """

    def __init__(
        self,
        corpora: Sequence[EncodedCorpus],
        *,
        batch_size: int,
        window: int,
        is_repeated: bool,
        seed: int,
    ) -> None:
        self._lengths = [corpus.lengths for corpus in corpora]
        self._window = window
        self._times = 2 if is_repeated else 1
        self._seed = seed
        self._readable = [(each >= _SHORTEST).nonzero().squeeze(1) for each in self._lengths]
        if not any(len(each) for each in self._readable):
            raise ValueError("no review has two words, the least to pre-train on")
        self._samplers = [
            BucketSampler(lengths[readable], batch_size=batch_size, seed=seed)
            for lengths, readable in zip(self._lengths, self._readable, strict=True)
        ]

    def batches(self, epoch: int) -> list[tuple[int, torch.Tensor]]:
        """The number of the corpus and the indices (batch,) of its reviews, longest first."""
        found = []
        for number, sampler in enumerate(self._samplers):
            sampler.set_epoch(epoch)
            found += [(number, self._readable[number][each]) for each in sampler]
        order = np.random.default_rng((self._seed, epoch)).permutation(len(found))
        return [found[place] for place in order]

    def num_updates(self, epochs: int) -> int:
        """Windows of so many epochs."""
        return sum(self._windows(epoch) for epoch in range(1, epochs + 1))

    def _windows(self, epoch: int) -> int:
        return sum(
            num_windows(self._times * int(self._lengths[number][indices[0]]), self._window)
            for number, indices in self.batches(epoch)
        )
