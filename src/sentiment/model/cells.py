"""What one step of a GRU or of a plain RNN computes, and how it slopes.

A cell keeps, of each step, as many slots of hidden values as its slopes need. The product with the
input reaches some of them and the product with the state before some, which may overlap. Products
are made by :mod:`sentiment.model.cell_loops`; here is what lies between them.

Legend: gates is 3 of a GRU and 1 of an RNN; slots is 4 and 1.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch

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
