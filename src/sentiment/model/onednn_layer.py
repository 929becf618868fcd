"""One LSTM layer over padded reviews by oneDNN's kernel, in several threads at once.

``nn.LSTM`` reaches the same kernel, but one direction after the other, with all threads waiting for
each other at each word. Here a layer is cut into jobs that do not depend on one another: its
directions, and the two halves of a large batch. Each job is one call forward and one backward in a
thread of its own; what surrounds the calls happens in place, and the gradients of the weights stay
in fp32 where the products are in bf16.

The reverse direction uses the kernel's own flag, so that nothing is copied in reverse order, unless
it has initial states to bring to each review's last word: then it runs forward over the reviews
turned round within their own lengths. Directions may also have an input each, over which both run
forward.

Legend: directions is 2 if bidirectional, else 1. Time stands first, as the kernel wants it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from sentiment.model.onednn_kernel import run_kernel, run_kernel_backward
from sentiment.model.ragged import Part
from sentiment.model.side_by_side import run_side_by_side

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
            :func:`~sentiment.model.onednn_kernel.choose_dtype` names;
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
