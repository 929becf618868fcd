"""Streams of tokens cut into windows for truncated back-propagation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from sentiment.data.batches import Batch, to_device
from sentiment.model.layers import dropout
from sentiment.model.onednn import choose_dtype, count_parts, run_layer
from sentiment.model.packed_lstm import PackedLSTM, States
from sentiment.model.rnn_base import matmul_dtype, split_batch


def read_streams(
    lstm: PackedLSTM, x: torch.Tensor, states: States | None
) -> tuple[torch.Tensor, States]:
    """Run an LSTM over streams without padding.

    Legend: directions is 2 if bidirectional, else 1.

    Args:
        lstm: of one layer, or of several in one direction.
        x: (directions, time, batch, input_size).
        states: h and c (num_layers * directions, batch, hidden) to go on from, None for zero.

    Returns:
        output: (directions, time, batch, hidden).
        (h, c): (num_layers * directions, batch, hidden) each.
    """
    assert lstm.directions == 1 or lstm.num_layers == 1
    directions, time, batch, _ = x.shape
    hidden = lstm.hidden_size
    wanted = matmul_dtype(x)
    by_onednn = choose_dtype(x.device, wanted)
    x = x.to(by_onednn or next(lstm.parameters()).dtype)
    lengths = torch.full((batch,), time)
    parts = (
        []
        if by_onednn is None
        else split_batch(lengths, time, x.device, count_parts(batch, directions))
    )
    finals: list[States] = []
    for layer in range(lstm.num_layers):
        if layer > 0:
            x = dropout(x, lstm.dropout, lstm.training)
        own = slice(layer * directions, (layer + 1) * directions)
        start = None if states is None else (states[0][own], states[1][own])
        weights = lstm.layer_weights(layer)
        if parts:
            output, h, c = run_layer(x, parts, weights, start)
            # (time, batch, directions * hidden) to (directions, time, batch, hidden)
            x = output.view(time, batch, directions, hidden).permute(2, 0, 1, 3)
        else:
            x, h, c = _read_anywhere(x, weights, start, hidden)
        finals.append((h, c))
    h, c = (torch.cat(each) for each in zip(*finals, strict=True))
    return x.to(wanted), (h.to(wanted), c)


def _read_anywhere(
    x: torch.Tensor, weights: list[torch.Tensor], start: States | None, hidden: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What :func:`run_layer` does, by the kernel of whatever device, in the weights' precision."""
    if start is None:
        zeros = x.new_zeros(len(x), x.shape[2], hidden)
        start = zeros, zeros
    results = []
    # Under autocast torch would run cuDNN in fp16, without a scaling of the loss.
    with torch.autocast(x.device.type, enabled=False):
        for direction, own in enumerate(x):
            first = [each[direction : direction + 1].to(x.dtype) for each in start]
            factors = weights[4 * direction : 4 * direction + 4]
            results.append(torch._VF.lstm(own, first, factors, True, 1, 0.0, True, False, False))
    output = torch.stack([each[0] for each in results])
    return output, torch.cat([each[1] for each in results]), torch.cat([e[2] for e in results])


def stream_windows(
    batch: Batch, directions: int, window: int, *, is_repeated: bool
) -> Iterator[Window]:
    """The windows of a batch, longest review first.

    Args:
        batch: the reviews.
        directions: streams of each.
        window: words of a window.
        is_repeated: whether each is read twice, and only the second time predicted: the sequence
            autoencoder of Dai & Le (2015), whose reader and writer are one.
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
    """A stretch of the streams of some reviews.

    Legend: directions is 2 where a stream turned round is read too, else 1.

    Attributes:
        words: (directions, time, batch) ids to read.
        targets: (directions, time, batch) the word that follows each.
        rows: (num,) places among (time * batch) whose targets are to be predicted.
        batch_size: how many of the first reviews of the window before these are.
    """

    words: torch.Tensor
    targets: torch.Tensor
    rows: torch.Tensor
    batch_size: int


def make_streams(tokens: torch.Tensor, lengths: torch.Tensor, directions: int) -> torch.Tensor:
    """(directions, batch, time): the reviews, and in a second direction each turned round.

    Args:
        tokens: (batch, time) ids.
        lengths: (batch,) on the device of the tokens.
        directions: 1 or 2.
    """
    if directions == 1:
        return tokens.unsqueeze(0)
    place = torch.arange(tokens.shape[1], device=tokens.device)
    ends = lengths.unsqueeze(1)
    turned = torch.where(place < ends, ends - 1 - place, place)
    return torch.stack((tokens, tokens.gather(1, turned)))


def repeat_streams(streams: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """(directions, batch, 2 * time): each stream twice, the second time after its own last word."""
    directions, batch, time = streams.shape
    place = torch.arange(2 * time, device=streams.device)
    own = lengths.unsqueeze(1)
    source = torch.where(place < own, place, place - own).clamp_(max=time - 1)  # (batch, 2 * time)
    return streams.gather(2, source.expand(directions, batch, 2 * time))


def cut_windows(
    streams: torch.Tensor, lengths: torch.Tensor, firsts: torch.Tensor, size: int
) -> Iterator[Window]:
    """Windows of up to ``size`` words, from the first to the last.

    Args:
        streams: (directions, batch, time) ids, longest stream first.
        lengths: (batch,) words of each stream, on the CPU.
        firsts: (batch,) the first place of each stream whose word is to be predicted, on the CPU.
        size: words of a window.
    """
    device = streams.device
    for start in range(0, int(lengths[0]) - 1, size):
        count = int((lengths > start + 1).sum())
        stop = min(start + size, int(lengths[0]) - 1)
        part = streams[:, :count, start : stop + 1].transpose(1, 2)  # (directions, time + 1, batch)
        place = torch.arange(start + 1, stop + 1).unsqueeze(1)  # of the targets
        is_wanted = (place < lengths[:count]) & (place >= firsts[:count])  # (time, batch)
        rows = to_device(is_wanted.flatten().nonzero().squeeze(1), device)
        yield Window(part[:, :-1], part[:, 1:], rows, count)


def num_windows(longest: int, size: int) -> int:
    """Windows of a batch whose longest stream has so many words."""
    return -(-(longest - 1) // size)
