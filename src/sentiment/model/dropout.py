"""Dropout that costs a CPU next to nothing.

``torch.nn.functional.dropout`` draws a random number for each value, one after the other: on the
embedding of a batch it takes longer than the embedding and the optimizer together. Two random
bytes a value are enough, and torch's generator fills eight at a time.
"""

from __future__ import annotations

import torch
from torch import nn

_UNKNOWN = 1  # the id of words without one of their own
_STEPS = 2**16  # different values of two bytes


def dropout(x: torch.Tensor, p: float, training: bool) -> torch.Tensor:
    """Zero a share ``p`` of the values, rounded to 1/65,536, and scale the others to make up.

    As :func:`torch.nn.functional.dropout`, which it is everywhere but on a CPU; drawn from torch's
    own generator.
    """
    num_dropped = round(p * _STEPS)
    if not training or num_dropped == 0:
        return x
    if x.device.type != "cpu" or num_dropped == _STEPS:
        return nn.functional.dropout(x, p)
    quads = torch.empty(-(-x.numel() // 4), dtype=torch.int64)
    quads.random_(torch.iinfo(torch.int64).min, None)  # all 64 bits
    drawn = quads.view(torch.int16)[: x.numel()].view(x.shape)
    # One factor a value, in the values' own precision: a product of mixed ones takes twice as long.
    factors = (drawn >= num_dropped - _STEPS // 2).to(x.dtype)
    return x * factors.mul_(_STEPS / (_STEPS - num_dropped))


class Dropout(nn.Dropout):
    """:class:`torch.nn.Dropout` by :func:`dropout`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return dropout(input, self.p, self.training)


def drop_over_time(x: torch.Tensor, p: float, training: bool) -> torch.Tensor:
    """Drop the same values of a review at every time step (Gal & Ghahramani 2016).

    Args:
        x: (time, batch, values).
        p: share to drop.
        training: whether anything is dropped.
    """
    if not training or p == 0:
        return x
    return x * dropout(torch.ones_like(x[:1]), p, training)  # (1, batch, values) over time


def drop_words(tokens: torch.Tensor, p: float, training: bool) -> torch.Tensor:
    """Make a share of the words unknown, so that none can be relied on (Dai & Le 2015).

    Args:
        tokens: (batch, time) ids, of which 0 is padding and stays.
        p: share of the words.
        training: whether any are dropped.
    """
    if not training or p == 0:
        return tokens
    is_dropped = torch.rand(tokens.shape, device=tokens.device) < p
    return tokens.masked_fill(is_dropped & (tokens != 0), _UNKNOWN)
