"""Whether the fast LSTM computes on this machine what its definitions say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sentiment.doctoring.findings import Finding

if TYPE_CHECKING:
    import torch

# What the tests allow: absolute of outputs and states, relative of gradients.
_OUTPUT_TOLERANCE = 1e-6
_GRADIENT_TOLERANCE = 1e-4
_BF16_TOLERANCE = 0.05  # of values up to 1, which are rounded to 8 bits over and over

_LENGTHS = (37, 5, 24, 1, 37, 12)
_INPUT_SIZE, _HIDDEN_SIZE, _NUM_LAYERS = 20, 24, 2

Tensors = list["torch.Tensor"]


def check_recurrence() -> Finding:
    """``PackedLSTM`` against ``nn.LSTM`` on the ``PackedSequence`` and against the equations."""
    import torch

    from sentiment.model import PackedLSTM, ReferenceLSTM
    from sentiment.model.onednn_kernel import describe_kernel
    from sentiment.runtime import autocast, exact_fp32, find_device, find_precision

    device = find_device("auto")
    precision = find_precision("auto", device)
    sizes = (_INPUT_SIZE, _HIDDEN_SIZE, _NUM_LAYERS)
    with torch.random.fork_rng(devices=[]), exact_fp32():
        torch.manual_seed(0)
        defined = torch.nn.LSTM(*sizes, batch_first=True, bidirectional=True)
        fast = PackedLSTM(*sizes, bidirectional=True)
        written_out = ReferenceLSTM(*sizes, bidirectional=True)
        for lstm in (fast, written_out):
            lstm.load_state_dict(defined.state_dict())
        x = torch.randn(len(_LENGTHS), max(_LENGTHS), _INPUT_SIZE)
        ours = compute(fast, x, device)
        others = {
            "nn.LSTM": compute(defined, x, device),
            "the equations": compute(written_out, x, device),
        }
        with autocast(device, precision):
            rounded, _ = compute(fast, x, device)
    worst = 0.0
    for name, (outputs, gradients) in others.items():
        by = _largest_difference(ours[0], outputs)
        in_gradients = _largest_relative_difference(ours[1], gradients)
        if not (by <= _OUTPUT_TOLERANCE and in_gradients <= _GRADIENT_TOLERANCE):  # nan is not
            return _wrong(f"is {by:.1g} off {name}, its gradients {in_gradients:.1g}")
        worst = max(worst, by)
    by = _largest_difference(rounded, ours[0])
    if not by <= _BF16_TOLERANCE:
        return _wrong(f"is {by:.1g} off its fp32 in {str(precision).removeprefix('torch.')}")
    in_bf16 = f"; bf16 is {by:.1g} off" if precision == torch.bfloat16 else ""
    return Finding(
        f"equals nn.LSTM and the equations within {worst:.1g} on {device}{in_bf16}; training runs "
        f"{describe_kernel(device, precision)}"
    )


def compute(lstm: torch.nn.LSTM, x: torch.Tensor, device: torch.device) -> tuple[Tensors, Tensors]:
    """Run an LSTM over reviews of several lengths, forward and backward.

    Args:
        lstm: ours, called with lengths, or ``nn.LSTM`` itself, called on a ``PackedSequence``.
        x: (batch, time, input_size), on the CPU.
        device: where to compute.

    Returns:
        Output, final h and c, and the gradients of a weighted sum of the three by the input and by
        each weight; all fp32 on the CPU.
    """
    import torch
    from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

    lengths = torch.tensor(_LENGTHS)
    x = x.to(device).requires_grad_()
    lstm = lstm.to(device)
    if type(lstm) is torch.nn.LSTM:
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        output, (h, c) = lstm(packed)
        output, _ = pad_packed_sequence(output, batch_first=True)
    else:
        output, (h, c) = lstm(x, lengths)
    outputs = [each.float() for each in (output, h, c)]
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(each.shape, generator=generator).to(device) for each in outputs]
    weighted = [each * weight for each, weight in zip(outputs, weights, strict=True)]
    total = torch.stack([each.sum() for each in weighted]).sum()
    gradients = torch.autograd.grad(total, [x, *lstm.parameters()])
    return [each.detach().cpu() for each in outputs], [each.float().cpu() for each in gradients]


def _largest_difference(first: Tensors, second: Tensors) -> float:
    pairs = zip(first, second, strict=True)
    return max(float((one - other).abs().max()) for one, other in pairs)


def _largest_relative_difference(first: Tensors, second: Tensors) -> float:
    pairs = zip(first, second, strict=True)
    return max(float((one - other).norm() / other.norm()) for one, other in pairs)


def _wrong(found: str) -> Finding:
    return Finding(
        found,
        "mend",
        "models trained here would be wrong: install another version of torch (make test tells "
        "more), or train with --model.implementation reference",
    )
