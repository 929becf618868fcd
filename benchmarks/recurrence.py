"""The recurrence of a training step: PackedLSTM, nn.LSTM, and the matrix products they consist of.

A batch comes from a good bucket: its lengths lie within 10 % of the longest.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from benchmarks.measure import Row, Worker, faster, in_turns, timed
from sentiment.model import PackedLSTM
from sentiment.runtime import autocast

_CPU = torch.device("cpu")
_SECTION = "recurrence"


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
    ours = PackedLSTM(shape.input, shape.hidden, **settings)
    theirs = nn.LSTM(shape.input, shape.hidden, batch_first=True, **settings)
    theirs.load_state_dict(ours.state_dict())

    def packed() -> torch.Tensor:
        output, _ = theirs(pack_padded_sequence(x, lengths, batch_first=True))
        return pad_packed_sequence(output, batch_first=True)[0]

    run, model = {
        "PackedLSTM": (lambda: ours(x, lengths)[0], ours),
        "packed nn.LSTM": (packed, theirs),
        "padded nn.LSTM": (lambda: theirs(x)[0], theirs),
    }[kind]
    return run, [x, *model.parameters()]


def step_seconds(kind: str, shape: Shape, precision: torch.dtype) -> float:
    """One forward and backward."""
    run, leaves = _contestant(kind, shape)
    gradient = torch.ones(shape.batch, shape.time, shape.directions * shape.hidden)

    def step() -> None:
        with autocast(_CPU, precision):
            output = run()
        torch.autograd.grad(output, leaves, gradient.to(output.dtype))

    return timed(step)


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
    """A 4096³ product, the machine's best rate."""
    a = torch.randn(4096, 4096).to(precision)
    out = torch.empty_like(a)
    return timed(lambda: torch.mm(a, a, out=out))


def rows(prepared: Worker, plain: Worker) -> list[Row]:
    """Speed against nn.LSTM and against the ceiling."""
    return [*_usual_rows(prepared, plain), *_variant_rows(prepared, plain)]


def _usual_rows(prepared: Worker, plain: Worker) -> list[Row]:
    fp32, bf16 = torch.float32, torch.bfloat16
    slow = {
        "plain fp32": lambda: plain(step_seconds, "packed nn.LSTM", USUAL, fp32),
        "prepared fp32": lambda: prepared(step_seconds, "packed nn.LSTM", USUAL, fp32),
    }
    quick = {
        "ours fp32": lambda: prepared(step_seconds, "PackedLSTM", USUAL, fp32),
        "ours bf16": lambda: prepared(step_seconds, "PackedLSTM", USUAL, bf16),
        "ours, plain, fp32": lambda: plain(step_seconds, "PackedLSTM", USUAL, fp32),
        "ours, plain, bf16": lambda: plain(step_seconds, "PackedLSTM", USUAL, bf16),
        "packed bf16": lambda: plain(step_seconds, "packed nn.LSTM", USUAL, bf16),
        "padded fp32": lambda: plain(step_seconds, "padded nn.LSTM", USUAL, fp32),
        "products fp32": lambda: prepared(product_seconds, USUAL, fp32),
        "products bf16": lambda: prepared(product_seconds, USUAL, bf16),
        "square fp32": lambda: prepared(square_seconds, fp32),
        "square bf16": lambda: prepared(square_seconds, bf16),
    }
    seconds = in_turns(quick, 9, warm_up=3)
    for name, taken in in_turns(slow, 3, warm_up=0).items():
        seconds[name] = [sorted(taken)[1]]  # the median stands for all rounds
    found = [
        faster(_SECTION, f"PackedLSTM {ours} : {label}, {USUAL}", seconds[theirs],
               seconds[f"ours {ours}"], goal)
        for ours, theirs, label, goal in (
            ("fp32", "plain fp32", "packed nn.LSTM fp32", 30),
            ("bf16", "plain fp32", "packed nn.LSTM fp32", 60),
            ("fp32", "prepared fp32", "packed nn.LSTM fp32 with huge pages", None),
            ("bf16", "prepared fp32", "packed nn.LSTM fp32 with huge pages", None),
            ("bf16", "packed bf16", "packed nn.LSTM bf16", None),
            ("fp32", "padded fp32", "nn.LSTM fp32 reading the padding", None),
            ("fp32", "ours, plain, fp32", "itself without huge pages", None),
            ("bf16", "ours, plain, bf16", "itself without huge pages", None),
            ("fp32", "products fp32", "its matrix products alone", 0.6),
            ("bf16", "products bf16", "its matrix products alone", 0.6),
        )
    ]  # fmt: skip
    flops = sum(2 * times * m * k * n for times, m, k, n in USUAL.products())
    for precision in ("fp32", "bf16"):
        best = [2 * 4096**3 / taken for taken in seconds[f"square {precision}"]]
        rates = [flops / taken for taken in seconds[f"ours {precision}"]]
        row = faster(_SECTION, f"PackedLSTM {precision}, share of the rate of a 4096³ product",
                     [1 / rate for rate in best], [1 / rate for rate in rates])  # fmt: skip
        value = f"{sorted(rates)[4] / 1e9:.0f} : {sorted(best)[4] / 1e9:.0f} GFLOP/s"
        found.append(replace(row, value=value))
    return found


def _variant_rows(prepared: Worker, plain: Worker) -> list[Row]:
    found = []
    for shape in _VARIANTS:
        slow = plain(step_seconds, "packed nn.LSTM", shape, torch.float32)
        for precision in (torch.float32, torch.bfloat16):
            name = "bf16" if precision == torch.bfloat16 else "fp32"
            ours = {
                "ours": functools.partial(prepared, step_seconds, "PackedLSTM", shape, precision)
            }
            taken = in_turns(ours, 5, warm_up=2)["ours"]
            found.append(
                faster(_SECTION, f"PackedLSTM {name} : packed nn.LSTM fp32, {shape}", [slow], taken)
            )
    return found
