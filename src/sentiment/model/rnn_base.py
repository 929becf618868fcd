"""What the packed LSTM, GRU and plain RNN share.

Legend: reviews of a batch are padded to ``time`` words; ``directions`` is 2 if bidirectional, else
1; ``hidden`` is the number of units in each direction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


class VariableLengthRNN(nn.RNNBase):
    """Base class to list before ``nn.LSTM``, ``nn.GRU`` or ``nn.RNN``; it keeps their parameters.

    Arguments mean what they mean there: dropout applies to each layer's outputs but the last's.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        bidirectional: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(
            input_size,  # type: ignore[arg-type]  # the other base class passes the mode
            hidden_size,
            num_layers,
            batch_first=True,
            bidirectional=bidirectional,
            dropout=dropout if num_layers > 1 else 0.0,  # torch warns if it has no effect
        )

    @property
    def directions(self) -> int:
        return 2 if self.bidirectional else 1

    def check(self, x: torch.Tensor, lengths: torch.Tensor, *initial: torch.Tensor | None) -> None:
        """Raise ``ValueError`` unless the shapes fit and each length is from 1 to time."""
        if x.dim() != 3 or x.shape[2] != self.input_size:
            raise ValueError(f"x is {tuple(x.shape)}, expected (batch, time, {self.input_size})")
        if lengths.device.type != "cpu":
            raise ValueError(f"lengths are on {lengths.device}, but must be on the CPU")
        if lengths.shape != x.shape[:1]:
            raise ValueError(f"lengths are {tuple(lengths.shape)}, expected ({x.shape[0]},)")
        if len(lengths) == 0 or lengths.min() < 1 or lengths.max() > x.shape[1]:
            raise ValueError(f"lengths must be from 1 to {x.shape[1]}, but are {lengths.tolist()}")
        expected = self.num_layers * self.directions, len(lengths), self.hidden_size
        for states in initial:
            if states is not None and states.shape != expected:
                raise ValueError(f"initial states are {tuple(states.shape)}, expected {expected}")

    def layer_weights(self, layer: int) -> list[torch.Tensor]:
        """W_ih, W_hh, b_ih, b_hh of the forward and, if there is one, the reverse direction."""
        suffixes = ("", "_reverse")[: self.directions]
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        return [getattr(self, f"{name}_l{layer}{suffix}") for suffix in suffixes for name in names]

    def run_cudnn(
        self, x: torch.Tensor, lengths: torch.Tensor, initial: Any
    ) -> tuple[torch.Tensor, Any]:
        """Run torch's own recurrence on a ``PackedSequence``, at which cuDNN is fast.

        Initial and final states are in fp32, as torch's recurrence takes and returns them.
        """
        dtype = next(self.parameters()).dtype
        in_order = bool((lengths[1:] <= lengths[:-1]).all())  # then nothing is sorted on the device
        # Under autocast torch would run cuDNN in fp16, whatever precision is asked for, and small
        # gradients would vanish without loss scaling; so we compute in fp32 with TF32.
        with torch.autocast("cuda", enabled=False):
            packed = pack_padded_sequence(
                x.to(dtype), lengths, batch_first=True, enforce_sorted=in_order
            )
            output, states = super().forward(packed, initial)
        return pad_packed_sequence(output, batch_first=True, total_length=x.shape[1])[0], states


@dataclass(frozen=True)
class PaddingIndex:
    """Indices of padding and last words, into rows of (time * batch).

    With ``reversed_index``, every review is reversed within its own length; it is its own inverse.
    """

    padded: torch.Tensor | None  # (num_padded,) rows of padding, None without any
    last: torch.Tensor  # (batch,) rows of each review's last word
    reversed_index: torch.Tensor | None = None  # (time * batch,), None if not needed


def index_padding(
    lengths: torch.Tensor, time: int, device: torch.device, *, with_reversed: bool = False
) -> PaddingIndex:
    lengths = lengths.to(device)
    batch = len(lengths)
    review = torch.arange(batch, device=device)
    word = torch.arange(time, device=device).unsqueeze(1)  # (time, 1)
    is_padding = word >= lengths  # (time, batch)
    padded = is_padding.flatten().nonzero().squeeze(1)  # (num_padded,)
    reversed_index = None
    if with_reversed:
        reversed_word = torch.where(is_padding, word, lengths - 1 - word)  # (time, batch)
        reversed_index = (reversed_word * batch + review).flatten()
    return PaddingIndex(
        padded if len(padded) else None, (lengths - 1) * batch + review, reversed_index
    )


def reverse_reviews(x: torch.Tensor, index: torch.Tensor | None) -> torch.Tensor:
    """(time, batch, features) reordered by a ``reversed_index``; None leaves it as it is."""
    return x if index is None else x.flatten(0, 1)[index].view_as(x)


@dataclass(frozen=True)
class BatchPart:
    """Neighbouring reviews of a batch, computed apart from the others."""

    rows: slice  # of the batch
    index: PaddingIndex  # into rows of (time * reviews of the part)


def split_batch(
    lengths: torch.Tensor,
    time: int,
    device: torch.device,
    num_parts: int,
    *,
    with_reversed: bool = False,
) -> list[BatchPart]:
    """Split a batch into at most ``num_parts`` parts of equal size, except for the last one."""
    size = -(-len(lengths) // num_parts)
    parts = []
    for start in range(0, len(lengths), size):
        rows = slice(start, start + size)
        index = index_padding(lengths[rows], time, device, with_reversed=with_reversed)
        parts.append(BatchPart(rows, index))
    return parts


def matmul_dtype(x: torch.Tensor) -> torch.dtype:
    """The precision of matrix products: that of autocast if it is on, else that of ``x``."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
