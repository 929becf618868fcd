"""A pretended GPU: tensors keep real values on the CPU, but count as being on another device.

While a :class:`PretendedDevice` is entered, ``cuda:0`` (or ``mps:0``) exists. Each storage knows
its device, and every operation that reaches torch's dispatcher is checked, in backward passes and
optimizers too:

- tensors of different devices do not mix, with torch's exceptions for 0-dimensional ones;
- whatever makes the host wait for the device is logged with its line in ``src``: reading a value,
  an output whose size depends on values, copies that are blocking or from memory not pinned;
- random operations on the device draw from a generator of its own;
- recurrences hold cuDNN's rules;
- MPS refuses fp64.

It is no proof that a GPU computes the same: kernels, precision, memory and time are the CPU's.
Threads other than the one that entered it are not checked.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.autograd.function import once_differentiable
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

_CPU = torch.device("cpu")
_SOURCE = str(Path("src", "sentiment"))
_GIGABYTES = 10**9

aten = torch.ops.aten

# Outputs whose size, or whose value on the host, depends on values on the device.
_WAITING = {
    aten._local_scalar_dense.default, aten.nonzero.default, aten.masked_select.default,
    aten.equal.default, aten._unique2.default, aten.unique_dim.default, aten.bincount.default,
    aten.repeat_interleave.Tensor,
}  # fmt: skip
_COPIES = {aten.copy_.default}
_INDEXING = {
    aten.index.Tensor, aten.index_put.default, aten.index_put_.default,
    aten._index_put_impl_.default,
}  # fmt: skip
_FIRST_DECIDES = _COPIES | _INDEXING  # the result is where the first operand is
_PACKING = {aten._pack_padded_sequence.default}
# These take 0-dimensional tensors of the CPU too, as do all element-wise operations.
_TAKES_SCALARS = _INDEXING | {
    aten.fill_.Tensor, aten.masked_fill.Tensor, aten.masked_fill_.Tensor,
    aten.index_fill.int_Tensor, aten.index_fill_.int_Tensor,
}  # fmt: skip


class PretendedDevice(TorchDispatchMode):
    """See the module's docstring.

    Attributes:
        waits: all waits so far, as "cause at file:line" of the package.
        num_operations: operations on the device so far, views not counted.
        num_compactions: recurrences called with weights that are not one chunk of memory.
    """

    def __init__(self, kind: str = "cuda") -> None:
        super().__init__()
        self.device = torch.device(kind, 0)
        self.waits: list[str] = []
        self.num_operations = 0
        self.generator = torch.Generator().manual_seed(0)
        self.generators: dict[int, torch.Generator] = {}  # others on the device, by address
        self._patch = pytest.MonkeyPatch()
        self.num_compactions = 0

    def __enter__(self) -> PretendedDevice:
        for patch in (_patch_tensor, _patch_torch):
            patch(self, self._patch.setattr)
        if self.device.type == "cuda":
            PretendedCudnn(self).patch(self._patch.setattr)
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._patch.undo()

    def holds(self, tensor: torch.Tensor) -> bool:
        return getattr(tensor.untyped_storage(), "pretended_device", _CPU) == self.device

    def device_of(self, tensor: torch.Tensor) -> torch.device:
        return self.device if self.holds(tensor) else _CPU

    def put(self, tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
        """Set the device of a tensor's memory."""
        if device.type == "mps" and tensor.dtype == torch.float64:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
        tensor.untyped_storage().pretended_device = device
        return tensor

    def wait(self, cause: str) -> None:
        frame = sys._getframe(1)
        while frame is not None and _SOURCE not in frame.f_code.co_filename:
            frame = frame.f_back
        place = "" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"
        self.waits.append(f"{cause} at {place[place.find(_SOURCE) :]}")

    def copy(self, tensor: torch.Tensor, device: torch.device, non_blocking: bool) -> torch.Tensor:
        """A copy of a tensor on another device."""
        self.check_copy(tensor, to_device=device == self.device, non_blocking=non_blocking)
        return self.put(_clone(tensor), device)

    def check_copy(self, tensor: torch.Tensor, *, to_device: bool, non_blocking: bool) -> None:
        is_pinned = getattr(tensor.untyped_storage(), "is_pretended_pinned", False)
        if not (to_device and non_blocking and is_pinned):
            self.wait("copy to the device" if to_device else "copy to the host")

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        asked = kwargs.get("device")
        if asked is not None:
            kwargs["device"] = _CPU
        is_on_device = asked is not None and torch.device(asked).type == self.device.type
        tensors = _tensors((*args, *kwargs.values()))
        on_host = [tensor for tensor in tensors if not self.holds(tensor)]
        if len(on_host) < len(tensors):
            self._check_operands(func, args, on_host)
            is_on_device = is_on_device or func not in _FIRST_DECIDES or self.holds(args[0])
        if is_on_device and torch.Tag.nondeterministic_seeded in func.tags:
            result = self._draw(func, args, kwargs)
        else:
            result = func(*args, **kwargs)
        if is_on_device:
            outputs = _tensors((result,))
            self._count(func, outputs, tensors)
            for output in outputs[:1] if func in _PACKING else outputs:  # batch_sizes on the CPU
                self.put(output, self.device)
        elif torch._C._current_graph_task_id() != -1 and all(map(_is_unknown, tensors)):
            # Made by a backward formula of torch, which asks for the device that a tensor really
            # has: the first operation with another tensor decides.
            for output in _tensors((result,)):
                output.untyped_storage().is_pretended_unknown = True
        return result

    def _check_operands(self, func: Any, args: tuple[Any, ...], others: list[torch.Tensor]) -> None:
        """Log waits of an operation on the device, and refuse ``others``, which are on the CPU."""
        if func in _COPIES:
            target, source = args[:2]
            if others and source.dim() > 0:
                non_blocking = bool(args[2]) if len(args) > 2 else False
                to_device = self.holds(target)
                self.check_copy(source, to_device=to_device, non_blocking=non_blocking)
            return
        if func in _WAITING:
            self.wait(func.overloadpacket.__name__.removeprefix("_local_"))
        if func in _INDEXING:
            indices = [index for index in args[1] if index is not None]
            if any(index.dtype in (torch.bool, torch.uint8) for index in indices):
                self.wait("index by a mask")
            if self.holds(args[0]) and any(not self.holds(index) for index in indices):
                self.wait("index on the host")
                others = [tensor for tensor in others if not any(tensor is i for i in indices)]
        if func in _PACKING:
            if self.holds(args[1]):
                raise RuntimeError("'lengths' argument should be a 1D CPU int64 tensor")
            return
        for tensor in others:
            takes_scalars = torch.Tag.pointwise in func.tags or func in _TAKES_SCALARS
            if _is_unknown(tensor):
                self.put(tensor, self.device)
            elif tensor.dim() > 0 or not takes_scalars:
                raise RuntimeError(
                    f"Expected all tensors to be on the same device, but found at least two "
                    f"devices, {self.device} and cpu! ({func}, {tuple(tensor.shape)})"
                )

    def _draw(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a random operation with a generator of the device, by default the device's own."""
        generator = kwargs.get("generator")
        if generator is not None:
            if generator._cdata not in self.generators:
                raise RuntimeError("Expected a device's generator, but found one of the CPU")
            return func(*args, **kwargs)
        before = torch.get_rng_state()
        torch.set_rng_state(self.generator.get_state())
        try:
            return func(*args, **kwargs)
        finally:
            self.generator.set_state(torch.get_rng_state())
            torch.set_rng_state(before)

    def _count(self, func: Any, outputs: list[torch.Tensor], inputs: list[torch.Tensor]) -> None:
        known = {tensor.untyped_storage()._cdata for tensor in inputs}
        is_new = any(output.untyped_storage()._cdata not in known for output in outputs)
        self.num_operations += is_new or func._schema.is_mutable  # which takes long to ask


def _tensors(values: Iterable[Any]) -> list[torch.Tensor]:
    """The tensors among values and lists of them; torch's own flattening takes far longer."""
    found: list[torch.Tensor] = []
    for value in values:
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += _tensors(value)
    return found


def _is_unknown(tensor: torch.Tensor) -> bool:
    return getattr(tensor.untyped_storage(), "is_pretended_unknown", False)


_clone = torch.Tensor.clone


def _patch_tensor(device: PretendedDevice, replace: Callable[..., None]) -> None:
    """Replace what tensors do without the dispatcher, or say about their device."""
    original = {name: getattr(torch.Tensor, name) for name in ("to", "tolist", "numpy")}
    deepcopy = torch.Tensor.__deepcopy__

    def to(self: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if args and isinstance(args[0], torch.Tensor):
            args = args[0].device, args[0].dtype, *args[1:]
        if "other" in kwargs:
            other = kwargs.pop("other")
            args = other.device, other.dtype
        target, dtype, non_blocking, _ = torch._C._nn._parse_to(*args, **kwargs)
        result = original["to"](self, self.dtype if dtype is None else dtype)
        target = self.device if target is None else _with_index(target)
        return result if target == self.device else device.copy(result, target, non_blocking)

    def tolist(self: torch.Tensor) -> Any:
        if device.holds(self):
            device.wait("tolist")
        return original["tolist"](self)

    def numpy(self: torch.Tensor, **kwargs: Any) -> Any:
        if device.holds(self):
            raise TypeError(f"can't convert {device.device} device type tensor to numpy")
        return original["numpy"](self, **kwargs)

    def pin_memory(self: torch.Tensor, *_: Any) -> torch.Tensor:
        if device.holds(self):
            raise RuntimeError(f"cannot pin memory of {device.device}")
        copy = _clone(self)
        copy.untyped_storage().is_pretended_pinned = True
        return copy

    def deep_copied(self: torch.Tensor, memo: Any) -> torch.Tensor:
        return device.put(deepcopy(self, memo), self.device)

    tensor = torch.Tensor
    replace(tensor, "device", property(device.device_of))
    replace(tensor, f"is_{device.device.type}", property(device.holds))
    replace(tensor, "is_cpu", property(lambda self: not device.holds(self)))
    replace(tensor, "to", to)
    replace(tensor, "cpu", lambda self, *_, **__: self.to(_CPU))
    replace(tensor, "cuda", lambda self, *_, **__: self.to(device.device))
    replace(tensor, "tolist", tolist)
    replace(tensor, "numpy", numpy)
    replace(tensor, "pin_memory", pin_memory)
    replace(tensor, "__deepcopy__", deep_copied)


def _with_index(device: Any) -> torch.device:
    device = torch.device(device)
    return device if device.type == "cpu" else torch.device(device.type, 0)


def _patch_torch(device: PretendedDevice, replace: Callable[..., None]) -> None:
    """Replace functions of torch that ask for devices, build tensors there, or seed them."""
    kind = device.device.type
    build, group = torch.tensor, torch._C._group_tensors_by_device_and_dtype
    pad, build_generator = torch._VF._pad_packed_sequence, torch.Generator

    def tensor(data: Any, **kwargs: Any) -> torch.Tensor:
        target = kwargs.pop("device", None)
        result = build(data, **kwargs)
        return result if target is None else result.to(target)

    def grouped(*args: Any) -> Any:
        return {
            (next(t for t in lists[0] if t is not None).device, dtype): (lists, indices)
            for (_, dtype), (lists, indices) in group(*args).items()
        }

    def padded(data: torch.Tensor, *args: Any) -> Any:
        with _disable_current_modes():  # it copies slice by slice to a tensor that it makes itself
            output, lengths = pad(data, *args)
        return device.put(output, data.device), lengths

    class Generator(torch.Generator):
        def __new__(cls, place: Any = _CPU) -> torch.Generator:  # type: ignore[misc]
            generator = build_generator()
            if torch.device(place).type == kind:
                device.generators[generator._cdata] = generator
            return generator

    class Autocast(torch.autocast):
        def __init__(self, device_type: str, *args: Any, **kwargs: Any) -> None:
            super().__init__("cpu" if device_type == kind else device_type, *args, **kwargs)

    replace(torch, "tensor", tensor)
    replace(torch._VF, "_pad_packed_sequence", padded)
    replace(torch, "autocast", Autocast)
    replace(torch, "Generator", Generator)
    for name in ("is_autocast_enabled", "get_autocast_dtype"):
        function = getattr(torch, name)
        replace(torch, name, lambda _, function=function: function("cpu"))
    replace(torch._C, "_group_tensors_by_device_and_dtype", grouped)
    generator = device.generator
    module = getattr(torch, kind)
    replace(module, "get_rng_state", lambda *_: generator.get_state())
    replace(module, "set_rng_state", lambda state, *_: generator.set_state(state))
    replace(module, "manual_seed", generator.manual_seed)
    if kind == "mps":
        replace(torch.backends.mps, "is_available", lambda: True)
        return
    replace(module, "manual_seed_all", generator.manual_seed)
    replace(module, "is_available", lambda: True)
    replace(module, "_lazy_init", lambda: None)
    replace(module, "device_count", lambda: 1)
    replace(module, "current_device", lambda: 0)
    replace(module, "set_device", lambda _: None)
    replace(module, "device_of", lambda _: nullcontext())
    replace(module, "get_device_name", lambda *_: "pretended GPU")
    replace(module, "get_device_capability", lambda *_: (9, 0))
    replace(module, "mem_get_info", lambda *_: (60 * _GIGABYTES, 80 * _GIGABYTES))
    replace(module, "max_memory_allocated", lambda *_: _GIGABYTES)


# cuDNN's recurrences: its rules, which are those of aten/src/ATen/native/cudnn/RNN.cpp.

_DTYPES = (torch.float16, torch.bfloat16, torch.float32)


class PretendedCudnn:
    def __init__(self, device: PretendedDevice) -> None:
        self._device = device

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
            self._device.num_compactions += 1
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
