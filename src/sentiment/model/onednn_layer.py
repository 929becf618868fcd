"""One LSTM layer over padded reviews by oneDNN's kernel, its directions side by side.

``nn.LSTM`` reaches the same kernel, but one direction after the other. Here each direction is one
call forward and one backward in a thread of its own; what surrounds the calls happens in place, and
the gradients of the weights stay in fp32 where the products are in bf16. The reverse direction goes
by the kernel's own flag, so that nothing is turned round, unless it has initial states to bring to
each review's last word: then it runs forward over reviews turned round within their own lengths.
Directions may also have an input each, over which both run forward.

Legend: directions is 2 if bidirectional, else 1. Time stands first, as the kernel wants it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from sentiment.model.ragged import Places
from sentiment.model.side_by_side import run_side_by_side

_kernel = torch.ops.aten.mkldnn_rnn_layer.default
_kernel_backward = torch.ops.aten.mkldnn_rnn_layer_backward.default
_LSTM = 2  # the kernel's number for it
_PER_DIRECTION = 4  # weights W_ih, W_hh, b_ih, b_hh


def can_run(x: torch.Tensor, dtype: torch.dtype) -> bool:
    """Whether oneDNN computes ``x`` in ``dtype`` on this machine."""
    is_there = torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled
    if x.device.type != "cpu" or x.numel() == 0 or not is_there:
        return False
    if dtype == torch.bfloat16:
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return dtype == torch.float32


def run_layer(
    x: torch.Tensor,
    places: Places,
    weights: Sequence[torch.Tensor],
    initial: Sequence[torch.Tensor] | None,
    dtype: torch.dtype,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Run a layer in all its directions; differentiable once.

    Args:
        x: (time, batch, features) whose last feature is 1 in padded rows and 0 in others, where
            there are padded rows; or (directions, time, batch, features), what each direction reads
            from first to last.
        places: where the reviews end, and how they are turned if there are initial states.
        weights: W_ih (4 * hidden, features), W_hh (4 * hidden, hidden), b_ih and b_hh (4 * hidden,)
            of each direction; those of the last feature make the cell stand still.
        initial: h and c (directions, batch, hidden) before the first words, None for zero.
        dtype: what to multiply in.

    Returns:
        output (time, batch, directions * hidden) in ``dtype``, zero in padded rows; the final
        states (directions, batch, hidden), h in ``dtype`` and c in fp32, as it is kept on the way.
    """
    if initial is None:
        zeros = x.new_zeros(len(weights) // _PER_DIRECTION, x.shape[-2], weights[1].shape[1])
        initial = zeros, zeros
    inputs = x, *initial, *weights
    is_recorded = torch.is_grad_enabled() and any(each.requires_grad for each in inputs)
    return _Layer.apply(places, dtype, is_recorded, *inputs)


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        places: Places,
        dtype: torch.dtype,
        is_recorded: bool,
        x: torch.Tensor,
        h: torch.Tensor,
        c: torch.Tensor,
        *weights: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        # Detached, lest the kernel records itself: it keeps what its backward needs only where
        # gradients are enabled.
        x = x.detach().to(dtype).contiguous()
        factors = _by_direction([weight.detach().to(dtype) for weight in weights])
        # The kernel reads memory as it lies, but one state for all reviews is expanded, not copied.
        # The cell state is a sum over time, which bf16 would end where what is added falls below a
        # 500th of it; the kernel keeps it in the precision that it begins in.
        start = list(zip(h.to(dtype).contiguous(), c.float().contiguous(), strict=True))
        batch, hidden = h.shape[1:]
        output = x.new_empty(*x.shape[-3:-1], len(factors) * hidden)
        rows = output.flatten(0, 1)  # (time * batch, directions * hidden)
        is_separate = x.dim() == 4
        is_reverse = [False, places.turned is None and not is_separate]

        def run(direction: int) -> Sequence[torch.Tensor]:
            turned = places.turned if direction == 1 else None
            own = x[direction] if is_separate else _turn(x, turned)
            with torch.set_grad_enabled(is_recorded):
                results = _kernel(
                    own, *factors[direction], *start[direction], is_reverse[direction],
                    [], _LSTM, hidden, 1, True, False, False, is_recorded,
                )  # fmt: skip
            half = rows.narrow(1, direction * hidden, hidden)
            half.copy_(_turn(results[0], turned).flatten(0, 1))
            if places.padded is not None:
                half.index_fill_(0, places.padded, 0)
            return own, *results

        # Autocast would cast the cell state too. It is left in the calling thread, since leaving it
        # in another one empties the cache of all.
        with torch.autocast("cpu", enabled=False):
            results = run_side_by_side(run, len(factors))
        if is_recorded:
            ctx.places, ctx.is_separate, ctx.is_reverse = places, is_separate, is_reverse
            each_direction = zip(factors, start, results, strict=True)
            ctx.save_for_backward(*_flat([_flat(groups) for groups in each_direction]))
        # In the padding c stands still, but h does not: it is the output at the word read last.
        second = places.last if is_separate else slice(batch)
        ends = [rows[places.last, :hidden], rows[second, hidden:]][: len(results)]
        return output, torch.stack(ends), torch.stack([each[3] for each in results])

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, of_output: torch.Tensor, of_h: torch.Tensor, of_c: torch.Tensor
    ) -> tuple[torch.Tensor | None, ...]:
        directions, batch, hidden = of_c.shape
        places = ctx.places
        saved = _by_direction(ctx.saved_tensors, len(ctx.saved_tensors) // directions)

        def run(direction: int) -> Sequence[torch.Tensor]:
            *factors, h_start, c_start, own, output, h, c, workspace = saved[direction]
            half = of_output.narrow(2, direction * hidden, hidden).to(own.dtype)
            half = half.clone(memory_format=torch.contiguous_format)
            rows = half.view(-1, hidden)
            if places.padded is not None:
                rows.index_fill_(0, places.padded, 0)
            if direction == 0 or ctx.is_separate:
                rows.index_add_(0, places.last, of_h[direction])
            else:
                rows[:batch] += of_h[1]
            turned = places.turned if direction == 1 else None
            of_x, *others = _kernel_backward(
                own, *factors, h_start, c_start, output, h, c, _turn(half, turned),
                torch.zeros_like(h), of_c[direction].contiguous(), ctx.is_reverse[direction],
                _LSTM, hidden, 1, True, True, False, [], False, workspace,
            )  # fmt: skip
            return _turn(of_x, turned), *others

        gradients = run_side_by_side(run, directions)
        of_x = [each[0] for each in gradients]
        if ctx.is_separate:
            total = torch.stack(of_x)
        else:
            total = of_x[0] if directions == 1 else of_x[0] + of_x[1]
        of_start = [torch.stack([each[index] for each in gradients]) for index in (5, 6)]
        return None, None, None, total, *of_start, *_flat([each[1:5] for each in gradients])


def _turn(x: torch.Tensor, turned: torch.Tensor | None) -> torch.Tensor:
    """(time, batch, features) with each review turned round."""
    return x if turned is None else x.flatten(0, 1)[turned].view_as(x)


def _by_direction(
    tensors: Sequence[torch.Tensor], size: int = _PER_DIRECTION
) -> list[Sequence[torch.Tensor]]:
    return [tensors[start : start + size] for start in range(0, len(tensors), size)]


def _flat(groups: Sequence[Sequence[torch.Tensor]]) -> list[torch.Tensor]:
    return [tensor for group in groups for tensor in group]
