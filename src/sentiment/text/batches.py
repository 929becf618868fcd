"""The encoded corpus and the batches cut from it, on the device they are needed on.

A corpus is one flat array of token ids with the place of each review in it. Where it lives on the
device, a batch is an index operation there: no per-review Python, no copy from the host but the
batch's indices.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from sentiment.text.bucketing import BucketSampler
from sentiment.text.vocabulary import PAD_ID, UNK_ID


@dataclass(frozen=True)
class Batch:
    """Reviews of nearly equal lengths, longest first where a sampler made them.

    Attributes:
        tokens: (batch, time) int32 on the device, ``<pad>`` past each length.
        lengths: (batch,) int64 on the CPU, where packing needs them.
        labels: (batch,) int64 on the device.
        indices: (batch,) int64 on the CPU, the reviews' places in the corpus.
    """

    tokens: torch.Tensor
    lengths: torch.Tensor
    labels: torch.Tensor
    indices: torch.Tensor


@dataclass(frozen=True)
class EncodedCorpus:
    """Token ids of all reviews of a split, end to end, cut to a maximal length.

    Attributes:
        tokens: (num_tokens,) int32, on the device.
        starts: (num_reviews,) int64, where each review begins in ``tokens``, on the device.
        lengths: (num_reviews,) int64, tokens kept of each review, at least 1, on the CPU.
        full_lengths: (num_reviews,) int64, tokens before cutting, on the CPU.
        labels: (num_reviews,) int64, on the device.
    """

    tokens: torch.Tensor
    starts: torch.Tensor
    lengths: torch.Tensor
    full_lengths: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.lengths)

    def to(self, device: torch.device) -> EncodedCorpus:
        """The corpus with what batches are cut from on the device; lengths stay on the CPU."""
        return replace(
            self,
            tokens=self.tokens.to(device),
            starts=self.starts.to(device),
            labels=self.labels.to(device),
        )

    def batch(self, indices: torch.Tensor) -> Batch:
        """Cut one batch.

        Args:
            indices: (batch,) int64 on the CPU.
        """
        device = self.tokens.device
        lengths = self.lengths[indices]
        places = _to_device(indices, device)
        steps = torch.arange(int(lengths.max()), device=device)  # (time,)
        positions = self.starts[places].unsqueeze(1) + steps  # (batch, time)
        padding = steps >= _to_device(lengths, device).unsqueeze(1)  # (batch, time)
        # Positions past the end of a review belong to the next one, or past the last to nobody.
        tokens = self.tokens[positions.clamp_(max=len(self.tokens) - 1)]
        return Batch(tokens.masked_fill_(padding, PAD_ID), lengths, self.labels[places], indices)

    def batches(self, sampler: BucketSampler | Iterable[torch.Tensor]) -> Iterator[Batch]:
        """Cut the batches whose indices a sampler yields."""
        return map(self.batch, sampler)

    def unknown_share(self) -> float:
        """Share of ``<unk>`` among the tokens, cut-off ones included."""
        return float((self.tokens == UNK_ID).float().mean())


def _to_device(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A copy that does not make the host wait for the device."""
    if device.type == "cuda":
        values = values.pin_memory()
    return values.to(device, non_blocking=True)


def encode(
    tokens: np.ndarray, offsets: np.ndarray, labels: np.ndarray, *, max_length: int
) -> EncodedCorpus:
    """Encode numbered tokens.

    A review of no tokens becomes one ``<unk>``: a recurrence needs a step to stand on.

    Args:
        tokens: (num_tokens,) int32 ids.
        offsets: (num_reviews + 1,) where reviews begin and end in ``tokens``.
        labels: (num_reviews,) class indices.
        max_length: tokens kept of a review, from its beginning.
    """
    full_lengths = np.diff(offsets)
    empty = full_lengths == 0
    if empty.any():
        tokens = np.insert(tokens, offsets[:-1][empty], UNK_ID)
    lengths = np.where(empty, 1, full_lengths)
    starts = np.cumsum(lengths) - lengths
    return EncodedCorpus(
        tokens=torch.from_numpy(np.ascontiguousarray(tokens, dtype=np.int32)),
        starts=torch.from_numpy(starts),
        lengths=torch.from_numpy(np.minimum(lengths, max_length)),
        full_lengths=torch.from_numpy(full_lengths),
        labels=torch.from_numpy(np.asarray(labels, dtype=np.int64)),
    )
