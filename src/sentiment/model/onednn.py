"""One LSTM layer by oneDNN's kernel: directions and parts of a batch side by side."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from sentiment.model.rnn_base import Part

Result = TypeVar("Result")


def run_side_by_side(job: Callable[[int], Result], count: int) -> list[Result]:
    """``[job(0), ..., job(count - 1)]``, as many at once as there are threads to share.

    Each worker takes the next job when it has done one, so that a slow one does fewer.

    Args:
        job: computes on the CPU, without a graph across jobs, and writes to nothing that another
            one reads or writes.
        count: how many jobs.
    """
    total = torch.get_num_threads()
    if count == 1 or total == 1:
        return [job(number) for number in range(count)]
    # Modes are a thread's own.
    is_inference, is_recorded = torch.is_inference_mode_enabled(), torch.is_grad_enabled()

    def run(number: int) -> Result:
        with torch.inference_mode(is_inference), torch.set_grad_enabled(is_recorded):
            return job(number)

    # A power of two: batches of all sizes then share a few pools, whose threads stay.
    workers = 1 << (min(count, total).bit_length() - 1)
    return list(_make_threads(workers, total).map(run, range(count)))


@functools.cache
def _make_threads(count: int, total: int) -> ThreadPoolExecutor:
    """So many workers, each with its share of the ``total`` threads of the caller."""
    share = max(1, total // count)  # what remains of an uneven division rests

    def start() -> None:
        torch.get_num_threads()  # a thread takes the common number when it first asks: not later
        torch.set_num_threads(share)
        torch.set_flush_denormal(True)  # else fading gradients take up to 15 times as long on Intel

    pool = ThreadPoolExecutor(count, "recurrence", start)
    # The number is a thread's own, but what was set last is the common one, with which any other
    # thread starts: once all of ours are up, it is the caller's again.
    everybody = threading.Barrier(count)
    list(pool.map(lambda _: everybody.wait(), range(count)))
    torch.set_num_threads(total)
    return pool


if hasattr(os, "register_at_fork"):  # a forked process has none of its parent's threads
    os.register_at_fork(after_in_child=_make_threads.cache_clear)


_kernel = torch.ops.aten.mkldnn_rnn_layer.default
_kernel_backward = torch.ops.aten.mkldnn_rnn_layer_backward.default
_LSTM = 2  # the kernel's number for it


def choose_dtype(device: torch.device, dtype: torch.dtype) -> torch.dtype | None:
    """The precision in which oneDNN computes on this machine what is asked for in ``dtype``.

    Returns:
        ``dtype`` itself, fp32 where it has no kernel in ``dtype``, or None where it has no kernel
        at all: on other devices, on platforms without oneDNN, and in fp64.
    """
    if device.type != "cpu" or not torch.backends.mkldnn.enabled:
        return None
    wanted = [dtype] if dtype in (torch.bfloat16, torch.float32) else []
    if dtype in (torch.bfloat16, torch.float16):
        wanted.append(torch.float32)
    return next((each for each in wanted if _runs(each)), None)


@functools.cache
def _runs(dtype: torch.dtype) -> bool:
    """Whether the kernel runs here, forward and backward; found by trying it once.

    What torch tells of the processor does not suffice: some of those for which it offers bf16 have
    no LSTM in it ("could not create a primitive descriptor").
    """
    if not torch.backends.mkldnn.is_available():
        return False
    if dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    weights = [torch.zeros(size, dtype=dtype) for size in ((8, 2), (8, 2), (8,), (8,))]
    x, h, c = torch.zeros(1, 2, 2, dtype=dtype), torch.zeros(2, 2, dtype=dtype), torch.zeros(2, 2)
    try:
        with torch.inference_mode(False), torch.autocast("cpu", enabled=False):
            with torch.enable_grad():
                results = run_kernel(x, weights, (h, c), is_reverse=False, is_recorded=True)
            run_kernel_backward(x, weights, (h, c), results, x, c, is_reverse=False)
    except RuntimeError:
        return False
    return True


def describe_kernel(device: torch.device, dtype: torch.dtype) -> str:
    """What computes an LSTM on a device when ``dtype`` is asked for, as a person would name it."""
    if device.type == "cuda":
        return "cuDNN's kernel"
    chosen = choose_dtype(device, dtype)
    if chosen is None:
        return "torch's padded kernel in fp32"
    names = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}
    lack = "" if chosen == dtype else f", as it has none in {names[dtype]} on this processor"
    return f"oneDNN's kernel in {names[chosen]}{lack}"


def run_kernel(
    x: torch.Tensor,
    weights: Sequence[torch.Tensor],
    start: Sequence[torch.Tensor],
    *,
    is_reverse: bool,
    is_recorded: bool,
) -> Sequence[torch.Tensor]:
    """Output (time, batch, hidden), final h and c (batch, hidden), and what backward needs."""
    hidden = weights[1].shape[1]
    return _kernel(
        x, *weights, *start, is_reverse, [], _LSTM, hidden, 1, True, False, False, is_recorded
    )


def run_kernel_backward(
    x: torch.Tensor,
    weights: Sequence[torch.Tensor],
    start: Sequence[torch.Tensor],
    results: Sequence[torch.Tensor],
    of_output: torch.Tensor,
    of_c: torch.Tensor,
    *,
    is_reverse: bool,
) -> Sequence[torch.Tensor]:
    """Gradients of x, of the four weights, and of the initial h and c, in fp32."""
    output, h, c, workspace = results
    return _kernel_backward(
        x, *weights, *start, output, h, c, of_output, torch.zeros_like(h), of_c, is_reverse,
        _LSTM, h.shape[-1], 1, True, True, False, [], False, workspace,
    )  # fmt: skip


_PER_DIRECTION = 4  # weights W_ih, W_hh, b_ih, b_hh
_SAVED = 7  # of each job: h and c to begin with, x, and the kernel's four results
_ROWS_OF_PART = 32  # below that the products of a time step are too small for their weights


def count_parts(batch: int, directions: int) -> int:
    """Into how many parts to cut a batch: two jobs for each thread, where the reviews suffice.

    A thread that another program slows down then does fewer of them than the others.
    """
    threads = torch.get_num_threads()
    if threads == 1:
        return 1
    return max(1, min(batch // _ROWS_OF_PART, -(-2 * threads // directions)))


def run_layer(
    x: torch.Tensor,
    parts: Sequence[Part],
    weights: Sequence[torch.Tensor],
    initial: Sequence[torch.Tensor] | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Run a layer in all its directions; differentiable once, not for penalties of gradients.

    Args:
        x: in the precision of the products, one that
            :func:`~sentiment.model.onednn.choose_dtype` names;
            (time, batch, features) with a feature that is 1 in padded rows and 0 in others, where
            there are padded rows; or (directions, time, batch, features), what each direction reads
            from first to last.
        parts: of the batch, where their reviews end, and how they are turned round if there are
            initial states.
        weights: W_ih (4 * hidden, features), W_hh (4 * hidden, hidden), b_ih and b_hh (4 * hidden,)
            of each direction; those of the feature of padding make the cell stand still.
        initial: h and c (directions, batch, hidden) before the first words, None for zero.

    Returns:
        output (time, batch, directions * hidden) as ``x``, zero in padded rows; the final states
        (directions, batch, hidden), h as ``x`` and c in fp32, as it is kept on the way.
    """
    features, hidden = x.shape[-1], weights[1].shape[1]
    directions = len(weights) // _PER_DIRECTION
    if initial is None:
        zeros = x.new_zeros(directions, x.shape[-2], hidden)
        initial = zeros, zeros
    is_odd = x.dtype == torch.bfloat16 and (features % 2 or hidden % 2)
    if is_odd:
        # AMX multiplies pairs of bf16: where a size is odd, oneDNN leaves it unused. Zeros in their
        # place change no value: a unit without weights has g = tanh(0) = 0, and stays at c = h = 0.
        x = nn.functional.pad(x, (0, features % 2))
        weights = [_pad_to_even(weight, hidden) for weight in weights]
        initial = [nn.functional.pad(each, (0, hidden % 2)) for each in initial]
    inputs = x, *initial, *weights
    is_recorded = torch.is_grad_enabled() and any(each.requires_grad for each in inputs)
    output, h, c = _Layer.apply(parts, is_recorded, *inputs)
    if is_odd and hidden % 2:
        output = output.unflatten(-1, (directions, hidden + 1))[..., :hidden].flatten(-2)
        h, c = h[..., :hidden], c[..., :hidden]
    return output, h, c


def _pad_to_even(weight: torch.Tensor, hidden: int) -> torch.Tensor:
    """A weight (4 * hidden, columns) or (4 * hidden,) with zeros for one more unit or column."""
    gates = weight.unflatten(0, (4, hidden))
    columns = (0, weight.shape[1] % 2) if weight.dim() == 2 else ()
    return nn.functional.pad(gates, (*columns, 0, hidden % 2)).flatten(0, 1)


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        parts: Sequence[Part],
        is_recorded: bool,
        x: torch.Tensor,
        h: torch.Tensor,
        c: torch.Tensor,
        *weights: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        # Detached, lest the kernel records itself: it keeps what its backward needs only where
        # gradients are enabled.
        x, dtype = x.detach(), x.dtype
        factors = _groups([weight.detach().to(dtype) for weight in weights], _PER_DIRECTION)
        # The cell state is a sum over time, which bf16 would end where what is added falls below a
        # 500th of it; the kernel keeps it in the precision that it begins in.
        h, c = h.to(dtype), c.float()
        directions, _, hidden = h.shape
        output = x.new_empty(*x.shape[-3:-1], directions * hidden)
        final_h, final_c = torch.empty_like(h), torch.empty_like(c)
        jobs = [(direction, part) for part in parts for direction in range(directions)]
        is_separate = x.dim() == 4
        # The kernel reads memory as it lies. What both directions read is copied and kept once.
        read = [] if is_separate else [x[:, part.rows].contiguous() for part in parts]

        def run(number: int) -> Sequence[torch.Tensor]:
            direction, part = jobs[number]
            rows, places = part.rows, part.places
            turned = places.turned if direction == 1 else None
            own = (
                x[direction, :, rows].contiguous()
                if is_separate
                else _turn(read[number // directions], turned)
            )
            start = h[direction, rows].contiguous(), c[direction, rows].contiguous()
            is_reverse = direction == 1 and places.turned is None and not is_separate
            with torch.set_grad_enabled(is_recorded):
                results = run_kernel(
                    own, factors[direction], start, is_reverse=is_reverse, is_recorded=is_recorded
                )
            # In the padding c stands still, but h does not: its last is that of the last word.
            words = results[0].view(-1, hidden)  # (time * rows, hidden)
            final_h[direction, rows] = results[0][0] if is_reverse else words[places.last]
            final_c[direction, rows] = results[2]
            if places.padded is not None:  # no gradient comes from there, so backward may read it
                words.index_fill_(0, places.padded, 0)
            half = output[:, rows, direction * hidden : (direction + 1) * hidden]
            half.copy_(_turn(results[0], turned))
            return *start, own, *results

        # Autocast would cast the cell state too. It is left in the calling thread, since leaving it
        # in another one empties the cache of all.
        with torch.autocast("cpu", enabled=False):
            results = run_side_by_side(run, len(jobs))
        if is_recorded:
            ctx.jobs, ctx.is_separate = jobs, is_separate
            ctx.save_for_backward(*_flat(factors), *_flat(results))
        return output, final_h, final_c

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, of_output: torch.Tensor, of_h: torch.Tensor, of_c: torch.Tensor
    ) -> tuple[torch.Tensor | None, ...]:
        directions, _, hidden = of_c.shape
        num_weights = _PER_DIRECTION * directions
        factors = _groups(ctx.saved_tensors[:num_weights], _PER_DIRECTION)
        saved = _groups(ctx.saved_tensors[num_weights:], _SAVED)
        features = factors[0][0].shape[1]
        of_x = of_c.new_empty(directions, *of_output.shape[:2], features)
        of_start = torch.empty_like(of_c), torch.empty_like(of_c)

        def run(number: int) -> Sequence[torch.Tensor]:
            direction, part = ctx.jobs[number]
            rows, places = part.rows, part.places
            *start, own, output, h, c, workspace = saved[number]
            half = of_output[:, rows, direction * hidden : (direction + 1) * hidden].to(own.dtype)
            half = half.clone(memory_format=torch.contiguous_format)
            words = half.view(-1, hidden)  # (time * rows, hidden)
            if places.padded is not None:
                words.index_fill_(0, places.padded, 0)
            turned = places.turned if direction == 1 else None
            is_reverse = direction == 1 and turned is None and not ctx.is_separate
            half = _turn(half, turned)
            if is_reverse:
                half[0] += of_h[1, rows]
            else:
                half.view(-1, hidden).index_add_(0, places.last, of_h[direction, rows])
            of_own, *of_weights, of_first_h, of_first_c = run_kernel_backward(
                own, factors[direction], start, (output, h, c, workspace), half,
                of_c[direction, rows].contiguous(), is_reverse=is_reverse,
            )  # fmt: skip
            of_x[direction, :, rows] = _turn(of_own, turned)
            of_start[0][direction, rows], of_start[1][direction, rows] = of_first_h, of_first_c
            return of_weights

        gradients = run_side_by_side(run, len(ctx.jobs))
        of_weights = _flat([_add_up(gradients[n::directions]) for n in range(directions)])
        return None, None, of_x if ctx.is_separate else of_x.sum(dim=0), *of_start, *of_weights


def _add_up(gradients: Sequence[Sequence[torch.Tensor]]) -> Sequence[torch.Tensor]:
    """The sum of the parts' gradients of the four weights, made in those of the first."""
    total, *others = gradients
    for other in others:
        for whole, own in zip(total, other, strict=True):
            whole += own
    return total


def _turn(x: torch.Tensor, turned: torch.Tensor | None) -> torch.Tensor:
    """(time, batch, features) with each review turned round."""
    return x if turned is None else x.flatten(0, 1)[turned].view_as(x)


def _groups(tensors: Sequence[torch.Tensor], size: int) -> list[Sequence[torch.Tensor]]:
    return [tensors[start : start + size] for start in range(0, len(tensors), size)]


def _flat(groups: Sequence[Sequence[torch.Tensor]]) -> list[torch.Tensor]:
    return [tensor for group in groups for tensor in group]
