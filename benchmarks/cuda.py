"""On a GPU: what surrounds cuDNN's packed kernel in a step, and what an epoch takes."""

from __future__ import annotations

import itertools
import statistics

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from benchmarks.corpus import synthetic_corpus
from benchmarks.measure import Row, faster, in_turns, timed
from benchmarks.training import CONFIG, make_parts
from sentiment.training.meters import MeanMeter

_SECTION = "CUDA"
_NUM_REVIEWS = 64 * 40
_IMDB_REVIEWS = 25_000
_ROUNDS = 7


def rows(device: torch.device | None = None) -> list[Row]:
    """Rows measured on the GPU; without one, a row that says so.

    Args:
        device: where to compute; None takes the GPU. On a CPU the rows mean little, but the
            program can be tried.
    """
    if device is None:
        if not torch.cuda.is_available():
            return [Row(_SECTION, "no GPU on this machine: not measured", None)]
        device = torch.device("cuda")
    parts = make_parts(synthetic_corpus(_NUM_REVIEWS), device)
    groups, sums = parts.groups(), MeanMeter(device)
    sizes = CONFIG.model.embedding_size, CONFIG.model.hidden_size
    kernel = nn.LSTM(*sizes, batch_first=True, bidirectional=True).to(device)
    prepared = []
    for indices in itertools.chain.from_iterable(groups):
        lengths = parts.corpus.batch(indices).lengths
        x = torch.randn(len(lengths), int(lengths[0]), sizes[0], device=device, requires_grad=True)
        prepared.append(pack_padded_sequence(x, lengths, batch_first=True))

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    def bare() -> None:
        for packed in prepared:
            output = kernel(packed)[0].data
            torch.autograd.grad(output, list(kernel.parameters()), torch.ones_like(output))
        wait()

    def updates() -> None:
        for group in groups:
            parts.updates.step(group, sums)
        wait()

    contestants = {"bare": lambda: timed(bare), "updates": lambda: timed(updates)}
    seconds = in_turns(contestants, _ROUNDS)
    epoch = _IMDB_REVIEWS / _NUM_REVIEWS * statistics.median(seconds["updates"])
    row = faster(_SECTION, "time of the bare cuDNN call : of the whole update", seconds["bare"],
                 seconds["updates"], 1 / 1.1)  # fmt: skip
    return [row, Row(_SECTION, "epoch of 25,000 reviews", None, value=f"{epoch:.2f} s")]
