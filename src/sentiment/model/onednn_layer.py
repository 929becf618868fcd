"""One LSTM layer over padded reviews by oneDNN's kernel, its directions side by side.

``nn.LSTM`` reaches the same kernel, but one direction after the other. Here each direction is one
call forward and one backward in a thread of its own, the reverse one by the kernel's own flag, so
that nothing is turned round; what surrounds the calls happens in place, and the gradients of the
weights stay in fp32 where the products are in bf16.

Legend: directions is 2 if bidirectional, else 1. Time stands first, as the kernel wants it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from sentiment.model.side_by_side import run_side_by_side

_kernel = torch.ops.aten.mkldnn_rnn_layer.default
_kernel_backward = torch.ops.aten.mkldnn_rnn_layer_backward.default
_LSTM = 2  # the kernel's number for it
_PER_DIRECTION = 4  # weights W_ih, W_hh, b_ih, b_hh; and results output, h, c, workspace


@dataclass(frozen=True)
class Places:
    """Where reviews end, in rows of (time * batch).

    Attributes:
        padded: (num_padded,) rows past the end of a review, None where there is none.
        last: (batch,) rows of the reviews' last words.
    """

    padded: torch.Tensor | None
    last: torch.Tensor


def can_run(x: torch.Tensor, dtype: torch.dtype) -> bool:
    """Whether oneDNN computes ``x`` in ``dtype`` on this machine."""
    is_there = torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled
    if x.device.type != "cpu" or x.numel() == 0 or not is_there:
        return False
    if dtype == torch.bfloat16:
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return dtype == torch.float32


def run_layer(
    x: torch.Tensor, places: Places, weights: Sequence[torch.Tensor], dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Run a layer in all its directions; differentiable once.

    Args:
        x: (time, batch, features) whose last feature is 1 in padded rows and 0 in others, where
            there are padded rows.
        places: where the reviews end.
        weights: W_ih (4 * hidden, features), W_hh (4 * hidden, hidden), b_ih and b_hh (4 * hidden,)
            of each direction; those of the last feature make the cell stand still.
        dtype: what to multiply in.

    Returns:
        output (time, batch, directions * hidden), zero in padded rows; h and c
        (directions, batch, hidden), the final states: all of them in ``dtype``.
    """
    is_recorded = torch.is_grad_enabled() and any(each.requires_grad for each in (x, *weights))
    return _Layer.apply(x, places, dtype, is_recorded, *weights)


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        places: Places,
        dtype: torch.dtype,
        is_recorded: bool,
        *weights: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        # Detached, lest the kernel records itself: it keeps what its backward needs only where
        # gradients are enabled.
        x = x.detach().to(dtype).contiguous()
        factors = _by_direction([weight.detach().to(dtype) for weight in weights])
        hidden = weights[1].shape[1]
        zeros = x.new_zeros(x.shape[1], hidden)
        output = x.new_empty(*x.shape[:2], len(factors) * hidden)
        rows = output.flatten(0, 1)  # (time * batch, directions * hidden)

        def run(direction: int) -> Sequence[torch.Tensor]:
            with torch.set_grad_enabled(is_recorded):
                results = _kernel(
                    x, *factors[direction], zeros, zeros, direction == 1, [], _LSTM, hidden, 1,
                    True, False, False, is_recorded,
                )  # fmt: skip
            half = rows.narrow(1, direction * hidden, hidden)
            half.copy_(results[0].flatten(0, 1))
            if places.padded is not None:
                half.index_fill_(0, places.padded, 0)
            return results

        results = run_side_by_side(run, len(factors))
        if is_recorded:
            ctx.places = places
            ctx.save_for_backward(x, zeros, *_flat(factors), *_flat(results))
        # Forward, h goes on changing in the padding and c does not; in reverse, both end in the
        # first word.
        h = [rows[places.last, :hidden], *(of_reverse[1] for of_reverse in results[1:])]
        return output, torch.stack(h), torch.stack([each[2] for each in results])

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, of_output: torch.Tensor, of_h: torch.Tensor, of_c: torch.Tensor
    ) -> tuple[torch.Tensor | None, ...]:
        x, zeros, *rest = ctx.saved_tensors
        count = len(rest) // 2
        factors, results = _by_direction(rest[:count]), _by_direction(rest[count:])
        batch, hidden = zeros.shape
        places = ctx.places

        def run(direction: int) -> Sequence[torch.Tensor]:
            half = of_output.narrow(2, direction * hidden, hidden).to(x.dtype)
            half = half.clone(memory_format=torch.contiguous_format)
            rows = half.view(-1, hidden)
            if places.padded is not None:
                rows.index_fill_(0, places.padded, 0)
            if direction == 0:
                rows.index_add_(0, places.last, of_h[0])
            else:
                rows[:batch] += of_h[1]
            output, h, c, workspace = results[direction]
            return _kernel_backward(
                x, *factors[direction], zeros, zeros, output, h, c, half, zeros, of_c[direction],
                direction == 1, _LSTM, hidden, 1, True, True, False, [], False, workspace,
            )[:5]  # fmt: skip

        gradients = run_side_by_side(run, len(factors))
        of_x = [each[0] for each in gradients]
        total = of_x[0] if len(of_x) == 1 else of_x[0] + of_x[1]
        return total, None, None, None, *_flat([each[1:] for each in gradients])


def _by_direction(tensors: Sequence[torch.Tensor]) -> list[Sequence[torch.Tensor]]:
    return [
        tensors[start : start + _PER_DIRECTION] for start in range(0, len(tensors), _PER_DIRECTION)
    ]


def _flat(groups: Sequence[Sequence[torch.Tensor]]) -> list[torch.Tensor]:
    return [tensor for group in groups for tensor in group]
