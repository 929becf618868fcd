"""Streams of tokens cut into windows for truncated back-propagation.

Legend: directions is 2 if reversed streams are read too, else 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from sentiment.data.batches import Batch
from sentiment.model.layers import dropout, to_device
from sentiment.model.onednn import choose_dtype, count_parts, run_layer
from sentiment.model.packed_lstm import PackedLSTM, States
from sentiment.model.rnn_base import matmul_dtype, split_batch


def read_streams(
    lstm: PackedLSTM, x: torch.Tensor, states: States | None
) -> tuple[torch.Tensor, States]:
    """Run an LSTM, of one layer or in one direction, over token streams without padding.

    Args:
        lstm: the LSTM.
        x: (directions, time, batch, input_size).
        states: h and c (num_layers * directions, batch, hidden) to start from, None for zero.

    Returns:
        output (directions, time, batch, hidden), and h and c as above.
    """
    assert lstm.directions == 1 or lstm.num_layers == 1
    directions, time, batch, _ = x.shape
    hidden = lstm.hidden_size
    dtype = matmul_dtype(x)
    onednn_dtype = choose_dtype(x.device, dtype)
    x = x.to(onednn_dtype or next(lstm.parameters()).dtype)
    parts = []
    if onednn_dtype is not None:
        lengths = torch.full((batch,), time)
        parts = split_batch(lengths, time, x.device, count_parts(batch, directions))
    finals: list[States] = []
    for layer in range(lstm.num_layers):
        if layer > 0:
            x = dropout(x, lstm.dropout, lstm.training)
        rows = slice(layer * directions, (layer + 1) * directions)
        start = None if states is None else (states[0][rows], states[1][rows])
        weights = lstm.layer_weights(layer)
        if parts:
            output, h, c = run_layer(x, parts, weights, start)
            # (time, batch, directions * hidden) to (directions, time, batch, hidden)
            x = output.view(time, batch, directions, hidden).permute(2, 0, 1, 3)
        else:
            x, h, c = _run_torch_layer(x, weights, start, hidden)
        finals.append((h, c))
    h, c = (torch.cat(final) for final in zip(*finals, strict=True))
    return x.to(dtype), (h.to(dtype), c)


def _run_torch_layer(
    x: torch.Tensor, weights: list[torch.Tensor], start: States | None, hidden: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """As :func:`run_layer`, by torch's kernel for the device, in the weights' precision."""
    if start is None:
        zeros = x.new_zeros(len(x), x.shape[2], hidden)
        start = zeros, zeros
    results = []
    # Under autocast torch would run cuDNN in fp16, without scaling the loss.
    with torch.autocast(x.device.type, enabled=False):
        for direction, stream in enumerate(x):
            first = [state[direction : direction + 1].to(x.dtype) for state in start]
            matrices = weights[4 * direction : 4 * direction + 4]
            results.append(
                torch._VF.lstm(stream, first, matrices, True, 1, 0.0, True, False, False)
            )
    output, h, c = zip(*results, strict=True)
    return torch.stack(output), torch.cat(h), torch.cat(c)


def stream_windows(
    batch: Batch, directions: int, window: int, *, is_repeated: bool
) -> Iterator[Window]:
    """The windows, of ``window`` words, of a batch whose longest review is first.

    With ``is_repeated``, each review is read twice and predicted only the second time: the sequence
    autoencoder of Dai & Le (2015) with encoder and decoder in one.
    """
    lengths = batch.lengths
    on_device = to_device(lengths, batch.tokens.device)
    streams = make_streams(batch.tokens.long(), on_device, directions)
    firsts = torch.zeros_like(lengths)
    if is_repeated:
        streams = repeat_streams(streams, on_device)
        firsts, lengths = lengths, 2 * lengths
    return cut_windows(streams, lengths, firsts, window)


@dataclass(frozen=True)
class Window:
    """A section of the streams of some reviews."""

    words: torch.Tensor  # (directions, time, batch) ids to read
    targets: torch.Tensor  # (directions, time, batch), the word after each
    rows: torch.Tensor  # (num,) positions among (time * batch) whose targets are predicted
    batch_size: int  # its reviews are the first ones of the window before


def make_streams(tokens: torch.Tensor, lengths: torch.Tensor, directions: int) -> torch.Tensor:
    """(directions, batch, time): reviews (batch, time), and each reversed in a second direction."""
    if directions == 1:
        return tokens.unsqueeze(0)
    position = torch.arange(tokens.shape[1], device=tokens.device)
    ends = lengths.unsqueeze(1)
    reversed_index = torch.where(position < ends, ends - 1 - position, position)
    return torch.stack((tokens, tokens.gather(1, reversed_index)))


def repeat_streams(streams: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """(directions, batch, 2 * time): each stream twice, without padding in between."""
    directions, batch, time = streams.shape
    position = torch.arange(2 * time, device=streams.device)
    ends = lengths.unsqueeze(1)
    source = torch.where(position < ends, position, position - ends)  # (batch, 2 * time)
    source = source.clamp_(max=time - 1)
    return streams.gather(2, source.expand(directions, batch, 2 * time))


def cut_windows(
    streams: torch.Tensor, lengths: torch.Tensor, firsts: torch.Tensor, size: int
) -> Iterator[Window]:
    """Windows of up to ``size`` words of streams (directions, batch, time), longest first.

    Lengths of the streams and positions of their first predicted words (batch,) are on the CPU.
    """
    device = streams.device
    for start in range(0, int(lengths[0]) - 1, size):
        count = int((lengths > start + 1).sum())
        stop = min(start + size, int(lengths[0]) - 1)
        part = streams[:, :count, start : stop + 1].transpose(1, 2)  # (directions, time + 1, batch)
        position = torch.arange(start + 1, stop + 1).unsqueeze(1)  # of the targets
        is_predicted = (position < lengths[:count]) & (position >= firsts[:count])  # (time, batch)
        rows = to_device(is_predicted.flatten().nonzero().squeeze(1), device)
        yield Window(part[:, :-1], part[:, 1:], rows, count)


def num_windows(longest: int, size: int) -> int:
    """Number of windows of a batch whose longest stream has ``longest`` words."""
    return -(-(longest - 1) // size)
