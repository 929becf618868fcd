"""The recurrence of a training step: PackedLSTM, nn.LSTM, and the matrix products they consist of.

GRU and plain RNN are measured by the same functions, in :mod:`benchmarks.cells`.

A batch comes from a good bucket: its lengths lie within 10 % of the longest.
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from benchmarks.measure import Row, Worker, faster, in_turns, settled, timed
from sentiment.model import PackedGRU, PackedLSTM, PackedRNN
from sentiment.runtime import autocast

_CELLS = {
    "LSTM": (PackedLSTM, nn.LSTM),
    "GRU": (PackedGRU, nn.GRU),
    "RNN": (PackedRNN, nn.RNN),
}
_CPU = torch.device("cpu")
_SECTION = "recurrence"
_SQUARE = 4096  # rows of the matrices by which the machine's best rate is measured


@dataclass(frozen=True)
class Shape:
    """Of a recurrence and its batch."""

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
        found = []
        for layer in range(self.layers):
            inputs = self.input if layer == 0 else self.directions * self.hidden
            steps = self.directions * self.time
            found += [
                (self.directions, cells, inputs, gates),  # W x
                (steps, self.batch, self.hidden, gates),  # U h
                (steps, self.batch, gates, self.hidden),  # gradient of h
                (self.directions, cells, gates, inputs),  # of x
                (self.directions, gates, cells, inputs),  # of W
                (self.directions, gates, cells, self.hidden),  # of U
            ]
        return found


USUAL = Shape()
_VARIANTS = (
    replace(USUAL, directions=1),
    replace(USUAL, layers=2),
    replace(USUAL, hidden=128),
    replace(USUAL, hidden=512),
    replace(USUAL, batch=32),
    replace(USUAL, batch=256),
)


@functools.cache
def _contestant(kind: str, shape: Shape) -> tuple[Callable[[], torch.Tensor], list[torch.Tensor]]:
    """What runs forward, and what it has gradients of."""
    torch.manual_seed(0)
    lengths = torch.randint(round(0.9 * shape.time), shape.time + 1, (shape.batch,))
    lengths = lengths.sort(descending=True).values
    lengths[0] = shape.time
    # Time stands first in memory for each of them, which is what their kernels read.
    x = torch.randn(shape.time, shape.batch, shape.input).transpose(0, 1).requires_grad_()
    settings = {"num_layers": shape.layers, "bidirectional": shape.directions == 2}
    cell = next(cell for cell in _CELLS if kind.endswith(cell))
    our_class, their_class = _CELLS[cell]
    ours = our_class(shape.input, shape.hidden, **settings)
    theirs = their_class(shape.input, shape.hidden, batch_first=True, **settings)
    theirs.load_state_dict(ours.state_dict())

    def packed() -> torch.Tensor:
        output, _ = theirs(pack_padded_sequence(x, lengths, batch_first=True))
        return pad_packed_sequence(output, batch_first=True)[0]

    run, model = {
        "Packed": (lambda: ours(x, lengths)[0], ours),
        "packed nn.": (packed, theirs),
        "padded nn.": (lambda: theirs(x)[0], theirs),
    }[kind.removesuffix(cell)]
    return run, [x, *model.parameters()]


def step_seconds(kind: str, shape: Shape, precision: torch.dtype, settle: bool = True) -> float:
    """One forward and backward."""
    run, leaves = _contestant(kind, shape)
    gradient = torch.ones(shape.batch, shape.time, shape.directions * shape.hidden)

    def step() -> None:
        with autocast(_CPU, precision):
            output = run()
        torch.autograd.grad(output, leaves, gradient.to(output.dtype))

    return settled(step) if settle else timed(step)


def product_seconds(shape: Shape, precision: torch.dtype) -> float:
    """All matrix products of a step, one after the other on all threads, and nothing else."""
    total = 0.0
    for times, m, k, n in shape.products():
        a, b = torch.randn(m, k).to(precision), torch.randn(k, n).to(precision)
        out = torch.empty(m, n, dtype=precision)
        torch.mm(a, b, out=out)

        repeats = min(times, 60)
        total += timed(functools.partial(_repeat, torch.mm, a, b, out, repeats)) * times / repeats
    return total


def _repeat(
    multiply: Callable[..., object], a: torch.Tensor, b: torch.Tensor, out: torch.Tensor, times: int
) -> None:
    for _ in range(times):
        multiply(a, b, out=out)


def square_seconds(precision: torch.dtype) -> float:
    """One large product, the machine's best rate."""
    a = torch.randn(_SQUARE, _SQUARE).to(precision)
    out = torch.empty_like(a)
    return timed(lambda: torch.mm(a, a, out=out))


def rows() -> list[Row]:
    """Speed against nn.LSTM and against the ceiling."""
    ours, theirs = Worker(prepared=True), Worker(prepared=False)
    plain, prepared = Worker(prepared=False), Worker(prepared=True)
    found = _usual_rows(ours, theirs, plain, prepared)
    found += _variant_rows(ours, theirs)
    for worker in (ours, theirs, plain, prepared):
        worker.close()
    return found


def _usual_rows(ours: Worker, theirs: Worker, plain: Worker, prepared: Worker) -> list[Row]:
    """``plain`` runs ours, and ``prepared`` theirs, each in the other's environment."""
    fp32, bf16 = torch.float32, torch.bfloat16
    contestants = {
        "packed fp32": lambda: theirs(step_seconds, "packed nn.LSTM", USUAL, fp32, False),
        "packed fp32 here": lambda: prepared(step_seconds, "packed nn.LSTM", USUAL, fp32, False),
    }
    quick = {
        "ours fp32": lambda: ours(step_seconds, "PackedLSTM", USUAL, fp32),
        "ours bf16": lambda: ours(step_seconds, "PackedLSTM", USUAL, bf16),
        "ours fp32 plain": lambda: plain(step_seconds, "PackedLSTM", USUAL, fp32),
        "ours bf16 plain": lambda: plain(step_seconds, "PackedLSTM", USUAL, bf16),
        "packed bf16": lambda: theirs(step_seconds, "packed nn.LSTM", USUAL, bf16),
        "padded fp32": lambda: prepared(step_seconds, "padded nn.LSTM", USUAL, fp32),
        "products fp32": lambda: ours(product_seconds, USUAL, fp32),
        "products bf16": lambda: ours(product_seconds, USUAL, bf16),
        "square fp32": lambda: ours(square_seconds, fp32),
        "square bf16": lambda: ours(square_seconds, bf16),
    }
    for _ in range(2):
        for measure in quick.values():
            measure()
    seconds = in_turns({**contestants, **quick}, 5, warm_up=0)
    name = "PackedLSTM {} : {}, " + str(USUAL)
    found = []
    for precision, rival, label, goal, headline in (
        ("fp32", "packed fp32", "packed nn.LSTM fp32 as torch comes", 30, True),
        ("bf16", "packed fp32", "packed nn.LSTM fp32 as torch comes", 60, True),
        ("bf16", "packed bf16", "packed nn.LSTM bf16 as torch comes", None, False),
        ("fp32", "packed fp32 here", "packed nn.LSTM fp32 with huge pages", None, True),
        ("bf16", "packed fp32 here", "packed nn.LSTM fp32 with huge pages", None, True),
        ("fp32", "padded fp32", "nn.LSTM fp32 reading the padding, huge pages", None, False),
        ("fp32", "ours fp32 plain", "itself in torch's own environment", None, False),
        ("bf16", "ours bf16 plain", "itself in torch's own environment", None, False),
        ("fp32", "products fp32", "its matrix products alone", 0.6, False),
        ("bf16", "products bf16", "its matrix products alone", 0.6, True),
    ):
        ours_taken = seconds[f"ours {precision}"]
        label = name.format(precision, label)
        found.append(faster(_SECTION, label, seconds[rival], ours_taken, goal, headline=headline))
    return found + [_rate_row(seconds, precision) for precision in ("fp32", "bf16")]


def _rate_row(seconds: dict[str, list[float]], precision: str) -> Row:
    flops = sum(2 * times * m * k * n for times, m, k, n in USUAL.products())
    best = [taken / (2 * _SQUARE**3) for taken in seconds[f"square {precision}"]]
    own = [taken / flops for taken in seconds[f"ours {precision}"]]
    row = faster(
        _SECTION, f"PackedLSTM {precision}, share of the rate of a {_SQUARE}³ product", best, own
    )
    rates = [1e-9 / statistics.median(each) for each in (own, best)]
    return replace(row, value=f"{rates[0]:.0f} : {rates[1]:.0f} GFLOP/s")


def _variant_rows(ours: Worker, theirs: Worker) -> list[Row]:
    found = []
    for shape in _VARIANTS:
        slow = theirs(step_seconds, "packed nn.LSTM", shape, torch.float32, False)
        for name, precision in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
            step = functools.partial(ours, step_seconds, "PackedLSTM", shape, precision)
            taken = in_turns({"ours": step}, 5, warm_up=2)["ours"]
            label = f"PackedLSTM {name} : packed nn.LSTM fp32 (once), {shape}"
            found.append(faster(_SECTION, label, [slow], taken))
    return found
