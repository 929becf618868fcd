"""One LSTM layer by oneDNN's kernel; directions and parts of a batch run side by side."""

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

from sentiment.model.rnn_base import WEIGHTS_PER_DIRECTION, BatchPart, reverse_reviews

Result = TypeVar("Result")


def run_side_by_side(job: Callable[[int], Result], count: int) -> list[Result]:
    """``[job(0), ..., job(count - 1)]`` on the CPU, as many at once as there are threads.

    Jobs share no autograd graph and no written memory. A worker that has finished one takes the
    next, so that a slow worker does fewer.
    """
    total = torch.get_num_threads()
    if count == 1 or total == 1:
        return [job(number) for number in range(count)]
    # These modes are thread-local.
    is_inference, needs_grad = torch.is_inference_mode_enabled(), torch.is_grad_enabled()

    def run(number: int) -> Result:
        with torch.inference_mode(is_inference), torch.set_grad_enabled(needs_grad):
            return job(number)

    # A power of two, so that batches of all sizes share a few pools, which stay alive.
    workers = 1 << (min(count, total).bit_length() - 1)
    return list(_make_threads(workers, total).map(run, range(count)))


@functools.cache
def _make_threads(count: int, total: int) -> ThreadPoolExecutor:
    """A pool of ``count`` workers that share the caller's ``total`` threads equally."""
    share = max(1, total // count)

    def start() -> None:
        torch.get_num_threads()  # the first call sets the common number, which must not come later
        torch.set_num_threads(share)
        torch.set_flush_denormal(True)  # fading gradients take up to 15 times as long on Intel

    pool = ThreadPoolExecutor(count, "recurrence", start)
    # Each thread has its own number of threads, but the last one set is the default for any new
    # thread: once all workers have started, set it back to the caller's.
    barrier = threading.Barrier(count)
    list(pool.map(lambda _: barrier.wait(), range(count)))
    torch.set_num_threads(total)
    return pool


if hasattr(os, "register_at_fork"):  # a forked process has no threads of its parent
    os.register_at_fork(after_in_child=_make_threads.cache_clear)


_kernel = torch.ops.aten.mkldnn_rnn_layer.default
_kernel_backward = torch.ops.aten.mkldnn_rnn_layer_backward.default
_LSTM = 2  # the kernel's number for LSTM


def choose_dtype(device: torch.device, dtype: torch.dtype) -> torch.dtype | None:
    """The precision in which oneDNN's kernel computes what is asked for in ``dtype``.

    That is ``dtype``; fp32 if the kernel does not support ``dtype`` here; or None if there is no
    kernel at all: on other devices, on platforms without oneDNN, and in fp64.
    """
    if device.type != "cpu" or not torch.backends.mkldnn.enabled:
        return None
    candidates = [dtype] if dtype in (torch.bfloat16, torch.float32) else []
    if dtype in (torch.bfloat16, torch.float16):
        candidates.append(torch.float32)
    return next((candidate for candidate in candidates if _is_supported(candidate)), None)


@functools.cache
def _is_supported(dtype: torch.dtype) -> bool:
    """Whether the kernel runs here, forward and backward, tested by running it once.

    torch's report is not enough: on some processors for which it offers bf16, the LSTM fails
    ("could not create a primitive descriptor").
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
                results = run_kernel(x, weights, (h, c), is_reverse=False, needs_grad=True)
            run_kernel_backward(x, weights, (h, c), results, x, c, is_reverse=False)
    except RuntimeError:
        return False
    return True


def describe_kernel(device: torch.device, dtype: torch.dtype) -> str:
    """The kernel that computes an LSTM on a device when ``dtype`` is asked for, in words."""
    if device.type == "cuda":
        return "cuDNN's kernel"
    chosen = choose_dtype(device, dtype)
    if chosen is None:
        return "torch's padded kernel in fp32"
    names = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}
    reason = "" if chosen == dtype else f", as this processor lacks one in {names[dtype]}"
    return f"oneDNN's kernel in {names[chosen]}{reason}"


def run_kernel(
    x: torch.Tensor,
    weights: Sequence[torch.Tensor],
    start: Sequence[torch.Tensor],
    *,
    is_reverse: bool,
    needs_grad: bool,
) -> Sequence[torch.Tensor]:
    """Output (time, batch, hidden), final h and c (batch, hidden), and the workspace."""
    hidden = weights[1].shape[1]
    return _kernel(
        x, *weights, *start, is_reverse, [], _LSTM, hidden, 1, True, False, False, needs_grad
    )


def run_kernel_backward(
    x: torch.Tensor,
    weights: Sequence[torch.Tensor],
    start: Sequence[torch.Tensor],
    results: Sequence[torch.Tensor],
    grad_output: torch.Tensor,
    grad_c: torch.Tensor,
    *,
    is_reverse: bool,
) -> Sequence[torch.Tensor]:
    """Gradients of x, of the four weights, and of the initial h and c, in fp32."""
    output, h, c, workspace = results
    return _kernel_backward(
        x, *weights, *start, output, h, c, grad_output, torch.zeros_like(h), grad_c, is_reverse,
        _LSTM, h.shape[-1], 1, True, True, False, [], False, workspace,
    )  # fmt: skip


_SAVED_PER_JOB = 7  # initial h and c, x, and the kernel's four results
_MIN_PART_SIZE = 32  # with fewer reviews, loading the weights takes longer than multiplying


def count_parts(batch: int, directions: int) -> int:
    """Number of parts to split a batch into: two jobs for each thread, if it is large enough.

    A thread that another program slows down then does fewer jobs than the others.
    """
    threads = torch.get_num_threads()
    if threads == 1:
        return 1
    return max(1, min(batch // _MIN_PART_SIZE, -(-2 * threads // directions)))


def run_layer(
    x: torch.Tensor,
    parts: Sequence[BatchPart],
    weights: Sequence[torch.Tensor],
    initial: Sequence[torch.Tensor] | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Run a layer in all its directions; differentiable once.

    Args:
        x: (time, batch, features), or (directions, time, batch, features) if each direction reads
            its own input from first to last; of a dtype that :func:`choose_dtype` returns. If there
            is padding, one feature is 1 on padding and 0 on words.
        parts: the parts of the batch; with ``reversed_index`` if bidirectional with initial states.
        weights: W_ih (4 * hidden, features), W_hh (4 * hidden, hidden), b_ih and b_hh (4 * hidden,)
            of each direction; those of the padding feature keep the cell state constant.
        initial: initial h and c, (directions, batch, hidden) each; None is zero.

    Returns:
        output (time, batch, directions * hidden), zero on padding, and the final h and c
        (directions, batch, hidden); c is in fp32, the others have the dtype of ``x``.
    """
    features, hidden = x.shape[-1], weights[1].shape[1]
    directions = len(weights) // WEIGHTS_PER_DIRECTION
    if initial is None:
        zeros = x.new_zeros(directions, x.shape[-2], hidden)
        initial = zeros, zeros
    is_odd = x.dtype == torch.bfloat16 and (features % 2 or hidden % 2)
    if is_odd:
        # AMX multiplies pairs of bf16, so oneDNN does not use it for odd sizes. Padding with zeros
        # changes no value: a unit without weights has g = tanh(0) = 0, and stays at c = h = 0.
        x = nn.functional.pad(x, (0, features % 2))
        weights = [_pad_to_even(weight, hidden) for weight in weights]
        initial = [nn.functional.pad(state, (0, hidden % 2)) for state in initial]
    inputs = x, *initial, *weights
    needs_grad = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs)
    output, h, c = _Layer.apply(parts, needs_grad, *inputs)
    if is_odd and hidden % 2:
        output = output.unflatten(-1, (directions, hidden + 1))[..., :hidden].flatten(-2)
        h, c = h[..., :hidden], c[..., :hidden]
    return output, h, c


def _pad_to_even(weight: torch.Tensor, hidden: int) -> torch.Tensor:
    """Pad a weight (4 * hidden, columns) or (4 * hidden,) with zeros to even sizes."""
    gates = weight.unflatten(0, (4, hidden))
    columns = (0, weight.shape[1] % 2) if weight.dim() == 2 else ()
    return nn.functional.pad(gates, (*columns, 0, hidden % 2)).flatten(0, 1)


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        parts: Sequence[BatchPart],
        needs_grad: bool,
        x: torch.Tensor,
        h: torch.Tensor,
        c: torch.Tensor,
        *weights: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        # Detached, so that the kernel is not recorded a second time; but it keeps what its backward
        # needs only if gradients are enabled.
        x, dtype = x.detach(), x.dtype
        factors = _groups([weight.detach().to(dtype) for weight in weights], WEIGHTS_PER_DIRECTION)
        # The cell state sums over time, and in bf16 it would lose summands below a 500th of it; the
        # kernel keeps it in the precision of its initial value.
        h, c = h.to(dtype), c.float()
        directions, _, hidden = h.shape
        output = x.new_empty(*x.shape[-3:-1], directions * hidden)
        final_h, final_c = torch.empty_like(h), torch.empty_like(c)
        jobs = [(direction, part) for part in parts for direction in range(directions)]
        is_separate = x.dim() == 4
        # The kernel needs contiguous memory. Both directions share one copy.
        inputs = [] if is_separate else [x[:, part.rows].contiguous() for part in parts]

        def run(number: int) -> Sequence[torch.Tensor]:
            direction, part = jobs[number]
            rows, index = part.rows, part.index
            reversed_index = index.reversed_index if direction == 1 else None
            own = (
                x[direction, :, rows].contiguous()
                if is_separate
                else reverse_reviews(inputs[number // directions], reversed_index)
            )  # (time, rows, features)
            start = h[direction, rows].contiguous(), c[direction, rows].contiguous()
            is_reverse = direction == 1 and index.reversed_index is None and not is_separate
            with torch.set_grad_enabled(needs_grad):
                results = run_kernel(
                    own, factors[direction], start, is_reverse=is_reverse, needs_grad=needs_grad
                )
            # On padding c is constant, but h is not: the final h is that of the last word.
            words = results[0].view(-1, hidden)  # (time * rows, hidden)
            final_h[direction, rows] = results[0][0] if is_reverse else words[index.last]
            final_c[direction, rows] = results[2]
            if index.padded is not None:  # in place, as backward reads no padding
                words.index_fill_(0, index.padded, 0)
            half = output[:, rows, direction * hidden : (direction + 1) * hidden]
            half.copy_(reverse_reviews(results[0], reversed_index))
            return *start, own, *results

        # Autocast would cast the cell state too. It is disabled in the calling thread, because
        # leaving it in another thread clears the weight cache of all threads.
        with torch.autocast("cpu", enabled=False):
            results = run_side_by_side(run, len(jobs))
        if needs_grad:
            ctx.jobs, ctx.is_separate = jobs, is_separate
            ctx.save_for_backward(*_flatten(factors), *_flatten(results))
        return output, final_h, final_c

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_output: torch.Tensor, grad_h: torch.Tensor, grad_c: torch.Tensor
    ) -> tuple[torch.Tensor | None, ...]:
        directions, _, hidden = grad_c.shape
        num_weights = WEIGHTS_PER_DIRECTION * directions
        factors = _groups(ctx.saved_tensors[:num_weights], WEIGHTS_PER_DIRECTION)
        saved = _groups(ctx.saved_tensors[num_weights:], _SAVED_PER_JOB)
        features = factors[0][0].shape[1]
        grad_x = grad_c.new_empty(directions, *grad_output.shape[:2], features)
        grad_initial = torch.empty_like(grad_c), torch.empty_like(grad_c)

        def run(number: int) -> Sequence[torch.Tensor]:
            direction, part = ctx.jobs[number]
            rows, index = part.rows, part.index
            *start, own, output, h, c, workspace = saved[number]
            half = grad_output[:, rows, direction * hidden : (direction + 1) * hidden].to(own.dtype)
            half = half.clone(memory_format=torch.contiguous_format)  # (time, rows, hidden)
            if index.padded is not None:
                half.view(-1, hidden).index_fill_(0, index.padded, 0)
            reversed_index = index.reversed_index if direction == 1 else None
            is_reverse = direction == 1 and reversed_index is None and not ctx.is_separate
            half = reverse_reviews(half, reversed_index)
            if is_reverse:
                half[0] += grad_h[1, rows]
            else:
                half.view(-1, hidden).index_add_(0, index.last, grad_h[direction, rows])
            grad_own, *grad_weights, grad_first_h, grad_first_c = run_kernel_backward(
                own, factors[direction], start, (output, h, c, workspace), half,
                grad_c[direction, rows].contiguous(), is_reverse=is_reverse,
            )  # fmt: skip
            grad_x[direction, :, rows] = reverse_reviews(grad_own, reversed_index)
            grad_initial[0][direction, rows] = grad_first_h
            grad_initial[1][direction, rows] = grad_first_c
            return grad_weights

        results = run_side_by_side(run, len(ctx.jobs))
        grad_weights = _flatten([_sum_parts(results[n::directions]) for n in range(directions)])
        grad_x = grad_x if ctx.is_separate else grad_x.sum(dim=0)
        return None, None, grad_x, *grad_initial, *grad_weights


def _sum_parts(gradients: Sequence[Sequence[torch.Tensor]]) -> Sequence[torch.Tensor]:
    """The sums of the parts' gradients of the four weights, in the memory of the first part."""
    total, *others = gradients
    for other in others:
        for tensor, summand in zip(total, other, strict=True):
            tensor += summand
    return total


def _groups(tensors: Sequence[torch.Tensor], size: int) -> list[Sequence[torch.Tensor]]:
    return [tensors[start : start + size] for start in range(0, len(tensors), size)]


def _flatten(groups: Sequence[Sequence[torch.Tensor]]) -> list[torch.Tensor]:
    return [tensor for group in groups for tensor in group]
