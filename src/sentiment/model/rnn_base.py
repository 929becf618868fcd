"""What the packed LSTM, GRU and plain RNN share.

Legend: reviews of a batch are padded to ``time`` words; ``directions`` is 2 if bidirectional, else
1; ``hidden`` is the number of units in each direction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from sentiment.model.layers import dropout, to_device

States = tuple[torch.Tensor, torch.Tensor]  # an LSTM's h and c


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
        return [getattr(self, name) for name in self._names_of_layer(layer)]

    def _names_of_layer(self, layer: int) -> list[str]:
        suffixes = ("", "_reverse")[: self.directions]
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        return [f"{name}_l{layer}{suffix}" for suffix in suffixes for name in names]

    # Whether each direction is run by itself, with weights in a chunk of memory of its own.
    runs_directions_apart = False

    def flatten_parameters(self) -> None:
        """Put the weights of each call of cuDNN into one chunk, else it copies them at each call.

        torch puts those of all layers into one chunk, which would force us to run them in one call.
        """
        weights = [weight for weight in self._flat_weights if isinstance(weight, torch.Tensor)]
        is_acceptable = torch.backends.cudnn.is_acceptable
        if not all(weight.is_cuda and is_acceptable(weight) for weight in weights):
            return
        from torch.backends.cudnn.rnn import get_cudnn_mode  # private, as nn.RNNBase uses it

        with torch.cuda.device_of(weights[0]), torch.no_grad():
            for names in self._names_by_call():
                torch._cudnn_rnn_flatten_weight(
                    [getattr(self, name) for name in names], 4, getattr(self, names[0]).shape[1],
                    get_cudnn_mode(self.mode), self.hidden_size, 0, self._layers_per_call,
                    self.batch_first, self.bidirectional and not self.runs_directions_apart,
                )  # fmt: skip

    def in_chunks(self, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Weights by their parameters' names, copied into chunks like those of the parameters."""
        chunked = {}
        for names in self._names_by_call():
            # cuDNN's order is that in which the parameters lie.
            names = sorted(names, key=lambda name: getattr(self, name).storage_offset())
            chunk = torch.cat([weights[name].flatten() for name in names])
            parts = chunk.split([weights[name].numel() for name in names])
            for name, part in zip(names, parts, strict=True):
                chunked[name] = part.view_as(weights[name])
        return chunked

    @property
    def _layers_per_call(self) -> int:
        # Dropout between layers is our own: the state of cuDNN's can neither be saved nor repeated.
        return 1 if self.dropout > 0 or self.runs_directions_apart else self.num_layers

    def _names_by_call(self) -> list[list[str]]:
        names = [name for layer in range(self.num_layers) for name in self._names_of_layer(layer)]
        size = 4 * self._layers_per_call * (1 if self.runs_directions_apart else self.directions)
        return [names[start : start + size] for start in range(0, len(names), size)]

    def run_cudnn(
        self, x: torch.Tensor, lengths: torch.Tensor, initial: Any
    ) -> tuple[torch.Tensor, Any]:
        """Run torch's own recurrence on packed words, at which cuDNN is fast.

        Initial and final states are in fp32, as torch's recurrence takes and returns them.
        """
        order = index_packed(lengths, x.shape[1], x.device)
        rows = x.transpose(0, 1).flatten(0, 1)  # (time * batch, input_size)
        words = rows.to(next(self.parameters()).dtype).index_select(0, order.words)
        is_lstm = self.mode == "LSTM"
        if initial is None:
            zeros = words.new_zeros(self.num_layers * self.directions, len(x), self.hidden_size)
            states = [zeros, zeros]
        else:
            states = list(initial) if is_lstm else [initial]
            if order.ranked is not None:
                states = [state.index_select(1, order.ranked) for state in states]
        kernel = getattr(torch._VF, self.mode.lower())
        finals = []
        num_layers = self._layers_per_call
        for layer in range(0, self.num_layers, num_layers):
            if layer > 0:
                words = dropout(words, self.dropout, self.training)
            calls = slice(layer * self.directions, (layer + num_layers) * self.directions)
            start = [state[calls].contiguous() for state in states]  # as cuDNN needs them
            weights = [w for n in range(num_layers) for w in self.layer_weights(layer + n)]
            # Under autocast torch would run cuDNN in fp16, whatever precision is asked for, and
            # small gradients would vanish without loss scaling; so we compute in fp32 with TF32.
            with torch.autocast("cuda", enabled=False):
                words, *final = kernel(
                    words, order.batch_sizes, start if is_lstm else start[0], weights, True,
                    num_layers, 0.0, self.training, self.bidirectional,
                )  # fmt: skip
            finals.append(final)
        states = [torch.cat(parts) for parts in zip(*finals, strict=True)]
        if order.ranks is not None:
            states = [state.index_select(1, order.ranks) for state in states]
        output = words.new_zeros(len(rows), words.shape[1]).index_copy(0, order.words, words)
        output = output.view(x.shape[1], len(x), -1).transpose(0, 1)
        return output, (states[0], states[1]) if is_lstm else states[0]


@dataclass(frozen=True)
class PackedIndex:
    """The order of torch's ``PackedSequence``: by word, then by rank, the longest review first.

    torch's own packing, and its backward, copy once for each time step; by an index it is one
    operation each way.
    """

    words: torch.Tensor  # (num_words,) rows of (time * batch), on the device
    batch_sizes: torch.Tensor  # (longest,) number of reviews with a word at each step, on the CPU
    ranked: torch.Tensor | None  # (batch,) reviews by rank, on the device; None if in order
    ranks: torch.Tensor | None  # (batch,) rank of each review, likewise


def index_packed(lengths: torch.Tensor, time: int, device: torch.device) -> PackedIndex:
    """Index padded reviews, with lengths (batch,) on the CPU, in the order of packing."""
    batch = len(lengths)
    sorted_lengths, ranked = lengths.sort(descending=True, stable=True)
    is_word = torch.arange(time).unsqueeze(1) < sorted_lengths  # (time, batch), by rank
    word, rank = is_word.nonzero(as_tuple=True)
    words = to_device(word * batch + ranked[rank], device)
    batch_sizes = is_word[: int(sorted_lengths[0])].sum(dim=1)
    if bool((ranked == torch.arange(batch)).all()):
        return PackedIndex(words, batch_sizes, None, None)
    ranks = to_device(ranked.argsort(), device)
    return PackedIndex(words, batch_sizes, to_device(ranked, device), ranks)


WEIGHTS_PER_DIRECTION = 4  # W_ih, W_hh, b_ih, b_hh


def weights_of(weights: Sequence[torch.Tensor], direction: int) -> tuple[torch.Tensor, ...]:
    """One direction's weights of those of a layer, 0 for the forward and 1 for the reverse one."""
    start = WEIGHTS_PER_DIRECTION * direction
    return tuple(weights[start : start + WEIGHTS_PER_DIRECTION])


@dataclass(frozen=True)
class PaddingIndex:
    """Indices of padding and last words, into rows of (time * batch).

    With ``reversed_index``, every review is reversed within its own length; it is its own inverse.
    """

    padded: torch.Tensor | None  # (num_padded,) rows of padding, None without any
    last: torch.Tensor  # (batch,) rows of each review's last word
    reversed_index: torch.Tensor | None = None  # (time * batch,), None if not needed


def index_padding(
    lengths: torch.Tensor, time: int, device: torch.device, *, with_reversed: bool
) -> PaddingIndex:
    lengths = to_device(lengths, device)
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
