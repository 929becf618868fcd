"""GRU and plain RNN over reviews of different lengths, on a CPU by loops over time of our own.

torch's padded kernels, made to ignore padding as in :mod:`sentiment.model.packed_lstm`, take 1.1 to
1.5 times as long: they record every operation of every time step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from sentiment.model.layers import dropout
from sentiment.model.onednn import run_side_by_side
from sentiment.model.rnn_base import (
    WEIGHTS_PER_DIRECTION,
    PaddingIndex,
    VariableLengthRNN,
    index_padding,
    matmul_dtype,
    reverse_reviews,
    weights_of,
)

_sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input
_tanh_backward = torch.ops.aten.tanh_backward.grad_input

Triple = tuple[torch.Tensor, torch.Tensor, torch.Tensor]

_ROWS_PER_BLOCK = 1024  # of time * batch
_SAVED_PER_DIRECTION = 3  # inputs, gates, states


class RNNCell:
    """A step of a plain RNN (Elman 1990), h' = tanh(W x + b + U h + d).

    A step's ``gates`` are first pre-activations, then activations, (..., slots * hidden); the plain
    RNN has one slot. The products with input and state each reach some of the slots.
    """

    def input_slots(self, gates: torch.Tensor) -> torch.Tensor:
        """The slots that the product with the input is added to."""
        return gates

    def state_slots(self, gates: torch.Tensor) -> torch.Tensor:
        """The slots that the product with the state is added to."""
        return gates

    def pack(self, weights: Sequence[torch.Tensor]) -> Triple:
        """W_ih, W_hh and one bias (slots * hidden,), the latter two with rows in slot order."""
        W, U, b, d = weights
        return W, U, b + d

    def unpack(self, W: torch.Tensor, U: torch.Tensor, bias: torch.Tensor) -> list[torch.Tensor]:
        """Gradients of W_ih, W_hh, b_ih and b_hh from those of :meth:`pack`'s results."""
        return [W, U, bias, bias.clone()]

    def step(self, gates: torch.Tensor, h: torch.Tensor) -> None:
        """From pre-activations (batch, slots * hidden) to activations and a new h, in place."""
        gates.tanh_()
        h.copy_(gates)

    def derivatives(
        self, gates: torch.Tensor, before: torch.Tensor
    ) -> tuple[torch.Tensor, Sequence[torch.Tensor | None]]:
        """Derivatives of the new states for a number of time steps.

        Args:
            gates: (time, batch, slots * hidden), activations.
            before: (time, batch, hidden), the states before each step.

        Returns:
            With respect to the pre-activations (time, batch, slots * hidden), a new tensor; and,
            for each step, directly to the state before (batch, hidden), where None is zero.
        """
        return torch.addcmul(gates.new_ones(()), gates, gates, value=-1), [None] * len(gates)


class GRUCell(RNNCell):
    """A step of a GRU (Cho et al. 2014), with the reset gate after the product as in cuDNN.

        r = sigmoid(W_r x + b_r + U_r h + d_r)
        z = sigmoid(W_z x + b_z + U_z h + d_z)
        m = U_n h + d_n
        n = tanh(W_n x + b_n + r * m)

        h' = (1 - z) * n + z * h

    The slots are m, r, z, n: the state's product is added to the first three, and the input's to
    the last three, in PyTorch's order.
    """

    def input_slots(self, gates: torch.Tensor) -> torch.Tensor:
        return gates[..., gates.shape[-1] // 4 :]

    def state_slots(self, gates: torch.Tensor) -> torch.Tensor:
        return gates[..., : gates.shape[-1] // 4 * 3]

    def pack(self, weights: Sequence[torch.Tensor]) -> Triple:
        W, U, b, d = weights
        (b_r, b_z, b_n), (d_r, d_z, d_n) = b.chunk(3), d.chunk(3)
        return W, U.roll(len(U) // 3, 0), torch.cat((d_n, b_r + d_r, b_z + d_z, b_n))

    def unpack(self, W: torch.Tensor, U: torch.Tensor, bias: torch.Tensor) -> list[torch.Tensor]:
        hidden = len(U) // 3
        grad_d = self.state_slots(bias).roll(-hidden, 0)
        return [W, U.roll(-hidden, 0), self.input_slots(bias), grad_d]

    def step(self, gates: torch.Tensor, h: torch.Tensor) -> None:
        m, r, z, n = gates.chunk(4, dim=1)
        hidden = m.shape[1]
        gates[:, hidden : 3 * hidden].sigmoid_()  # r and z
        n.addcmul_(r, m).tanh_()
        torch.lerp(n, h, z, out=h)

    def derivatives(
        self, gates: torch.Tensor, before: torch.Tensor
    ) -> tuple[torch.Tensor, Sequence[torch.Tensor | None]]:
        m, r, z, n = gates.chunk(4, dim=2)
        result = torch.empty_like(gates)
        by_m, by_r, by_z, by_n = result.chunk(4, dim=2)
        _tanh_backward(1 - z, n, grad_input=by_n)
        torch.mul(by_n, r, out=by_m)
        _sigmoid_backward(by_n * m, r, grad_input=by_r)
        _sigmoid_backward(before - n, z, grad_input=by_z)
        return result, z.unbind()


class _Layer(torch.autograd.Function):
    """A layer in all its directions; differentiable once.

    From x (time, batch, features), finite on padding, initial states (directions, batch, hidden)
    and each direction's W_ih, W_hh, b_ih and b_hh to the output (time, batch, directions * hidden),
    zero on padding, and the final states. Products and results are in ``dtype``; states and gates
    have the precision of ``initial``.
    """

    @staticmethod
    def forward(
        ctx: Any,
        cell: RNNCell,
        x: torch.Tensor,
        index: PaddingIndex,
        initial: torch.Tensor,
        dtype: torch.dtype,
        needs_grad: bool,
        *weights: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        directions, _, hidden = initial.shape
        x = x.to(dtype)
        output = x.new_empty(*x.shape[:2], directions * hidden)

        def run(direction: int) -> Sequence[torch.Tensor]:
            reversed_index = index.reversed_index if direction == 1 else None
            inputs = reverse_reviews(x, reversed_index).flatten(0, 1)  # (time * batch, features)
            own_weights = weights_of(weights, direction)
            gates, states = _forward(cell, inputs, own_weights, initial[direction], needs_grad)
            half = output.narrow(2, direction * hidden, hidden)  # (time, batch, hidden)
            half.copy_(reverse_reviews(states[1:], reversed_index))
            if index.padded is not None:
                output.flatten(0, 1).narrow(1, direction * hidden, hidden).index_fill_(
                    0, index.padded, 0
                )
            return inputs, gates, states, states[1:].flatten(0, 1)[index.last]

        with torch.autocast(x.device.type, enabled=False):
            results = run_side_by_side(run, directions)
        if needs_grad:
            ctx.cell, ctx.index = cell, index
            saved = [tensor for result in results for tensor in result[:_SAVED_PER_DIRECTION]]
            ctx.save_for_backward(initial, *weights, *saved)
        return output, torch.stack([result[-1] for result in results])

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_output: torch.Tensor, grad_h: torch.Tensor
    ) -> tuple[torch.Tensor | None, ...]:
        initial, *rest = ctx.saved_tensors
        directions, batch, hidden = initial.shape
        num_weights = WEIGHTS_PER_DIRECTION * directions
        weights, saved = rest[:num_weights], rest[num_weights:]
        index: PaddingIndex = ctx.index

        def run(direction: int) -> Sequence[torch.Tensor]:
            reversed_index = index.reversed_index if direction == 1 else None
            half = grad_output.narrow(2, direction * hidden, hidden).to(initial.dtype)
            half = half.clone(memory_format=torch.contiguous_format)  # (time, batch, hidden)
            if index.padded is not None:
                half.view(-1, hidden).index_fill_(0, index.padded, 0)
            half = reverse_reviews(half, reversed_index)
            half.view(-1, hidden).index_add_(0, index.last, grad_h[direction].to(initial.dtype))
            inputs, gates, states = saved[_SAVED_PER_DIRECTION * direction :][:_SAVED_PER_DIRECTION]
            grad_x, *others = _backward(
                ctx.cell, weights_of(weights, direction), inputs, gates, states, half
            )
            grad_x = grad_x.view(-1, batch, grad_x.shape[1])  # (time, batch, features)
            return [reverse_reviews(grad_x, reversed_index), *others]

        with torch.autocast(initial.device.type, enabled=False):
            results = run_side_by_side(run, directions)
        grad_x = results[0][0] if directions == 1 else results[0][0] + results[1][0]
        grad_initial = torch.stack([result[1] for result in results])
        grad_weights = [tensor for result in results for tensor in result[2:]]
        return None, grad_x, None, grad_initial, None, None, *grad_weights


def _forward(
    cell: RNNCell,
    x: torch.Tensor,
    weights: Sequence[torch.Tensor],
    initial: torch.Tensor,
    needs_grad: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """One direction over x (time * batch, features).

    Returns gates (time, batch, slots * hidden), complete only with ``needs_grad``, and the states
    before and after each word (time + 1, batch, hidden).
    """
    (batch, hidden), time = initial.shape, len(x) // len(initial)
    W, U, bias = cell.pack(weights)
    W, U, bias = W.to(x.dtype).t(), U.to(x.dtype).t(), bias.to(initial.dtype)
    block = _steps_per_block(batch)
    gates = bias.new_empty(time if needs_grad else min(block, time), batch, len(bias))
    states = x.new_empty(time + 1, batch, hidden)
    states[0] = initial
    state = initial.clone()
    for start in range(0, time, block):
        stop = min(start + block, time)
        current = gates[start:stop] if needs_grad else gates[: stop - start]
        current.copy_(bias)
        _add_product(cell.input_slots(current.flatten(0, 1)), x[start * batch : stop * batch], W)
        for step in range(stop - start):
            _add_product(cell.state_slots(current[step]), states[start + step], U)
            cell.step(current[step], state)
            states[start + step + 1].copy_(state)
    return gates, states


def _backward(
    cell: RNNCell,
    weights: Sequence[torch.Tensor],
    x: torch.Tensor,
    gates: torch.Tensor,
    states: torch.Tensor,
    grad_output: torch.Tensor,
) -> list[torch.Tensor]:
    """One direction, given the gradient of its output (time, batch, hidden).

    Returns gradients of x (time * batch, features), of the initial states (batch, hidden) and of
    the four weights.
    """
    time, batch, hidden = grad_output.shape
    W, U, _ = (weight.to(x.dtype) for weight in cell.pack(weights))
    grad_x, grad_bias = torch.empty_like(x), gates.new_zeros(gates.shape[2])
    grad_W, grad_U = torch.zeros_like(weights[0]), torch.zeros_like(weights[1])
    grad_state = torch.zeros_like(grad_output[0])  # (batch, hidden), from later steps
    block = _steps_per_block(batch)
    for start in reversed(range(0, time, block)):
        stop = min(start + block, time)
        before = states[start:stop]
        # Multiplied in place by the gradient of the state, derivatives become gradients.
        grad_gates, direct = cell.derivatives(gates[start:stop], before.to(gates.dtype))
        factors = grad_gates.to(x.dtype)  # the same tensor if it has this precision
        by_slot = grad_gates.unflatten(2, (-1, hidden))  # (steps, batch, slots, hidden)
        for step in reversed(range(stop - start)):
            grad_state = grad_state + grad_output[start + step]
            by_slot[step].mul_(grad_state.unsqueeze(1))
            if factors is not grad_gates:
                factors[step].copy_(grad_gates[step])
            path = direct[step]
            grad_state = torch.zeros_like(grad_state) if path is None else grad_state * path
            _add_product(grad_state, cell.state_slots(factors[step]), U)
        rows = factors.flatten(0, 1)  # (steps * batch, slots * hidden)
        words = slice(start * batch, stop * batch)
        torch.mm(cell.input_slots(rows), W, out=grad_x[words])
        _add_product(grad_W, cell.input_slots(rows).t(), x[words])
        _add_product(grad_U, cell.state_slots(rows).t(), before.flatten(0, 1))
        grad_bias += grad_gates.sum(dim=(0, 1))
    return [grad_x, grad_state, *cell.unpack(grad_W, grad_U, grad_bias)]


def _add_product(total: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> None:
    """Add a @ b, whose precision may be lower."""
    if total.dtype == a.dtype:
        total.addmm_(a, b)
    else:
        total += a @ b


def _steps_per_block(batch: int) -> int:
    return max(1, _ROWS_PER_BLOCK // batch)


class _PackedRNNBase(VariableLengthRNN):
    cell: ClassVar[RNNCell]

    def forward(
        self, x: torch.Tensor, lengths: torch.Tensor, initial: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Run over a batch; as in ``PackedLSTM``, but initial and final states are h alone."""
        self.check(x, lengths, initial)
        if x.is_cuda:
            return self.run_cudnn(x, lengths, initial)
        x = x.transpose(0, 1)  # (time, batch, input_size)
        time, batch, _ = x.shape
        index = index_padding(lengths, time, x.device, with_reversed=self.bidirectional)
        dtype = matmul_dtype(x)
        if index.padded is not None:  # the padding may hold anything
            x = x.flatten(0, 1).index_fill(0, index.padded, 0.0).view_as(x)
        if initial is None:
            initial = next(self.parameters()).new_zeros(
                self.num_layers * self.directions, batch, self.hidden_size
            )
        finals: list[torch.Tensor] = []
        for layer, start in enumerate(initial.split(self.directions)):
            if layer > 0:
                x = dropout(x, self.dropout, self.training)
            weights = self.layer_weights(layer)
            needs_grad = torch.is_grad_enabled() and any(
                tensor.requires_grad for tensor in (x, start, *weights)
            )
            x, h = _Layer.apply(self.cell, x, index, start, dtype, needs_grad, *weights)
            finals.append(h)  # x: (time, batch, directions * hidden)
        return x.transpose(0, 1), torch.cat(finals)


class PackedGRU(_PackedRNNBase, nn.GRU):  # type: ignore[misc]  # forward takes lengths
    """``nn.GRU`` on padded batches with lengths, equal to ``nn.GRU`` on the ``PackedSequence``."""

    cell = GRUCell()


class PackedRNN(_PackedRNNBase, nn.RNN):  # type: ignore[misc]
    """``nn.RNN`` (tanh) on padded batches with lengths, equal to it on the ``PackedSequence``."""

    cell = RNNCell()
