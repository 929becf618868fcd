"""GRU and plain RNN over sequences of different lengths."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from sentiment.model.layers import dropout
from sentiment.model.onednn import run_side_by_side
from sentiment.model.rnn_base import PaddingIndex, VariableLengthRNN, find_places, multiplied_in

_sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input
_tanh_backward = torch.ops.aten.tanh_backward.grad_input

Pair = tuple[torch.Tensor, torch.Tensor]


class Cell(ABC):
    """A step of a recurrence, with PyTorch's weights."""

    @abstractmethod
    def of_input(self, slots: torch.Tensor) -> torch.Tensor:
        """(..., gates * hidden), the slots that the product with the input reaches."""

    @abstractmethod
    def of_state(self, slots: torch.Tensor) -> torch.Tensor:
        """(..., gates * hidden), the slots that the product with the state before reaches."""

    @abstractmethod
    def to_slots(self, U: torch.Tensor) -> torch.Tensor:
        """W_hh (gates * hidden, hidden) with its rows in the order of the slots."""

    @abstractmethod
    def from_slots(self, U: torch.Tensor) -> torch.Tensor:
        """What :meth:`to_slots` does, undone."""

    @abstractmethod
    def join_biases(self, b: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
        """b_ih and b_hh (gates * hidden,) as one bias (slots * hidden,)."""

    @abstractmethod
    def split_biases(self, gradient: torch.Tensor) -> Pair:
        """The gradient of the joint bias as those of b_ih and b_hh."""

    @abstractmethod
    def step(self, slots: torch.Tensor, before: torch.Tensor, after: torch.Tensor) -> None:
        """From sums to a new state, in place.

        Args:
            slots: (batch, slots * hidden), both products and the bias; holds what is kept after.
            before: (batch, hidden), the state before.
            after: (batch, hidden) to be filled with the new state; may be ``before``.
        """

    @abstractmethod
    def slopes(self, kept: torch.Tensor, before: torch.Tensor) -> tuple[torch.Tensor, Sequence]:
        """What the gradient of a new state is multiplied by, for any number of steps.

        Args:
            kept: (time, batch, slots * hidden), as :meth:`step` left it.
            before: (time, batch, hidden), the states before.

        Returns:
            The slopes towards the sums (time, batch, slots * hidden), a tensor of its own, and
            for each step that past them to the state before, (batch, hidden) or None for zero.
        """


class GRUCell(Cell):
    """Cho et al. (2014), with the reset gate behind the product as in cuDNN and PyTorch.

        r = sigmoid(W_r x + b_r + U_r h + d_r)
        z = sigmoid(W_z x + b_z + U_z h + d_z)
        m = U_n h + d_n
        n = tanh(W_n x + b_n + r * m)

        h' = (1 - z) * n + z * h

    Slots are m, r, z, n: the state reaches the first three, and the input the last three in
    PyTorch's own order.
    """

    def of_input(self, slots: torch.Tensor) -> torch.Tensor:
        return slots[..., slots.shape[-1] // 4 :]

    def of_state(self, slots: torch.Tensor) -> torch.Tensor:
        return slots[..., : slots.shape[-1] // 4 * 3]

    def to_slots(self, U: torch.Tensor) -> torch.Tensor:
        return U.roll(U.shape[0] // 3, 0)

    def from_slots(self, U: torch.Tensor) -> torch.Tensor:
        return U.roll(-(U.shape[0] // 3), 0)

    def join_biases(self, b: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
        (b_r, b_z, b_n), (d_r, d_z, d_n) = b.chunk(3), d.chunk(3)
        return torch.cat((d_n, b_r + d_r, b_z + d_z, b_n))

    def split_biases(self, gradient: torch.Tensor) -> Pair:
        return self.of_input(gradient), self.from_slots(self.of_state(gradient))

    def step(self, slots: torch.Tensor, before: torch.Tensor, after: torch.Tensor) -> None:
        m, r, z, n = slots.chunk(4, dim=1)
        hidden = m.shape[1]
        slots[:, hidden : 3 * hidden].sigmoid_()  # r and z at once
        n.addcmul_(r, m).tanh_()
        torch.lerp(n, before, z, out=after)

    def slopes(self, kept: torch.Tensor, before: torch.Tensor) -> tuple[torch.Tensor, Sequence]:
        m, r, z, n = kept.chunk(4, dim=2)
        found = torch.empty_like(kept)
        to_m, to_r, to_z, to_n = found.chunk(4, dim=2)
        _tanh_backward(1 - z, n, grad_input=to_n)
        torch.mul(to_n, r, out=to_m)
        _sigmoid_backward(to_n * m, r, grad_input=to_r)
        _sigmoid_backward(before - n, z, grad_input=to_z)
        return found, z.unbind()


class RNNCell(Cell):
    """Elman (1990): h' = tanh(W x + b + U h + d), kept in the one slot."""

    def of_input(self, slots: torch.Tensor) -> torch.Tensor:
        return slots

    def of_state(self, slots: torch.Tensor) -> torch.Tensor:
        return slots

    def to_slots(self, U: torch.Tensor) -> torch.Tensor:
        return U

    def from_slots(self, U: torch.Tensor) -> torch.Tensor:
        return U

    def join_biases(self, b: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
        return b + d

    def split_biases(self, gradient: torch.Tensor) -> Pair:
        return gradient, gradient.clone()

    def step(self, slots: torch.Tensor, before: torch.Tensor, after: torch.Tensor) -> None:
        slots.tanh_()
        after.copy_(slots)

    def slopes(self, kept: torch.Tensor, before: torch.Tensor) -> tuple[torch.Tensor, Sequence]:
        found = torch.addcmul(kept.new_ones(()), kept, kept, value=-1)
        return found, [None] * len(kept)


_ROWS_OF_BLOCK = 1024  # of time * batch
_PER_DIRECTION = 4  # weights W_ih, W_hh, b_ih, b_hh
_KEPT = 3  # x as the direction read it, what the cell kept, its states


def run_layer(
    cell: Cell,
    x: torch.Tensor,
    places: PaddingIndex,
    weights: Sequence[torch.Tensor],
    initial: torch.Tensor,
    dtype: torch.dtype,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run a layer in all its directions; differentiable once.

    Args:
        cell: what a step computes.
        x: (time, batch, features), finite in padded rows.
        places: where the reviews end, and how they are turned where there are two directions.
        weights: W_ih (gates * hidden, features), W_hh (gates * hidden, hidden), b_ih and b_hh
            (gates * hidden,) of each direction.
        initial: (directions, batch, hidden), the states before the first word.
        dtype: what to multiply in; states and gates are in the precision of ``initial``.

    Returns:
        output (time, batch, directions * hidden), zero in padded rows, and h
        (directions, batch, hidden), the final states: both in ``dtype``.
    """
    is_recorded = torch.is_grad_enabled() and any(
        each.requires_grad for each in (x, initial, *weights)
    )
    return _Layer.apply(cell, x, places, initial, dtype, is_recorded, *weights)


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        cell: Cell,
        x: torch.Tensor,
        places: PaddingIndex,
        initial: torch.Tensor,
        dtype: torch.dtype,
        is_recorded: bool,
        *weights: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        directions, _, hidden = initial.shape
        read = x.to(dtype).flatten(0, 1)  # (time * batch, features)
        output = read.new_empty(*x.shape[:2], directions * hidden)
        rows = output.flatten(0, 1)

        def run(direction: int) -> Sequence[torch.Tensor]:
            turned = places.turned if direction == 1 else None
            own = _turn(read, turned)
            factors = _of_direction(weights, direction)
            kept, states = _forward(cell, own, factors, initial[direction], is_recorded)
            half = rows.narrow(1, direction * hidden, hidden)
            found = states[1:].flatten(0, 1)
            half.copy_(_turn(found, turned))
            if places.padded is not None:
                half.index_fill_(0, places.padded, 0)
            return own, kept, states, found[places.last]

        with torch.autocast(x.device.type, enabled=False):
            results = run_side_by_side(run, directions)
        if is_recorded:
            ctx.cell, ctx.places = cell, places
            saved = [tensor for each in results for tensor in each[:_KEPT]]
            ctx.save_for_backward(initial, *weights, *saved)
        return output, torch.stack([each[-1] for each in results])

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, of_output: torch.Tensor, of_h: torch.Tensor
    ) -> tuple[torch.Tensor | None, ...]:
        initial, *rest = ctx.saved_tensors
        directions, batch, hidden = initial.shape
        weights, saved = rest[: _PER_DIRECTION * directions], rest[_PER_DIRECTION * directions :]
        places: PaddingIndex = ctx.places

        def run(direction: int) -> Sequence[torch.Tensor]:
            turned = places.turned if direction == 1 else None
            half = of_output.narrow(2, direction * hidden, hidden).to(initial.dtype)
            half = half.clone(memory_format=torch.contiguous_format)
            rows = half.view(-1, hidden)
            if places.padded is not None:
                rows.index_fill_(0, places.padded, 0)
            rows = _turn(rows, turned)
            rows.index_add_(0, places.last, of_h[direction].to(initial.dtype))
            factors = _of_direction(weights, direction)
            own, kept, states = saved[_KEPT * direction : _KEPT * (direction + 1)]
            of_x, *others = _backward(ctx.cell, factors, own, kept, states, rows.view_as(half))
            return [_turn(of_x, turned).view(-1, batch, of_x.shape[1]), *others]

        with torch.autocast(initial.device.type, enabled=False):
            gradients = run_side_by_side(run, directions)
        of_x = [each[0] for each in gradients]
        total = of_x[0] if directions == 1 else of_x[0] + of_x[1]
        of_initial = torch.stack([each[1] for each in gradients])
        of_weights = [tensor for each in gradients for tensor in each[2:]]
        return None, total, None, of_initial, None, None, *of_weights


def _forward(
    cell: Cell,
    x: torch.Tensor,
    weights: Sequence[torch.Tensor],
    initial: torch.Tensor,
    is_recorded: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """One direction over x (time * batch, features).

    Returns:
        What the cell kept (time, batch, slots * hidden), of use only if it is recorded, and the
        states before and after the words (time + 1, batch, hidden).
    """
    (batch, hidden), time = initial.shape, len(x) // len(initial)
    W, U = weights[0].to(x.dtype).t(), cell.to_slots(weights[1]).to(x.dtype).t()
    bias = cell.join_biases(weights[2], weights[3]).to(initial.dtype)  # (slots * hidden,)
    block = _steps_of_block(batch)
    kept = bias.new_empty(time if is_recorded else min(block, time), batch, len(bias))
    states = x.new_empty(time + 1, batch, hidden)
    states[0] = initial
    state = initial.clone()
    for start in range(0, time, block):
        stop = min(start + block, time)
        slots = kept[start:stop] if is_recorded else kept[: stop - start]
        slots.copy_(bias)
        _add_product(cell.of_input(slots.flatten(0, 1)), x[start * batch : stop * batch], W)
        for step in range(stop - start):
            _add_product(cell.of_state(slots[step]), states[start + step], U)
            cell.step(slots[step], state, state)
            states[start + step + 1].copy_(state)
    return kept, states


def _backward(
    cell: Cell,
    weights: Sequence[torch.Tensor],
    x: torch.Tensor,
    kept: torch.Tensor,
    states: torch.Tensor,
    of_states: torch.Tensor,
) -> list[torch.Tensor]:
    """One direction, given the gradient of its outputs (time, batch, hidden).

    Returns:
        Gradients of x (time * batch, features), of the initial states (batch, hidden) and of the
        four weights.
    """
    time, batch, hidden = of_states.shape
    W, U = weights[0].to(x.dtype), cell.to_slots(weights[1]).to(x.dtype)
    of_x, of_bias = torch.empty_like(x), kept.new_zeros(kept.shape[2])
    of_W, of_U = torch.zeros_like(weights[0]), torch.zeros_like(weights[1])
    of_state = torch.zeros_like(of_states[0])  # (batch, hidden), from the steps behind
    block = _steps_of_block(batch)
    for start in reversed(range(0, time, block)):
        stop = min(start + block, time)
        before = states[start:stop]
        # The gradients of the sums are the slopes times the gradient of the state, in place.
        of_sums, past = cell.slopes(kept[start:stop], before.to(kept.dtype))
        factors = of_sums.to(x.dtype)  # the same tensor, if that is its precision
        by_slot = of_sums.unflatten(2, (-1, hidden))  # (steps, batch, slots, hidden)
        for step in reversed(range(stop - start)):
            of_state = of_state + of_states[start + step]
            by_slot[step].mul_(of_state.unsqueeze(1))
            if factors is not of_sums:
                factors[step].copy_(of_sums[step])
            of_state = torch.zeros_like(of_state) if past[step] is None else of_state * past[step]
            _add_product(of_state, cell.of_state(factors[step]), U)
        rows = factors.flatten(0, 1)
        words = slice(start * batch, stop * batch)
        torch.mm(cell.of_input(rows), W, out=of_x[words])
        _add_product(of_W, cell.of_input(rows).t(), x[words])
        _add_product(of_U, cell.of_state(rows).t(), before.flatten(0, 1))
        of_bias += of_sums.sum(dim=(0, 1))
    return [of_x, of_state, of_W, cell.from_slots(of_U), *cell.split_biases(of_bias)]


def _add_product(total: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> None:
    """Add a @ b, whose precision may be lower."""
    if total.dtype == a.dtype:
        total.addmm_(a, b)
    else:
        total += a @ b


def _steps_of_block(batch: int) -> int:
    return max(1, _ROWS_OF_BLOCK // batch)


def _turn(rows: torch.Tensor, turned: torch.Tensor | None) -> torch.Tensor:
    return rows if turned is None else rows[turned]


def _of_direction(weights: Sequence[torch.Tensor], direction: int) -> Sequence[torch.Tensor]:
    return weights[_PER_DIRECTION * direction : _PER_DIRECTION * (direction + 1)]


class PackedCell(VariableLengthRNN):
    """What :class:`PackedGRU` and :class:`PackedRNN` share: all but the cell."""

    cell: ClassVar[Cell]

    def forward(
        self, x: torch.Tensor, lengths: torch.Tensor, initial: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Run over a batch.

        Legend: directions is 2 if bidirectional, else 1.

        Args:
            x: (batch, time, input_size); what it holds past each length is not read.
            lengths: (batch,) integers on the CPU, from 1 to time, in any order.
            initial: (num_layers * directions, batch, hidden_size), the states before the first
                word that each direction reads; None is zero.

        Returns:
            output: (batch, time, directions * hidden_size), zero past each length.
            h: (num_layers * directions, batch, hidden_size), the final states.

        Raises:
            ValueError: the shapes do not fit or a length lies outside 1 to time.
        """
        self.check(x, lengths, initial)
        if x.is_cuda:
            return self.run_cudnn(x, lengths, initial)
        x = x.transpose(0, 1)  # (time, batch, input_size)
        time, batch, _ = x.shape
        places = find_places(lengths, time, x.device, with_turned=self.bidirectional)
        dtype = multiplied_in(x)
        if places.padded is not None:  # the padding may hold anything
            x = x.flatten(0, 1).index_fill(0, places.padded, 0.0).view_as(x)
        if initial is None:
            initial = next(self.parameters()).new_zeros(
                self.num_layers * self.directions, batch, self.hidden_size
            )
        finals: list[torch.Tensor] = []
        for layer, start in enumerate(initial.split(self.directions)):
            if layer > 0:
                x = dropout(x, self.dropout, self.training)
            x, h = run_layer(self.cell, x, places, self.layer_weights(layer), start, dtype)
            finals.append(h)
        return x.transpose(0, 1), torch.cat(finals)


class PackedGRU(PackedCell, nn.GRU):  # type: ignore[misc]  # forward takes lengths
    """``nn.GRU`` on padded batches with lengths, equal to ``nn.GRU`` on the ``PackedSequence``."""

    cell = GRUCell()


class PackedRNN(PackedCell, nn.RNN):  # type: ignore[misc]
    """``nn.RNN`` with tanh, equal to it on the ``PackedSequence``; padded batches, lengths."""

    cell = RNNCell()
