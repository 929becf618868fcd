"""A layer of GRU or plain RNN cells over padded reviews, its directions side by side.

oneDNN's kernel, as torch has it, knows the LSTM alone; and torch's own loop over other cells leaves
each step's products and gates to autograd, which spends more time on keeping books and on adding up
the gradients of the weights than on arithmetic. So both loops are written out. A step is a product
and a few operations in place. All that no other step waits for, the products with the input and
those for the gradients of the weights, is done for a block of steps at once, which is large enough
for efficient products and small enough to stay in the processor's cache.

The reverse direction runs forward over reviews turned round, each within its own length. So the
padding comes last in both directions, where no word depends on it and no gradient comes from.

Legend: directions is 2 if bidirectional, else 1; gates and slots are those of the cell. Time
stands first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from sentiment.model.cells import Cell
from sentiment.model.ragged import Places
from sentiment.model.side_by_side import run_side_by_side

_ROWS_OF_BLOCK = 1024  # of time * batch
_PER_DIRECTION = 4  # weights W_ih, W_hh, b_ih, b_hh
_KEPT = 3  # x as the direction read it, what the cell kept, its states


def run_layer(
    cell: Cell,
    x: torch.Tensor,
    places: Places,
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
        places: Places,
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
        places: Places = ctx.places

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
