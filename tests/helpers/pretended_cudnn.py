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
        # Dropout between layers has a state of its own, which neither seeds nor
        # ``set_rng_state`` reach: torch seeds it once, from the CPU's generator.
        self._dropout: torch.Generator | None = None

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
            states, weights = args[position - 1], args[position]
            states = [states] if isinstance(states, torch.Tensor) else list(states)
            batch_sizes = args[1] if position == 3 else None
            self._check(args[0], batch_sizes, states, weights)
            _, num_layers, dropout, is_training, _ = args[position + 1 : position + 6]
            job = _Job(self, original, args, position, bool(is_training))
            job.drops = bool(is_training) and dropout > 0 and num_layers > 1
            results = _Kernel.apply(job, args[0], *states, *weights)
            return results

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

    def run(self, job: _Job, args: Sequence[Any]) -> Any:
        if not job.drops:
            return job.original(*args)
        if self._dropout is None:
            self._dropout = torch.Generator().manual_seed(
                int(torch.empty((), dtype=torch.int64).random_())
            )
        before = torch.get_rng_state()
        torch.set_rng_state(self._dropout.get_state())
        try:
            return job.original(*args)
        finally:
            self._dropout.set_state(torch.get_rng_state())
            torch.set_rng_state(before)

    def finish(self, results: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
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


class _Job:
    """A call of a recurrence, whose tensors can be replaced."""

    drops = False

    def __init__(
        self,
        cudnn: PretendedCudnn,
        original: Callable[..., Any],
        args: tuple[Any, ...],
        position: int,
        is_training: bool,
    ) -> None:
        self.cudnn, self.original, self.is_training = cudnn, original, is_training
        self._args, self._position = args, position

    def arguments(self, tensors: Sequence[torch.Tensor]) -> list[Any]:
        """The call's arguments with other tensors: input, states and weights."""
        args, position = list(self._args), self._position
        num_weights = len(args[position])
        args[0] = tensors[0]
        states = list(tensors[1:-num_weights])
        is_single = isinstance(args[position - 1], torch.Tensor)
        args[position - 1] = states[0] if is_single else states
        args[position] = list(tensors[-num_weights:])
        return args


class _Kernel(torch.autograd.Function):
    """The whole recurrence as one operation, as on cuDNN; differentiable once."""

    @staticmethod
    def forward(ctx: Any, job: _Job, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        with _disable_current_modes(), torch.inference_mode(False), torch.enable_grad():
            ctx.job, ctx.inputs = (
                job,
                [tensor.detach().clone().requires_grad_() for tensor in tensors],
            )
            ctx.results = job.cudnn.run(job, job.arguments(ctx.inputs))
            results = [result.detach().clone() for result in ctx.results]
        return job.cudnn.finish(results)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        if not ctx.job.is_training:
            raise RuntimeError("cudnn RNN backward can only be called in training mode")
        with _disable_current_modes():
            found = torch.autograd.grad(ctx.results, ctx.inputs, gradients, retain_graph=True)
        return None, *ctx.job.cudnn.finish(found)
