"""A batch of reviews as the windows that a language model reads one after the other.

Each direction reads a stream of its own from first to last: the review, and the review turned
round. Reviews end at different places; a window holds those that still have a word to predict.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from sentiment.text.batches import to_device


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
