"""Embedding, dropout and pooling over padded batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast, get_args

import torch
from torch import nn
from torch.autograd.function import once_differentiable

_EPSILON = 1e-6  # added to variances, one of which may be 0
_ROWS_PER_BLOCK = 4096  # few enough to stay in the processor's cache


def to_device(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy from the CPU to a device without making the host wait for it."""
    if device.type == "cuda" and values.device.type == "cpu":
        values = values.pin_memory()
    return values.to(device, non_blocking=True)


class NormalizedEmbedding(nn.Embedding):
    """Embeddings with mean 0 and variance 1 in each dimension over the training texts.

        e'_w = (e_w - m) / sqrt(v)      m = sum of f_w e_w      v = sum of f_w (e_w - m)^2

    where f_w is word w's relative frequency, after Miyato, Dai & Goodfellow (2017), section 2. The
    table e is trained through m and v, so that embeddings cannot grow to make perturbations or
    dropout weigh less. Word 0 is padding and stays zero. m and v are computed at each call, which
    takes a fraction of the recurrence's time.

    ``frequencies`` are occurrences of each word; padding counts as 0, and any other word as at
    least 1, also the unknown word, which is never counted.
    """

    shares: torch.Tensor  # (num_words,), f

    def __init__(self, num_words: int, size: int, frequencies: Sequence[int]) -> None:
        super().__init__(num_words, size, padding_idx=0)
        if len(frequencies) != num_words:
            raise ValueError(f"frequencies has {len(frequencies)} words, expected {num_words}")
        counts = torch.tensor(frequencies, dtype=torch.float64).clamp(min=1)
        counts[0] = 0
        # A buffer, so that a saved model does not need the vocabulary's counts.
        self.register_buffer("shares", (counts / counts.sum()).float())

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Embed ids of any shape as (*shape, size)."""
        return self._normalize(super().forward(tokens), tokens != 0)

    def table(self) -> torch.Tensor:
        """(num_words, size), the result of :meth:`forward` for all words."""
        is_word = torch.arange(self.num_embeddings, device=self.weight.device) != 0
        return self._normalize(self.weight, is_word)

    def _normalize(self, rows: torch.Tensor, is_word: torch.Tensor) -> torch.Tensor:
        mean, variance = _Moments.apply(self.weight, self.shares)
        scale = (variance + _EPSILON).rsqrt()
        normalized = torch.addcmul(-mean * scale, rows, scale)  # one pass over memory
        return normalized.mul_(is_word.unsqueeze(-1))  # several times as fast as masked_fill_


class _Moments(torch.autograd.Function):
    """Weighted mean and variance over the rows of a table.

    Autograd's own backward would fill several tensors as large as the table.
    """

    @staticmethod
    def forward(
        ctx: Any, table: torch.Tensor, shares: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        rows = _ROWS_PER_BLOCK if table.device.type == "cpu" else len(table)
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
        ctx: Any, grad_mean: torch.Tensor, grad_variance: torch.Tensor
    ) -> tuple[torch.Tensor, None]:
        table, shares, mean = ctx.saved_tensors
        # The variance does not depend on the mean to first order: f (g_m + 2 g_v (e - m)).
        grad_table = table * (2 * grad_variance)  # (num_words, size)
        grad_table += grad_mean - 2 * grad_variance * mean
        grad_table *= shares.unsqueeze(1)
        return grad_table, None


_UNKNOWN = 1  # id of unknown words
_NUM_INT16 = 2**16  # values of two bytes


def dropout(x: torch.Tensor, p: float, training: bool) -> torch.Tensor:
    """:func:`torch.nn.functional.dropout`, faster on a CPU, where p is rounded to 1/65,536."""
    num_dropped = round(p * _NUM_INT16)
    if not training or num_dropped == 0:
        return x
    if x.device.type != "cpu" or num_dropped == _NUM_INT16:
        return nn.functional.dropout(x, p)
    quads = torch.empty(-(-x.numel() // 4), dtype=torch.int64)
    quads.random_(torch.iinfo(torch.int64).min, None)  # all 64 bits
    drawn = quads.view(torch.int16)[: x.numel()].view(x.shape)
    # In the values' own precision: multiplying mixed precisions takes twice as long.
    factors = (drawn >= num_dropped - _NUM_INT16 // 2).to(x.dtype)
    return x * factors.mul_(_NUM_INT16 / (_NUM_INT16 - num_dropped))


def drop_over_time(x: torch.Tensor, p: float, training: bool) -> torch.Tensor:
    """Drop the same features of x (time, batch, features) at every step (Gal & Ghahramani 2016)."""
    if not training or p == 0:
        return x
    return x * dropout(torch.ones_like(x[:1]), p, training)  # (1, batch, features)


def drop_words(tokens: torch.Tensor, p: float, training: bool) -> torch.Tensor:
    """Replace a share ``p`` of the words, but no padding, by the unknown word (Dai & Le 2015)."""
    if not training or p == 0:
        return tokens
    is_dropped = torch.rand(tokens.shape, device=tokens.device) < p
    return tokens.masked_fill(is_dropped & (tokens != 0), _UNKNOWN)


Pooling = Literal["last", "mean", "max", "attention"]


def pool(
    kind: Pooling, output: torch.Tensor, final: torch.Tensor, lengths: torch.Tensor
) -> torch.Tensor:
    """Pool the outputs of a recurrence over time to (batch, directions * hidden).

    Args:
        kind: ``last`` takes each direction's final state, ``mean`` and ``max`` pool over the words;
            for ``attention`` see :class:`AttentionPooling`.
        output: (batch, time, directions * hidden), zero past each length.
        final: (directions, batch, hidden), the last layer's final states.
        lengths: (batch,), at least 1.
    """
    if kind == "last":
        return final.transpose(0, 1).flatten(1)
    if kind == "mean":
        return output.sum(dim=1) / lengths.to(output.device).unsqueeze(1)
    if kind == "max":
        padding = _find_padding(output, lengths)
        if output.device.type == "cpu" and output.dtype in _BITS:
            return _MaxOverTime.apply(output, padding)
        return output.masked_fill(padding.unsqueeze(2), float("-inf")).amax(dim=1)
    raise ValueError(f"pooling is {kind!r}, but must be last, mean or max")


def split_pooling(pooling: str) -> tuple[Pooling, ...]:
    """Split ``last+max+mean`` (Howard & Ruder 2018) into kinds; ``ValueError`` if not valid."""
    kinds = pooling.split("+")
    if not set(kinds) <= set(get_args(Pooling)) or len(set(kinds)) < len(kinds):
        raise ValueError(
            f"pooling is {pooling!r}, but must be one of {', '.join(get_args(Pooling))}, or "
            "different ones joined by +"
        )
    return tuple(cast(Pooling, kind) for kind in kinds)


def _find_padding(output: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """(batch, time), true past each length."""
    lengths = lengths.to(output.device).unsqueeze(1)
    return torch.arange(output.shape[1], device=output.device) >= lengths


class AttentionPooling(nn.Module):
    """A weighted mean over the words with learned weights.

        u_t = tanh(W h_t + b)
        a_t = exp(u_t . v) / (sum of exp(u_s . v) over the review's words s)

    after Bahdanau et al. (2015), with a learned context v in place of a decoder's state, as Yang et
    al. (2016) classify documents.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.projection = nn.Linear(features, features)  # W and b
        self.context = nn.Parameter(torch.empty(features))  # v
        nn.init.xavier_uniform_(self.projection.weight)
        nn.init.zeros_(self.projection.bias)
        nn.init.normal_(self.context, std=features**-0.5)  # so that u . v varies by less than 1

    def forward(self, output: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Pool (batch, time, features), finite past each length, to (batch, features)."""
        weights = self.weigh(output, lengths).to(output.dtype)
        return torch.einsum("bt,btf->bf", weights, output)

    def weigh(self, output: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """The words' weights (batch, time), which sum to 1; zero past each length."""
        scores = (self.projection(output).tanh() @ self.context.to(output.dtype)).float()
        return scores.masked_fill(_find_padding(output, lengths), float("-inf")).softmax(dim=1)


# Integers compare several times as fast as floating-point numbers of the same bits.
_BITS = {torch.float32: torch.int32, torch.bfloat16: torch.int16, torch.float16: torch.int16}


class _MaxOverTime(torch.autograd.Function):
    """``amax`` over the words, five times as fast as torch's on a CPU.

    As in torch, equal maxima, which are common in bf16, share the gradient.
    """

    @staticmethod
    def forward(ctx: Any, output: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
        by_time = output.detach().transpose(0, 1)  # (time, batch, features), contiguous
        rows = padding.t().flatten().nonzero().squeeze(1)
        if len(rows):
            by_time = by_time.flatten(0, 1).index_fill(0, rows, float("-inf")).view_as(by_time)
        highest = by_time.amax(dim=0)  # (batch, features)
        ctx.save_for_backward(by_time, highest)
        return highest

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        by_time, highest = ctx.saved_tensors
        bits = _BITS[by_time.dtype]
        is_highest = (by_time.view(bits) == highest.view(bits)).view(torch.int8)
        # Summing bytes as bytes is many times as fast, and 255 of them cannot overflow.
        parts = is_highest.view(torch.uint8).split(255)
        counts = sum(part.sum(dim=0, dtype=torch.uint8).to(torch.int32) for part in parts)
        return (is_highest * (gradient / counts).to(by_time.dtype)).transpose(0, 1), None
