"""From one output for each time step to one vector for each review, padding left out."""

from __future__ import annotations

from typing import Literal

import torch

Pooling = Literal["last", "mean", "max"]


def pool(
    kind: Pooling, output: torch.Tensor, final: torch.Tensor, lengths: torch.Tensor
) -> torch.Tensor:
    """Pool the outputs of a recurrence over time.

    Args:
        kind: ``last`` takes each direction's final state; ``mean`` and ``max`` go over the words.
        output: (batch, time, features), zero past each length.
        final: (directions, batch, hidden), the last layer's final states.
        lengths: (batch,) on the CPU, at least 1.

    Returns:
        (batch, features), where features is directions * hidden.
    """
    if kind == "last":
        return final.transpose(0, 1).flatten(1)
    lengths = lengths.to(output.device)
    if kind == "mean":
        return output.sum(dim=1) / lengths.unsqueeze(1)
    if kind == "max":
        padding = torch.arange(output.shape[1], device=output.device) >= lengths.unsqueeze(1)
        return output.masked_fill(padding.unsqueeze(2), float("-inf")).max(dim=1).values
    raise ValueError(f"pooling is {kind!r}, but must be last, mean or max")
