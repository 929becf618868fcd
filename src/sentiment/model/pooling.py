"""From one output for each time step to one vector for each review, padding left out."""

from __future__ import annotations

from typing import Any, Literal, cast, get_args

import torch
from torch import nn
from torch.autograd.function import once_differentiable

Pooling = Literal["last", "mean", "max", "attention"]


def pool(
    kind: Pooling, output: torch.Tensor, final: torch.Tensor, lengths: torch.Tensor
) -> torch.Tensor:
    """Pool the outputs of a recurrence over time.

    Args:
        kind: ``last`` takes each direction's final state; ``mean`` and ``max`` go over the words;
            ``attention`` has weights of its own: :class:`AttentionPooling`.
        output: (batch, time, features), zero past each length.
        final: (directions, batch, hidden), the last layer's final states.
        lengths: (batch,) on the CPU, at least 1.

    Returns:
        (batch, features), where features is directions * hidden.
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
    """The kinds of pooling that ``last``, or ``last+max+mean``, names.

    Raises:
        ValueError: there is no such kind, or one is named twice.
    """
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
    """A weighted mean over the words, which learns what to weigh.

        u_t = tanh(W h_t + b)
        a_t = exp(u_t . v) / (sum of exp(u_s . v) over the review's words s)

    after Bahdanau et al. (2015), with a learned context v instead of a decoder's state as Yang et
    al. (2016) have it for classifying documents.

    Args:
        features: values of each output, and of u.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.projection = nn.Linear(features, features)  # W and b
        self.context = nn.Parameter(torch.empty(features))  # v
        nn.init.xavier_uniform_(self.projection.weight)
        nn.init.zeros_(self.projection.bias)
        nn.init.normal_(self.context, std=features**-0.5)  # so that u . v has a spread below 1

    def forward(self, output: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Pool.

        Args:
            output: (batch, time, features), finite past each length.
            lengths: (batch,) on the CPU, at least 1.

        Returns:
            (batch, features).
        """
        weights = self.weigh(output, lengths).to(output.dtype)
        return torch.einsum("bt,btf->bf", weights, output)

    def weigh(self, output: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """What each word weighs: (batch, time), 1 in sum over a review and 0 past its length."""
        scores = (self.projection(output).tanh() @ self.context.to(output.dtype)).float()
        return scores.masked_fill(_find_padding(output, lengths), float("-inf")).softmax(dim=1)


# Integers of the same bits compare several times as fast as floating-point numbers.
_BITS = {torch.float32: torch.int32, torch.bfloat16: torch.int16, torch.float16: torch.int16}


class _MaxOverTime(torch.autograd.Function):
    """``amax`` over the words, five times as fast as torch's on a CPU.

    As there, equal maxima share the gradient. They are common in bf16, where any one of them may
    be the largest before rounding.
    """

    @staticmethod
    def forward(ctx: Any, output: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
        by_time = output.detach().transpose(0, 1)  # (time, batch, features), as the kernel left it
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
        # Summing bytes as bytes is many times as fast; 255 steps cannot overflow them.
        parts = is_highest.view(torch.uint8).split(255)
        counts = sum(part.sum(dim=0, dtype=torch.uint8).to(torch.int32) for part in parts)
        return (is_highest * (gradient / counts).to(by_time.dtype)).transpose(0, 1), None
