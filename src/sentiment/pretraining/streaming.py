"""From a batch of reviews to its windows."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from sentiment.pretraining.windows import Window, cut_windows, make_streams, repeat_streams
from sentiment.text.batches import Batch, to_device


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
