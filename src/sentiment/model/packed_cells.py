"""GRU and plain RNN over reviews of different lengths, as :mod:`sentiment.model.packed_lstm`."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn

from sentiment.model.cell_loops import run_layer
from sentiment.model.cells import Cell, GRUCell, RNNCell
from sentiment.model.dropout import dropout
from sentiment.model.ragged import RaggedRecurrence, find_places, multiplied_in


class PackedCell(RaggedRecurrence):
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
