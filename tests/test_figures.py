"""The figures that README promises; speeds as ratios, which depend less on the machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from sentiment.model import PackedLSTM

pytestmark = pytest.mark.long


def median_seconds(function: Callable[[], object], rounds: int) -> float:
    function()
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def test_the_recurrence_is_many_times_faster_than_the_packed_sequence():
    """One training step of a batch of 64 reviews of up to 230 words, bidirectional 256."""
    torch.manual_seed(0)
    lengths = torch.randint(207, 231, (64,)).sort(descending=True).values
    x = torch.randn(64, int(lengths[0]), 100, requires_grad=True)
    theirs = nn.LSTM(100, 256, batch_first=True, bidirectional=True)
    ours = PackedLSTM(100, 256, bidirectional=True)

    def packed() -> None:
        sequence = pack_padded_sequence(x, lengths, batch_first=True)
        pad_packed_sequence(theirs(sequence)[0], batch_first=True)[0].sum().backward()

    def exact() -> None:
        ours(x, lengths)[0].float().sum().backward()

    slow = median_seconds(packed, 1)
    assert slow / median_seconds(exact, 5) >= 15
    with torch.autocast("cpu", torch.bfloat16):
        assert slow / median_seconds(exact, 5) >= 25
