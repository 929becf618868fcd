"""One training step of a recurrence, with our packed cells or with torch's.

The lengths of a batch are within 10 % of the longest, as in a well-filled bucket.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from benchmarks.measure import settled, timed
from sentiment.model import PackedGRU, PackedLSTM, PackedRNN
from sentiment.runtime.device import autocast

_CELLS = {
    "LSTM": (PackedLSTM, nn.LSTM),
    "GRU": (PackedGRU, nn.GRU),
    "RNN": (PackedRNN, nn.RNN),
}
_CPU = torch.device("cpu")
_Run = Callable[[], tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class Shape:
    """Sizes of a recurrence and its batch."""

    batch: int = 64
    time: int = 230
    input: int = 100
    hidden: int = 256
    layers: int = 1
    directions: int = 2

    def __str__(self) -> str:
        kind = "BiLSTM" if self.directions == 2 else "LSTM"
        layers = "" if self.layers == 1 else f", {self.layers} layers"
        return f"{kind} {self.hidden}, batch {self.batch} × {self.time}{layers}"

    def products(self) -> list[tuple[int, int, int, int]]:
        """(times, m, k, n) of every m × k by k × n product of a step, forward and backward."""
        cells, gates = self.batch * self.time, 4 * self.hidden
        products = []
        for layer in range(self.layers):
            inputs = self.input if layer == 0 else self.directions * self.hidden
            steps = self.directions * self.time
            products += [
                (self.directions, cells, inputs, gates),  # W x
                (steps, self.batch, self.hidden, gates),  # U h
                (steps, self.batch, gates, self.hidden),  # gradient of h
                (self.directions, cells, gates, inputs),  # gradient of x
                (self.directions, gates, cells, inputs),  # gradient of W
                (self.directions, gates, cells, self.hidden),  # gradient of U
            ]
        return products


USUAL = Shape()


@functools.cache
def _contestant(kind: str, shape: Shape) -> tuple[_Run, list[torch.Tensor]]:
    """A function that returns the output and the final h, and the leaves that have gradients."""
    torch.manual_seed(0)
    lengths = torch.randint(round(0.9 * shape.time), shape.time + 1, (shape.batch,))
    lengths = lengths.sort(descending=True).values
    lengths[0] = shape.time
    # Time is the first dimension in memory, as the kernels read it.
    x = torch.randn(shape.time, shape.batch, shape.input).transpose(0, 1).requires_grad_()
    settings = {"num_layers": shape.layers, "bidirectional": shape.directions == 2}
    cell = next(cell for cell in _CELLS if kind.endswith(cell))
    our_class, their_class = _CELLS[cell]
    ours = our_class(shape.input, shape.hidden, **settings)
    theirs = their_class(shape.input, shape.hidden, batch_first=True, **settings)
    theirs.load_state_dict(ours.state_dict())

    def packed() -> tuple[torch.Tensor, torch.Tensor]:
        output, state = theirs(pack_padded_sequence(x, lengths, batch_first=True))
        return pad_packed_sequence(output, batch_first=True)[0], state

    run, model = {
        "Packed": (lambda: ours(x, lengths), ours),
        "packed nn.": (packed, theirs),
        "padded nn.": (lambda: theirs(x), theirs),
    }[kind.removesuffix(cell)]

    def output_and_h() -> tuple[torch.Tensor, torch.Tensor]:
        output, state = run()
        return output, state[0] if cell == "LSTM" else state

    return output_and_h, [x, *model.parameters()]


def step_seconds(
    kind: str,
    shape: Shape,
    precision: torch.dtype,
    settle: bool = True,
    from_last_state: bool = False,
) -> float:
    """Seconds of one forward and backward pass.

    Args:
        kind: ``PackedLSTM``, ``packed nn.LSTM`` or ``padded nn.LSTM``; or with GRU or RNN.
        shape: of the recurrence and its batch.
        precision: of the matrix products.
        settle: whether an untimed step goes first.
        from_last_state: whether the gradient comes from the final h only, not from all outputs.
    """
    run, leaves = _contestant(kind, shape)
    gradient = torch.ones(shape.batch, shape.time, shape.directions * shape.hidden)

    def step() -> None:
        with autocast(_CPU, precision):
            output, h = run()
        if from_last_state:
            torch.autograd.grad(h.float().sum(), leaves)
        else:
            torch.autograd.grad(output, leaves, gradient.to(output.dtype))

    return settled(step) if settle else timed(step)


def run_forward(kind: str, shape: Shape, precision: torch.dtype) -> None:
    """One forward pass without gradients, as in inference."""
    run, _ = _contestant(kind, shape)
    with torch.no_grad(), autocast(_CPU, precision):
        run()
