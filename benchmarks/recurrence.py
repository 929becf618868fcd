"""A step of the recurrence: PackedLSTM, GRU and RNN against PyTorch's own and against their matrix
products; on emulated processors, with a busy core, and with denormal gradients.
"""

from __future__ import annotations

import functools
import os
import statistics
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event

import torch

from benchmarks.kernels import describe_kernels
from benchmarks.machine import find_processor, num_cores
from benchmarks.measure import Row, Worker, faster, in_turns, timed
from benchmarks.step import USUAL, Shape, step_seconds
from sentiment.runtime.device import find_precision

_SECTION = "recurrence"
_SQUARE = 4096  # rows of the matrices whose product gives the machine's peak rate
_BUSY_ROUNDS = 7
_BUSY_SIZE = 512  # rows of the matrices that keep a core busy
_PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}

_VARIANTS = (
    replace(USUAL, directions=1),
    replace(USUAL, layers=2),
    replace(USUAL, hidden=128),
    replace(USUAL, hidden=512),
    replace(USUAL, batch=32),
    replace(USUAL, batch=256),
)


def product_seconds(shape: Shape, precision: torch.dtype) -> float:
    """The matrix products of a step, one after the other on all threads."""
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
    """One large product, at the machine's peak rate."""
    a = torch.randn(_SQUARE, _SQUARE).to(precision)
    out = torch.empty_like(a)
    return timed(lambda: torch.mm(a, a, out=out))


def rows() -> list[Row]:
    """PackedLSTM against nn.LSTM, in several shapes, and against the peak rate."""
    ours, theirs = Worker(prepared=True), Worker(prepared=False)
    plain, prepared = Worker(prepared=False), Worker(prepared=True)
    results = _usual_rows(ours, theirs, plain, prepared)
    results += _variant_rows(ours, theirs)
    for worker in (ours, theirs, plain, prepared):
        worker.close()
    return results


def _usual_rows(ours: Worker, theirs: Worker, plain: Worker, prepared: Worker) -> list[Row]:
    """``plain`` runs ours, and ``prepared`` theirs, each in the other's environment."""
    fp32, bf16 = torch.float32, torch.bfloat16
    slow = {
        "packed fp32": lambda: theirs(step_seconds, "packed nn.LSTM", USUAL, fp32, False),
        "packed fp32 huge": lambda: prepared(step_seconds, "packed nn.LSTM", USUAL, fp32, False),
    }
    quick = {
        "ours fp32": lambda: ours(step_seconds, "PackedLSTM", USUAL, fp32),
        "ours bf16": lambda: ours(step_seconds, "PackedLSTM", USUAL, bf16),
        "ours fp32 plain": lambda: plain(step_seconds, "PackedLSTM", USUAL, fp32),
        "ours bf16 plain": lambda: plain(step_seconds, "PackedLSTM", USUAL, bf16),
        "padded fp32": lambda: prepared(step_seconds, "padded nn.LSTM", USUAL, fp32),
        "products fp32": lambda: ours(product_seconds, USUAL, fp32),
        "products bf16": lambda: ours(product_seconds, USUAL, bf16),
        "square fp32": lambda: ours(square_seconds, fp32),
        "square bf16": lambda: ours(square_seconds, bf16),
    }
    if torch.ops.mkldnn._is_mkldnn_bf16_supported():  # elsewhere nn.LSTM does not run in bf16
        quick["packed bf16"] = lambda: theirs(step_seconds, "packed nn.LSTM", USUAL, bf16)
    for _ in range(2):
        for measure in quick.values():
            measure()
    seconds = in_turns({**slow, **quick}, 5, warm_up=0)
    kernels = {name: describe_kernels(USUAL, dtype) for name, dtype in _PRECISIONS.items()}
    results = []
    for precision, rival, label, goal, headline in (
        ("fp32", "packed fp32", "packed nn.LSTM fp32 in the default environment", 30, True),
        ("bf16", "packed fp32", "packed nn.LSTM fp32 in the default environment", 60, True),
        ("bf16", "packed bf16", "packed nn.LSTM bf16 in the default environment", None, False),
        ("fp32", "packed fp32 huge", "packed nn.LSTM fp32 with huge pages", None, True),
        ("bf16", "packed fp32 huge", "packed nn.LSTM fp32 with huge pages", None, True),
        ("fp32", "padded fp32", "nn.LSTM fp32 on the padded batch with huge pages", None, False),
        ("fp32", "ours fp32 plain", "itself in the default environment", None, False),
        ("bf16", "ours bf16 plain", "itself in the default environment", None, False),
        ("fp32", "products fp32", "its matrix products alone", 0.6, False),
        ("bf16", "products bf16", "its matrix products alone", 0.6, False),
    ):
        if rival not in seconds:
            continue
        name = f"PackedLSTM {precision} vs {label}, {USUAL}"
        row = faster(
            _SECTION, name, seconds[rival], seconds[f"ours {precision}"], goal, headline=headline
        )
        results.append(replace(row, kernel=kernels[precision]))
    rates = [replace(_rate_row(seconds, name), kernel=kernels[name]) for name in kernels]
    return results + rates


def _rate_row(seconds: dict[str, list[float]], precision: str) -> Row:
    flops = sum(2 * times * m * k * n for times, m, k, n in USUAL.products())
    peak = [taken / (2 * _SQUARE**3) for taken in seconds[f"square {precision}"]]
    ours = [taken / flops for taken in seconds[f"ours {precision}"]]
    name = f"PackedLSTM {precision}, share of the FLOP rate of a {_SQUARE}³ matrix product"
    row = faster(_SECTION, name, peak, ours)
    rates = [1e-9 / statistics.median(taken) for taken in (ours, peak)]
    return replace(row, value=f"{rates[0]:.0f} vs {rates[1]:.0f} GFLOP/s")


def _variant_rows(ours: Worker, theirs: Worker) -> list[Row]:
    results = []
    for shape in _VARIANTS:
        slow = theirs(step_seconds, "packed nn.LSTM", shape, torch.float32, False)
        for name, precision in _PRECISIONS.items():
            step = functools.partial(ours, step_seconds, "PackedLSTM", shape, precision)
            taken = in_turns({"ours": step}, 3)["ours"]
            label = f"PackedLSTM {name} vs packed nn.LSTM fp32 (once), {shape}"
            row = faster(_SECTION, label, [slow], taken)
            results.append(replace(row, kernel=describe_kernels(shape, precision)))
    return results


def cell_rows() -> list[Row]:
    """GRU and plain RNN, against PyTorch's own (slow, so measured once) and against the LSTM."""
    shape = str(USUAL).replace("BiLSTM", "bidirectional")
    results = []
    with Worker(prepared=True) as ours, Worker(prepared=False) as theirs:
        slow = {
            cell: theirs(step_seconds, f"packed nn.{cell}", USUAL, torch.float32, False)
            for cell in ("GRU", "RNN")
        }
        for name, precision in _PRECISIONS.items():
            seconds = in_turns(
                {
                    cell: functools.partial(ours, step_seconds, f"Packed{cell}", USUAL, precision)
                    for cell in ("LSTM", "GRU", "RNN")
                },
                5,
                warm_up=2,
            )
            for cell, goal in (("GRU", 0.75), ("RNN", 1.0)):
                title = f"Packed{cell} {name} vs packed nn.{cell} fp32 (once), {shape}"
                results.append(faster("cells", title, [slow[cell]], seconds[cell]))
                title = f"Packed{cell} {name} vs PackedLSTM {name}, {shape}"
                results.append(faster("cells", title, seconds["LSTM"], seconds[cell], goal))
    return results


@dataclass(frozen=True)
class Emulation:
    """A processor with fewer instructions, emulated by restricting torch, oneDNN and MKL.

    It shows which kernels run there and what they are worth, not that processor's caches or clock.
    https://uxlfoundation.github.io/oneDNN/dev_guide_cpu_dispatcher_control.html

    Attributes:
        name: of the emulated processor.
        flag: the instructions that this processor must have.
        variables: environment variables that restrict the libraries.
        goal: speed-up over nn.LSTM that the step should reach.
    """

    name: str
    flag: str
    variables: Mapping[str, str]
    goal: float | None = None


EMULATIONS = (
    Emulation(
        "AVX2 only",
        "avx2",
        {
            "ATEN_CPU_CAPABILITY": "avx2",
            "ONEDNN_MAX_CPU_ISA": "AVX2",
            "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        },
        goal=10,
    ),
    Emulation("AVX-512 without bf16", "avx512f", {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"}),
)


def emulated_rows() -> list[Row]:
    """A row for each emulated processor; it says so if this one cannot emulate it."""
    flags = find_processor().flags
    return [_emulated_row(emulation, emulation.flag in flags) for emulation in EMULATIONS]


def _emulated_row(emulation: Emulation, is_possible: bool) -> Row:
    section = "recurrence on emulated processors"
    if not is_possible:
        name = f"{emulation.name}: not measured, as this processor lacks {emulation.flag}"
        return Row(section, name, None)
    fp32, variables = torch.float32, emulation.variables
    with (
        Worker(prepared=True, variables=variables) as ours,
        Worker(prepared=False, variables=variables) as theirs,
    ):
        slow = theirs(step_seconds, "packed nn.LSTM", USUAL, fp32, False)
        step = functools.partial(ours, step_seconds, "PackedLSTM", USUAL, fp32)
        seconds = in_turns({"ours": step}, 5, warm_up=2)["ours"]
    name = f"{emulation.name} (emulated), PackedLSTM fp32 vs packed nn.LSTM fp32 (once), {USUAL}"
    row = faster(section, name, [slow], seconds, emulation.goal)
    return replace(row, kernel=describe_kernels(USUAL, fp32, variables))


def busy_rows() -> list[Row]:
    """The step while another process keeps a core busy, as on a desktop or a shared server."""
    section = "recurrence beside other work"
    if num_cores() == 1:
        return [Row(section, "one core busy: not measured, as there is only one", None)]
    precision = find_precision("auto", torch.device("cpu"))
    with Worker(prepared=True) as worker:
        step = functools.partial(worker, step_seconds, "PackedLSTM", USUAL, precision)

        def beside() -> float:
            with busy_core():
                return step()

        for _ in range(2):
            step()
        seconds = in_turns({"idle": step, "busy": beside}, _BUSY_ROUNDS, warm_up=0)
    short = "fp32" if precision == torch.float32 else "bf16"
    name = f"PackedLSTM {short} with one core busy vs on an idle machine, {USUAL}"
    return [faster(section, name, seconds["idle"], seconds["busy"])]


@contextmanager
def busy_core() -> Iterator[BaseProcess]:
    """A context in which another process computes matrix products on one thread."""
    context = get_context("spawn")
    started = context.Event()
    process = context.Process(target=_multiply, args=(started, os.getpid()), daemon=True)
    process.start()
    try:
        if not started.wait(timeout=60):
            raise RuntimeError("the process that keeps a core busy did not start")
        yield process
    finally:
        process.kill()
        process.join()


def _multiply(started: Event, parent: int) -> None:
    torch.set_num_threads(1)
    a = torch.randn(_BUSY_SIZE, _BUSY_SIZE)
    out = torch.mm(a, a)
    started.set()
    while os.getppid() == parent:  # the parent may be killed before it can end this process
        torch.mm(a, a, out=out)


def flush_denormals(is_wanted: bool) -> bool:
    """Set whether this thread and those it starts later treat denormal numbers as zero.

    Returns whether the processor supports it. Call it before any tensor is computed: threads that
    are already running keep their mode.
    """
    return torch.set_flush_denormal(is_wanted)


def denormal_rows() -> list[Row]:
    """The step whose gradient, from the last state only, shrinks to denormal numbers.

    Below 1.2e-38 fp32 is denormal, and some processors compute with such numbers a hundred times as
    slowly unless they are flushed to zero. PackedLSTM flushes them.
    """
    section, gradient = "recurrence with denormal numbers", "gradient from the last state only"
    fp32 = torch.float32
    with (
        Worker(prepared=True) as ours,
        Worker(prepared=False) as keeping,
        Worker(prepared=False) as flushing,
    ):
        if not flushing(flush_denormals, True):
            name = "denormal numbers flushed: not measured, as this processor does not support it"
            return [Row(section, name, None)]
        packed = functools.partial(step_seconds, "packed nn.LSTM", USUAL, fp32, False, True)
        padded = functools.partial(step_seconds, "padded nn.LSTM", USUAL, fp32, True, True)
        step = functools.partial(step_seconds, "PackedLSTM", USUAL, fp32, True, True)
        slow = keeping(packed)
        seconds = in_turns(
            {
                "ours": lambda: ours(step),
                "kept": lambda: keeping(padded),
                "flushed": lambda: flushing(padded),
            },
            5,
            warm_up=2,
        )
    flushed = "nn.LSTM fp32 on a padded batch, denormals flushed vs not flushed"
    rival = "PackedLSTM fp32 vs packed nn.LSTM fp32 in the default environment (once)"
    return [
        faster(section, f"{flushed}, {gradient}, {USUAL}", seconds["kept"], seconds["flushed"]),
        faster(section, f"{rival}, {gradient}, {USUAL}", [slow], seconds["ours"]),
    ]
