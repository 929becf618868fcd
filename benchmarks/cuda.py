"""On a GPU: what surrounds cuDNN's packed kernel in a step, and what an epoch takes."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from benchmarks.corpus import synthetic_corpus
from benchmarks.measure import Row, faster, in_turns, timed
from benchmarks.training import make_trainer
from sentiment.training.sums import RunningSums

_SECTION = "CUDA"


def rows() -> list[Row]:
    """Rows where there is a GPU, else one that says there is none."""
    if not torch.cuda.is_available():
        return [Row(_SECTION, "no GPU on this machine: not measured", None)]
    device = torch.device("cuda")
    trainer = make_trainer(synthetic_corpus(64 * 40), device)
    trainer._model.train()
    trainer._sampler.set_epoch(1)
    groups = list(trainer._groups())
    sums = RunningSums(device)
    kernel = nn.LSTM(100, 256, batch_first=True, bidirectional=True).to(device)
    prepared = []
    for (indices,) in groups:
        lengths = trainer._corpus.lengths[indices]
        x = torch.randn(len(lengths), int(lengths[0]), 100, device=device, requires_grad=True)
        prepared.append(pack_padded_sequence(x, lengths, batch_first=True))

    def bare() -> None:
        for packed in prepared:
            output = kernel(packed)[0].data
            torch.autograd.grad(output, list(kernel.parameters()), torch.ones_like(output))
        torch.cuda.synchronize()

    def updates() -> None:
        for group in groups:
            trainer._updates.carry_out(group, sums)
        torch.cuda.synchronize()

    seconds = in_turns({"bare": lambda: timed(bare), "updates": lambda: timed(updates)}, 7)
    epoch = [25_000 / (64 * 40) * each for each in seconds["updates"]]
    row = faster(_SECTION, "time of the bare cuDNN call : of the whole update", seconds["bare"],
                 seconds["updates"], 1 / 1.1)  # fmt: skip
    return [row, Row(_SECTION, "epoch of 25,000 reviews", None, value=f"{sorted(epoch)[3]:.2f} s")]
