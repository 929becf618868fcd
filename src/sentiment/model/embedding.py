"""An embedding that is normalized over the words of the training texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable

_EPSILON = 1e-6  # added to variances, so that a dimension which is alike in all words divides
_ROWS_OF_BLOCK = 4096  # few enough to stay in a processor's cache, if not its nearest


class NormalizedEmbedding(nn.Embedding):
    """Embeddings that have mean 0 and variance 1 in each dimension over the training texts.

        e'_w = (e_w - m) / sqrt(v)      m = sum of f_w e_w      v = sum of f_w (e_w - m)^2

    where f_w is word w's share of all words, after Miyato, Dai & Goodfellow (2017), section 2. Its
    table e is trained through m and v as well, so embeddings cannot grow to make perturbations of
    them, or what is dropped, weigh less. Word 0 is padding and stays zero.

    m and v are computed at each call, in a fraction of what a recurrence takes for its batch:
    nothing is kept that could be out of date.

    Args:
        num_words: rows of the table.
        size: values of an embedding.
        frequencies: how often each word occurs; padding counts as 0, and any other word as 1 at
            least, like one that stands for all unknown words and is never counted.

    Raises:
        ValueError: there are more or fewer frequencies than words.
    """

    shares: torch.Tensor  # (num_words,), f

    def __init__(self, num_words: int, size: int, frequencies: Sequence[int]) -> None:
        super().__init__(num_words, size, padding_idx=0)
        if len(frequencies) != num_words:
            raise ValueError(f"frequencies are of {len(frequencies)} words, expected {num_words}")
        counts = torch.tensor(frequencies, dtype=torch.float64).clamp(min=1)
        counts[0] = 0
        # With the weights, so that what is saved can be used without a vocabulary's counts.
        self.register_buffer("shares", (counts / counts.sum()).float())

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Ids of any shape to (*shape, size)."""
        return self._normalize(super().forward(tokens), tokens != 0)

    def table(self) -> torch.Tensor:
        """(num_words, size), what :meth:`forward` gives for each word."""
        is_word = torch.arange(self.num_embeddings, device=self.weight.device) != 0
        return self._normalize(self.weight, is_word)

    def _normalize(self, rows: torch.Tensor, is_word: torch.Tensor) -> torch.Tensor:
        mean, variance = _Moments.apply(self.weight, self.shares)
        scale = (variance + _EPSILON).rsqrt()
        normalized = torch.addcmul(-mean * scale, rows, scale)  # one walk through memory
        return normalized.mul_(is_word.unsqueeze(-1))  # several times as fast as masked_fill_


class _Moments(torch.autograd.Function):
    """Weighted mean and variance over the rows of a table.

    Autograd alone would make and fill several tensors as large as the table on its way back.
    """

    @staticmethod
    def forward(
        ctx: Any, table: torch.Tensor, shares: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        rows = _ROWS_OF_BLOCK if table.device.type == "cpu" else len(table)
        with torch.autocast(table.device.type, enabled=False):  # in the table's own precision
            mean = shares @ table  # (size,)
            variance = torch.zeros_like(mean)
            for share, block in zip(shares.split(rows), table.split(rows), strict=True):
                variance += share @ (block - mean).square_()
        ctx.save_for_backward(table, shares, mean)
        return mean, variance

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, of_mean: torch.Tensor, of_variance: torch.Tensor
    ) -> tuple[torch.Tensor, None]:
        table, shares, mean = ctx.saved_tensors
        # The variance does not change with the mean that it is taken around: f (g + 2 h (e - m)).
        of_table = table * (2 * of_variance)
        of_table += of_mean - 2 * of_variance * mean
        of_table *= shares.unsqueeze(1)
        return of_table, None
