"""The LSTM as the papers write it, one word at a time, with all its gates.

For reading, checking and explaining; :class:`sentiment.model.PackedLSTM` computes the same much
faster, in a kernel that does not return the gates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import nn

from sentiment.model.rnn_base import States, VariableLengthRNN, weights_of


@dataclass(frozen=True)
class Gates:
    """Gates and states of an LSTM, at one word or at each word of a batch."""

    forget: torch.Tensor  # f, the share of the old cell state that is kept, from 0 to 1
    input: torch.Tensor  # i, the share of the candidate that is added, from 0 to 1
    candidate: torch.Tensor  # g, the values to add to the cell state, from -1 to 1
    output: torch.Tensor  # o, the share of the cell state that is output, from 0 to 1
    cell: torch.Tensor  # c, the new cell state
    hidden: torch.Tensor  # h, the new hidden state, which is the output


def lstm_cell(
    x: torch.Tensor, h: torch.Tensor, c: torch.Tensor, weights: Sequence[torch.Tensor]
) -> Gates:
    """One step of an LSTM.

        i = sigmoid(W_i x + b_i + U_i h + d_i)
        f = sigmoid(W_f x + b_f + U_f h + d_f)
        g =    tanh(W_g x + b_g + U_g h + d_g)
        o = sigmoid(W_o x + b_o + U_o h + d_o)

        c' = f * c + i * g
        h' = o * tanh(c')

    after Hochreiter & Schmidhuber (1997); the forget gate is from Gers, Schmidhuber & Cummins
    (2000). PyTorch has two biases b and d, like cuDNN, where one would be enough.

    Args:
        x: (batch, input_size), one word of each review.
        h, c: (batch, hidden_size), the states before the word.
        weights: W (4 * hidden_size, input_size), U (4 * hidden_size, hidden_size), b and d
            (4 * hidden_size,), with rows in the order i, f, g, o.
    """
    W, U, b, d = weights
    sums = nn.functional.linear(x, W, b) + nn.functional.linear(h, U, d)  # (batch, 4 * hidden)
    sum_i, sum_f, sum_g, sum_o = sums.chunk(4, dim=1)
    i, f, g, o = sum_i.sigmoid(), sum_f.sigmoid(), sum_g.tanh(), sum_o.sigmoid()
    new_c = f * c + i * g
    new_h = o * new_c.tanh()
    return Gates(forget=f, input=i, candidate=g, output=o, cell=new_c, hidden=new_h)


class ReferenceLSTM(VariableLengthRNN, nn.LSTM):
    """A readable :class:`sentiment.model.PackedLSTM`: same weights, arguments and results."""

    def forward(  # type: ignore[override]
        self, x: torch.Tensor, lengths: torch.Tensor, initial: States | None = None
    ) -> tuple[torch.Tensor, States]:
        """Run over a batch; arguments, results and errors are those of ``PackedLSTM``."""
        layers, h, c = self._run_layers(x, lengths, initial)
        output = torch.cat([gates.hidden for gates in layers[-1]], dim=2)
        return output, (torch.stack(h), torch.stack(c))

    def trace(
        self, x: torch.Tensor, lengths: torch.Tensor, initial: States | None = None
    ) -> tuple[tuple[Gates, ...], ...]:
        """The gates and states of each layer and direction; arguments as in :meth:`forward`.

        They are indexed ``[layer][direction]``, where 0 is forward and 1 is reverse. Each tensor is
        (batch, time, hidden_size), zero past each length. Values at t belong to word t in both
        directions: the reverse cell state of word t follows that of word t + 1.
        """
        return tuple(self._run_layers(x, lengths, initial)[0])

    def _run_layers(
        self, x: torch.Tensor, lengths: torch.Tensor, initial: States | None
    ) -> tuple[list[tuple[Gates, ...]], list[torch.Tensor], list[torch.Tensor]]:
        """The gates of each layer, and the final h and c of each layer and direction."""
        self.check(x, lengths, *(initial or ()))
        is_word = torch.arange(x.shape[1]) < lengths.unsqueeze(1)
        is_word = is_word.to(x.device).unsqueeze(2)  # (batch, time, 1)
        x = x.masked_fill(~is_word, 0.0)  # the padding may hold anything
        if initial is None:
            zeros = x.new_zeros(self.num_layers * self.directions, x.shape[0], self.hidden_size)
            initial = zeros, zeros
        layers: list[tuple[Gates, ...]] = []
        final_h: list[torch.Tensor] = []
        final_c: list[torch.Tensor] = []
        for layer in range(self.num_layers):
            if layer > 0:
                x = nn.functional.dropout(x, self.dropout, self.training)
            weights = self.layer_weights(layer)
            by_direction = []
            for direction in range(self.directions):
                h, c = (states[len(final_h)] for states in initial)  # (batch, hidden)
                direction_weights = weights_of(weights, direction)
                gates, h, c = run_direction(
                    x, is_word, h, c, direction_weights, reverse=direction == 1
                )
                by_direction.append(gates)
                final_h.append(h)
                final_c.append(c)
            layers.append(tuple(by_direction))
            x = torch.cat([gates.hidden for gates in by_direction], dim=2)
            # (batch, time, directions * hidden)
        return layers, final_h, final_c


def run_direction(
    x: torch.Tensor,
    is_word: torch.Tensor,
    h: torch.Tensor,
    c: torch.Tensor,
    weights: Sequence[torch.Tensor],
    *,
    reverse: bool,
) -> tuple[Gates, torch.Tensor, torch.Tensor]:
    """One direction of one layer, word by word; padding leaves the states unchanged.

    So the reverse direction, which reads the padding first, brings the initial states h and c
    (batch, hidden) to each review's last word.

    Args:
        x: (batch, time, features).
        is_word: (batch, time, 1), false on padding.
        weights: as in :func:`lstm_cell`.

    Returns:
        The gates, (batch, time, hidden) each and zero on padding, and the final h and c.
    """
    # Unbound at once, because the gradient of each x[:, t] would be as large as x.
    steps = list(zip(x.unbind(dim=1), is_word.unbind(dim=1), strict=True))
    gates_by_word: list[Gates] = []
    for word, is_word_now in reversed(steps) if reverse else steps:
        gates = lstm_cell(word, h, c, weights)
        h = torch.where(is_word_now, gates.hidden, h)
        c = torch.where(is_word_now, gates.cell, c)
        gates_by_word.append(gates)
    if reverse:
        gates_by_word.reverse()
    stacked = {
        field.name: torch.stack([getattr(gates, field.name) for gates in gates_by_word], dim=1)
        for field in fields(Gates)
    }  # (batch, time, hidden) each
    return Gates(**{name: values * is_word for name, values in stacked.items()}), h, c
