"""oneDNN's LSTM kernel as torch offers it, and in which precision it runs on this machine.

oneDNN chooses one of its implementations by processor, precision and sizes; ``ONEDNN_VERBOSE=1``
tells which. In bf16 it is ``brgemm`` forward and backward, on AMX where all sizes are even. In fp32
it is ``brgemm`` for inference alone: in training oneDNN has its ``ref`` round plain matrix products
(its source turns ``brgemm`` down for fp32 but in inference, src/cpu/rnn/ref_rnn.cpp).

Legend: one direction of one layer; time stands first.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch

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
