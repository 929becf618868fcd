"""What recurrences over reviews of different lengths have in common.

Legend: batch reviews are padded to time words; directions is 2 if bidirectional, else 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


class VariableLengthRNN(nn.RNNBase):
    """To stand before ``nn.LSTM``, ``nn.GRU`` or ``nn.RNN`` among a class's bases.

    Parameters keep their names and shapes, so state dicts fit both ways.

    Args:
        input_size: values of each time step.
        hidden_size: units in each direction.
        num_layers: layers stacked on one another.
        bidirectional: whether a second recurrence reads each review from its end.
        dropout: share of each layer's outputs dropped in training, but for the last layer's.
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
            input_size,  # type: ignore[arg-type]  # the class behind does not ask for its mode
            hidden_size,
            num_layers,
            batch_first=True,
            bidirectional=bidirectional,
            dropout=dropout if num_layers > 1 else 0.0,  # torch warns of one without effect
        )

    @property
    def directions(self) -> int:
        """2 if bidirectional, else 1."""
        return 2 if self.bidirectional else 1

    def check(self, x: torch.Tensor, lengths: torch.Tensor, *initial: torch.Tensor | None) -> None:
        """Raise ``ValueError`` unless a batch's shapes fit and each length lies in 1 to time."""
        if x.dim() != 3 or x.shape[2] != self.input_size:
            raise ValueError(f"x is {tuple(x.shape)}, expected (batch, time, {self.input_size})")
        if lengths.device.type != "cpu":
            raise ValueError(f"lengths are on {lengths.device}, but must be on the CPU")
        if lengths.shape != x.shape[:1]:
            raise ValueError(f"lengths are {tuple(lengths.shape)}, expected ({x.shape[0]},)")
        if len(lengths) == 0 or lengths.min() < 1 or lengths.max() > x.shape[1]:
            raise ValueError(f"lengths must lie between 1 and {x.shape[1]}, got {lengths.tolist()}")
        expected = self.num_layers * self.directions, len(lengths), self.hidden_size
        for states in initial:
            if states is not None and states.shape != expected:
                raise ValueError(f"initial states are {tuple(states.shape)}, expected {expected}")

    def layer_weights(self, layer: int) -> list[torch.Tensor]:
        """W_ih, W_hh, b_ih, b_hh of the forward, then of the reverse direction."""
        suffixes = ("", "_reverse")[: self.directions]
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        return [getattr(self, f"{name}_l{layer}{suffix}") for suffix in suffixes for name in names]

    def run_cudnn(
        self, x: torch.Tensor, lengths: torch.Tensor, initial: Any
    ) -> tuple[torch.Tensor, Any]:
        """Run torch's own recurrence on the ``PackedSequence``, which cuDNN does at full speed.

        Args:
            x: (batch, time, input_size).
            lengths: (batch,) integers on the CPU.
            initial: as the class behind takes them, in fp32, or None.

        Returns:
            output (batch, time, directions * hidden_size) and the final states.
        """
        dtype = next(self.parameters()).dtype
        in_order = bool((lengths[1:] <= lengths[:-1]).all())  # spares sorting on the device
        # Under autocast torch would run cuDNN in fp16 whatever precision is asked for, with no
        # scaling of the loss to keep small gradients: in fp32 with TF32 instead.
        with torch.autocast("cuda", enabled=False):
            packed = pack_padded_sequence(
                x.to(dtype), lengths, batch_first=True, enforce_sorted=in_order
            )
            output, states = super().forward(packed, initial)
        return pad_packed_sequence(output, batch_first=True, total_length=x.shape[1])[0], states


@dataclass(frozen=True)
class PaddingIndex:
    """Where reviews end, in rows of (time * batch).

    Attributes:
        padded: (num_padded,) rows past the end of a review, None where there is none.
        last: (batch,) rows of the reviews' last words.
        turned: (time * batch,) the row that comes to each row when every review is turned round
            within its own length, which done twice is as if never; None where nobody turns.
    """

    padded: torch.Tensor | None
    last: torch.Tensor
    turned: torch.Tensor | None = None


def find_places(
    lengths: torch.Tensor, time: int, device: torch.device, *, with_turned: bool = False
) -> PaddingIndex:
    """The places of a batch of these lengths, on a device."""
    lengths = lengths.to(device)
    batch = len(lengths)
    review = torch.arange(batch, device=device)
    word = torch.arange(time, device=device).unsqueeze(1)  # (time, 1)
    is_padding = word >= lengths  # (time, batch)
    padded = is_padding.flatten().nonzero().squeeze(1)
    turned = torch.where(is_padding, word, lengths - 1 - word) * batch + review
    return PaddingIndex(
        padded if len(padded) else None,
        (lengths - 1) * batch + review,
        turned.flatten() if with_turned else None,
    )


@dataclass(frozen=True)
class Part:
    """Neighbouring reviews of a batch, computed apart from the others.

    Attributes:
        rows: which of the batch.
        places: where they end, in rows of (time * reviews of the part).
    """

    rows: slice
    places: PaddingIndex


def cut_batch(
    lengths: torch.Tensor, time: int, device: torch.device, count: int, *, with_turned: bool = False
) -> list[Part]:
    """A batch of these lengths in up to ``count`` parts of the same size, but for the last."""
    size = -(-len(lengths) // count)
    return [
        Part(
            slice(start, start + size),
            find_places(lengths[start : start + size], time, device, with_turned=with_turned),
        )
        for start in range(0, len(lengths), size)
    ]


def multiplied_in(x: torch.Tensor) -> torch.dtype:
    """The precision that autocast, where it is on, has chosen, else that of ``x``."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
