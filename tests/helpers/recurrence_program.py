"""Run by a test in a process of its own: PackedLSTM against nn.LSTM on the PackedSequence."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from sentiment.model import PackedLSTM
from sentiment.model.onednn import describe_kernel


def compare(input_size: int, hidden_size: int) -> None:
    torch.manual_seed(0)
    oracle = nn.LSTM(input_size, hidden_size, bidirectional=True, batch_first=True)
    lstm = PackedLSTM(input_size, hidden_size, bidirectional=True)
    lstm.load_state_dict(oracle.state_dict())
    lengths = torch.tensor([9, 3, 12, 1, 12])
    x = torch.randn(5, 12, input_size)
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    wanted, (h, c) = oracle(packed)
    wanted = pad_packed_sequence(wanted, batch_first=True)[0]
    output, states = lstm(x, lengths)
    for one, other in ((output, wanted), (states[0], h), (states[1], c)):
        assert (one - other).abs().max() <= 1e-6
    gradients = (
        torch.autograd.grad(each.square().sum(), model.parameters())
        for each, model in ((output, lstm), (wanted, oracle))
    )
    for one, other in zip(*gradients, strict=True):
        assert (one - other).norm() <= 1e-5 * other.norm()
    with torch.autocast("cpu", torch.bfloat16):
        rounded, _ = lstm(x, lengths)
    assert (rounded.float() - output).abs().max() <= 0.02


if __name__ == "__main__":
    for sizes in ((6, 8), (7, 8), (6, 9), (7, 9), (100, 64)):
        compare(*sizes)
    cpu = torch.device("cpu")
    print("equal;", *(describe_kernel(cpu, dtype) for dtype in (torch.float32, torch.bfloat16)))
