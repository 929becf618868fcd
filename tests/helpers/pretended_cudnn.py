"""cuDNN's recurrences on a pretended device: its rules, and the CPU's values.

The rules are those of ``aten/src/ATen/native/cudnn/RNN.cpp``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.autograd.function import once_differentiable
from torch.utils._python_dispatch import _disable_current_modes

if TYPE_CHECKING:
    from helpers.pretended_device import PretendedDevice

_DTYPES = (torch.float16, torch.bfloat16, torch.float32)


class PretendedCudnn:
    def __init__(self, device: PretendedDevice) -> None:
        self._device = device
        self.num_compactions = 0

    def patch(self, replace: Callable[..., None]) -> None:
        for name in ("lstm", "gru", "rnn_tanh"):
            replace(torch._VF, name, self._wrap(getattr(torch._VF, name)))
        import torch.backends.cudnn.rnn as rnn

        replace(rnn, "get_cudnn_mode", lambda mode: mode)
        replace(torch.backends.cudnn, "is_acceptable", self._is_acceptable)
        replace(torch, "_use_cudnn_rnn_flatten_weight", lambda: True)
        replace(torch, "_cudnn_rnn_flatten_weight", self._flatten)

    def _is_acceptable(self, tensor: torch.Tensor) -> bool:
        is_enabled = torch.backends.cudnn.enabled
        return is_enabled and self._device.holds(tensor) and tensor.dtype in _DTYPES

    def _flatten(self, weights: Sequence[torch.Tensor], *_: Any) -> None:
        """Put weights into one chunk: all matrices, then all biases."""
        order = _layout(weights)
        chunk = torch.cat([weight.detach().flatten() for weight in order])
        for weight, part in zip(order, chunk.split([w.numel() for w in order]), strict=True):
            weight.data = part.view_as(weight)

    def _wrap(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            if not self._device.holds(args[0]) or not torch.backends.cudnn.enabled:
                return original(*args)
            position = max(n for n, arg in enumerate(args) if isinstance(arg, list | tuple))
            is_single = isinstance(args[position - 1], torch.Tensor)  # not an LSTM's h and c
            states = [args[position - 1]] if is_single else list(args[position - 1])
            weights, before, after = args[position], args[1 : position - 1], args[position + 1 :]
            self._check(args[0], before[0] if before else None, states, weights)
            _, num_layers, dropout, is_training, _ = after[:5]
            if is_training and dropout > 0 and num_layers > 1:
                raise RuntimeError("cuDNN's dropout has a state that seeds and checkpoints miss")

            def compute(x: torch.Tensor, *tensors: torch.Tensor) -> Any:
                first, matrices = tensors[: len(states)], tensors[len(states) :]
                return original(x, *before, first[0] if is_single else first, matrices, *after)

            return _Kernel.apply(self._finish, compute, is_training, args[0], *states, *weights)

        return run

    def _check(
        self,
        x: torch.Tensor,
        batch_sizes: torch.Tensor | None,
        states: list[torch.Tensor],
        weights: Sequence[torch.Tensor],
    ) -> None:
        holds = self._device.holds
        if batch_sizes is not None and holds(batch_sizes):
            raise RuntimeError("batch_sizes should always be on CPU")
        if not all(map(holds, (*states, *weights))):
            raise RuntimeError("Input, hidden and parameter tensors are not at the same device")
        if any(tensor.dtype != x.dtype for tensor in (*states, *weights)):
            raise RuntimeError("Input, hidden and parameter tensors are not the same dtype")
        for name, state in zip(("hx", "cx"), states, strict=False):
            if not state.is_contiguous():
                raise RuntimeError(f"rnn: {name} is not contiguous")
        if not _is_chunk(weights):
            self.num_compactions += 1
            warnings.warn(
                "RNN module weights are not part of single contiguous chunk of memory", stacklevel=4
            )

    def _finish(self, results: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        self._device.num_operations += 1
        return tuple(self._device.put(result, self._device.device) for result in results)


def _layout(weights: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    return sorted(weights, key=lambda weight: weight.dim() == 1)


def _is_chunk(weights: Sequence[torch.Tensor]) -> bool:
    offset = 0
    for weight in _layout(weights):
        is_next = weight.storage_offset() == offset and weight.is_contiguous()
        if not is_next or weight.untyped_storage()._cdata != weights[0].untyped_storage()._cdata:
            return False
        offset += weight.numel()
    return True


class _Kernel(torch.autograd.Function):
    """The whole recurrence as one operation, as on cuDNN; differentiable once."""

    @staticmethod
    def forward(
        ctx: Any, finish: Callable[..., Any], compute: Callable[..., Any], is_training: bool,
        *tensors: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:  # fmt: skip
        ctx.finish, ctx.is_training = finish, is_training
        with _disable_current_modes(), torch.inference_mode(False), torch.enable_grad():
            ctx.inputs = [tensor.detach().clone().requires_grad_() for tensor in tensors]
            ctx.results = compute(*ctx.inputs)
            results = [result.detach().clone() for result in ctx.results]
        return finish(results)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        if not ctx.is_training:
            raise RuntimeError("cudnn RNN backward can only be called in training mode")
        with _disable_current_modes():
            found = torch.autograd.grad(ctx.results, ctx.inputs, gradients, retain_graph=True)
        return None, None, None, *ctx.finish(found)
