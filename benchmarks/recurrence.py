"""The recurrence of a training step: PackedLSTM, nn.LSTM, and the matrix products they consist of.

GRU and plain RNN are measured by the same functions, in :mod:`benchmarks.cells`.
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable
from dataclasses import replace

import torch

from benchmarks.kernels import describe_kernels
from benchmarks.measure import Row, Worker, faster, in_turns, timed
from benchmarks.step import USUAL, Shape, step_seconds

_SECTION = "recurrence"
_SQUARE = 4096  # rows of the matrices by which the machine's best rate is measured

_VARIANTS = (
    replace(USUAL, directions=1),
    replace(USUAL, layers=2),
    replace(USUAL, hidden=128),
    replace(USUAL, hidden=512),
    replace(USUAL, batch=32),
    replace(USUAL, batch=256),
)


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
    kernels = {"fp32": describe_kernels(USUAL, fp32), "bf16": describe_kernels(USUAL, bf16)}
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
        row = faster(_SECTION, label, seconds[rival], ours_taken, goal, headline=headline)
        found.append(replace(row, kernel=kernels[precision]))
    rates = [replace(_rate_row(seconds, each), kernel=kernels[each]) for each in kernels]
    return found + rates


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
            taken = in_turns({"ours": step}, 3)["ours"]
            label = f"PackedLSTM {name} : packed nn.LSTM fp32 (once), {shape}"
            row = faster(_SECTION, label, [slow], taken)
            found.append(replace(row, kernel=describe_kernels(shape, precision)))
    return found
