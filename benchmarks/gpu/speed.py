"""The step that measures speed: an update against cuDNN's kernel, which other precisions and
packings are compared with too.
"""

from __future__ import annotations

import functools
import itertools
import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.autograd import DeviceType
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence
from torch.profiler import ProfilerActivity, profile

from benchmarks.corpus import synthetic_corpus
from benchmarks.gpu.options import Options, Outcome
from benchmarks.measure import Row, faster, in_turns, timed
from benchmarks.step import Shape
from benchmarks.training import CONFIG, TrainingParts, make_parts
from sentiment.config.config import Config
from sentiment.model import PackedLSTM
from sentiment.runtime.device import find_device, set_up
from sentiment.training.meters import MeanMeter

SECTION = "CUDA"


@dataclass(frozen=True)
class Size:
    """What is measured how often: synthetic reviews, each read once in a round."""

    reviews: int = 64 * 40
    max_length: int = 400
    square: int = 8192  # rows of the matrices whose product gives the device's peak rate
    rounds: int = 7


TINY = Size(reviews=8, max_length=10, square=8, rounds=1)


def step(options: Options) -> Outcome:
    device = find_device(options.device)
    if options.is_dry:
        model = replace(CONFIG.model, embedding_size=8, hidden_size=8)
        return Outcome(rows(device, replace(CONFIG, model=model), TINY))
    return Outcome(rows(device))


def rows(
    device: torch.device | None = None, config: Config = CONFIG, size: Size | None = None
) -> list[Row]:
    """An update against the bare kernel, and the kernel in bf16 and by both ways of packing.

    Args:
        device: None means the GPU (without one, a row says so). A CPU is for trying the code.
        config: settings of the update; its model is the default one, an LSTM.
        size: None means large enough to measure.
    """
    if device is None:
        if not torch.cuda.is_available():
            return [Row(SECTION, "no GPU on this machine: not measured", None)]
        device = torch.device("cuda")
    size = size or Size()
    set_up(device, config.seed)  # TF32, as in training
    corpus = synthetic_corpus(size.reviews, max_length=size.max_length)
    parts = make_parts(corpus, device, config=config)
    runs = _Runs(parts, device, config)
    contestants: dict[str, Callable[[], object]] = {
        "bare": runs.bare,
        "update": runs.updates,
        "bf16": runs.bare_bf16,
        "our packing": runs.packed_by_index,
        "torch's packing": runs.packed_by_torch,
    }
    problem = _problem_of_bf16(runs, device)
    if problem:
        del contestants["bf16"]
    seconds = in_turns(
        {
            name: functools.partial(_timed, function, device)
            for name, function in contestants.items()
        },
        size.rounds,
        warm_up=2,
    )
    name = "a complete update vs cuDNN's kernel alone (goal: at most 1.10 times its time)"
    results = [faster(SECTION, name, seconds["bare"], seconds["update"], 1 / 1.1, headline=True)]
    if problem:
        results.append(Row(SECTION, "cuDNN's kernel in bf16: not measured", None, value=problem))
    else:
        name = "cuDNN's kernel with bf16 weights vs in fp32 with TF32"
        results.append(faster(SECTION, name, seconds["bare"], seconds["bf16"]))
    name = "the kernel packed by index vs by pack_padded_sequence"
    results.append(faster(SECTION, name, seconds["torch's packing"], seconds["our packing"]))
    return results + _utilization(runs, device, statistics.median(seconds["update"]), size)


class _Runs:
    """What is timed: each method is a pass over all batches, forward and backward."""

    def __init__(self, parts: TrainingParts, device: torch.device, config: Config) -> None:
        sizes = config.model.embedding_size, config.model.hidden_size
        self._parts, self._groups = parts, parts.groups()
        self._sums = MeanMeter(device)
        self.shape = Shape(input=sizes[0], hidden=sizes[1])
        self.kernel = nn.LSTM(*sizes, batch_first=True, bidirectional=True).to(device)
        self._half = nn.LSTM(*sizes, batch_first=True, bidirectional=True).to(
            device, torch.bfloat16
        )
        self._ours = PackedLSTM(*sizes, bidirectional=True).to(device)
        self._padded, self._packed, self._half_packed = [], [], []
        for indices in itertools.chain.from_iterable(self._groups):
            lengths = parts.corpus.batch(indices).lengths
            x = torch.randn(int(lengths[0]), len(lengths), sizes[0], device=device)
            x = x.transpose(0, 1).requires_grad_()  # time first in memory, as embedded words are
            self._padded.append((x, lengths))
            packed = pack_padded_sequence(x.detach(), lengths, batch_first=True)
            self._packed.append(_leaf(packed, torch.float32))
            self._half_packed.append(_leaf(packed, torch.bfloat16))

    @property
    def num_words(self) -> int:
        return sum(int(lengths.sum()) for _, lengths in self._padded)

    def updates(self) -> None:
        for group in self._groups:
            self._parts.step(group, self._sums)

    def bare(self, num_batches: int | None = None) -> None:
        for packed in self._packed[:num_batches]:
            _backward(self.kernel(packed)[0].data, packed.data, self.kernel)

    def bare_bf16(self, num_batches: int | None = None) -> None:
        for packed in self._half_packed[:num_batches]:
            _backward(self._half(packed)[0].data, packed.data, self._half)

    def packed_by_index(self) -> None:
        for x, lengths in self._padded:
            _backward(self._ours.run_cudnn(x, lengths, None)[0], x, self._ours)

    def packed_by_torch(self) -> None:
        for x, lengths in self._padded:
            output, _ = self.kernel(pack_padded_sequence(x, lengths, batch_first=True))
            _backward(pad_packed_sequence(output, batch_first=True)[0], x, self.kernel)


def _leaf(packed: PackedSequence, dtype: torch.dtype) -> PackedSequence:
    return PackedSequence(packed.data.to(dtype, copy=True).requires_grad_(), packed.batch_sizes)


def _backward(output: torch.Tensor, x: torch.Tensor, kernel: nn.Module) -> None:
    torch.autograd.grad(output, [x, *kernel.parameters()], torch.ones_like(output))


def _problem_of_bf16(runs: _Runs, device: torch.device) -> str:
    """Why the kernel is not measured in bf16; empty if it can be.

    torch before 2.11, or with cuDNN before 9.13, computes it step by step instead.
    """
    try:
        seconds = [_timed(functools.partial(runs.bare_bf16, 1), device) for _ in range(2)][-1]
    except RuntimeError as error:
        return str(error).splitlines()[0]
    usual = [_timed(functools.partial(runs.bare, 1), device) for _ in range(2)][-1]
    is_slow = device.type == "cuda" and seconds > 3 * usual
    return f"{seconds / usual:.1f} times as slow as fp32, so not by cuDNN" if is_slow else ""


def _timed(run: Callable[[], object], device: torch.device) -> float:
    def run_and_wait() -> None:
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return timed(run_and_wait)


def _utilization(runs: _Runs, device: torch.device, seconds: float, size: Size) -> list[Row]:
    """How much of an update's time the device computes, and how near it comes to its peak rate.

    ``seconds`` are those of :meth:`_Runs.updates`.
    """
    one = replace(runs.shape, batch=1, time=1)
    flops = runs.num_words * sum(2 * times * m * k * n for times, m, k, n in one.products())
    square = size.square
    a = torch.randn(square, square, device=device)
    product = functools.partial(torch.mm, a, a)
    peak = in_turns({"product": lambda: _timed(product, device)}, size.rounds)["product"]
    peak_rate = 2 * square**3 / statistics.median(peak)
    rate = flops / seconds
    name = f"FLOP rate of an update vs that of a {square}³ matrix product in TF32"
    value = f"{rate / 1e12:.3g} vs {peak_rate / 1e12:.3g} TFLOP/s"
    results = [Row(SECTION, name, rate / peak_rate, value=value)]
    if device.type == "cuda":
        with profile(activities=[ProfilerActivity.CUDA]) as profiler:
            _timed(runs.updates, device)
        busy = _busy_seconds(profiler)
        value = f"{busy:.3g} of {seconds:.3g} s"
        results.append(
            Row(SECTION, "share of an update in which kernels run", busy / seconds, value=value)
        )
    return results


def _busy_seconds(profiler: profile) -> float:
    """The time in which at least one kernel ran; the two directions may run at once."""
    spans = sorted(
        (event.time_range.start, event.time_range.end)
        for event in profiler.events()
        if event.device_type == DeviceType.CUDA
        and not getattr(event, "is_user_annotation", False)  # they span the gaps too
    )
    total, last = 0.0, 0.0
    for start, end in spans:
        total += max(0.0, end - max(start, last))
        last = max(last, end)
    return total / 1e6
