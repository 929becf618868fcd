"""The LSTM as its papers write it, one word after the other, with every gate to look at.

For reading, checking and explaining. :class:`sentiment.model.PackedLSTM` computes the same much
faster, but inside a kernel that keeps its gates to itself.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import nn

from sentiment.model.rnn_base import VariableLengthRNN

States = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Gates:
    """What an LSTM computes at a word, or at each word of a batch of reviews.

    Attributes:
        forget: f, the share of the old cell state that is kept, from 0 to 1.
        input: i, the share of the candidate that is added, from 0 to 1.
        candidate: g, what the word would write into the cell state, from -1 to 1.
        output: o, the share of the cell state that is shown, from 0 to 1.
        cell: c, the new cell state.
        hidden: h, the new hidden state, which is also the output.
    """

    forget: torch.Tensor
    input: torch.Tensor
    candidate: torch.Tensor
    output: torch.Tensor
    cell: torch.Tensor
    hidden: torch.Tensor


def lstm_cell(
    x: torch.Tensor, h: torch.Tensor, c: torch.Tensor, weights: list[torch.Tensor]
) -> Gates:
    """One step of an LSTM.

        i = sigmoid(W_i x + b_i + U_i h + d_i)
        f = sigmoid(W_f x + b_f + U_f h + d_f)
        g =    tanh(W_g x + b_g + U_g h + d_g)
        o = sigmoid(W_o x + b_o + U_o h + d_o)

        c' = f * c + i * g
        h' = o * tanh(c')

    after Hochreiter & Schmidhuber (1997); the forget gate is from Gers, Schmidhuber & Cummins
    (2000). The two biases b and d are PyTorch's, which has them from cuDNN: one would do.

    Args:
        x: (batch, input_size), a word of each review.
        h, c: (batch, hidden_size), the states that the word meets.
        weights: W (4 * hidden_size, input_size), U (4 * hidden_size, hidden_size), b and d
            (4 * hidden_size,), each with its rows in the order i, f, g, o.

    Returns:
        Each (batch, hidden_size).
    """
    W, U, b, d = weights
    sums = nn.functional.linear(x, W, b) + nn.functional.linear(h, U, d)  # (batch, 4 * hidden)
    sum_i, sum_f, sum_g, sum_o = sums.chunk(4, dim=1)
    i, f, g, o = sum_i.sigmoid(), sum_f.sigmoid(), sum_g.tanh(), sum_o.sigmoid()
    new_c = f * c + i * g
    new_h = o * new_c.tanh()
    return Gates(forget=f, input=i, candidate=g, output=o, cell=new_c, hidden=new_h)


class ReferenceLSTM(VariableLengthRNN, nn.LSTM):
    """:class:`sentiment.model.PackedLSTM` written to be read: same weights, call and results."""

    def forward(  # type: ignore[override]
        self, x: torch.Tensor, lengths: torch.Tensor, initial: States | None = None
    ) -> tuple[torch.Tensor, States]:
        """Run over a batch: arguments, results and errors are those of ``PackedLSTM``."""
        layers, h, c = self._walk_layers(x, lengths, initial)
        output = torch.cat([gates.hidden for gates in layers[-1]], dim=2)
        return output, (torch.stack(h), torch.stack(c))

    def trace(
        self, x: torch.Tensor, lengths: torch.Tensor, initial: States | None = None
    ) -> tuple[tuple[Gates, ...], ...]:
        """All gates and states on the way.

        Args:
            x: (batch, time, input_size); what it holds past each length is not read.
            lengths: (batch,) integers on the CPU, from 1 to time, in any order.
            initial: h and c, (num_layers * directions, batch, hidden_size) each; None is zero.

        Returns:
            Indexed ``[layer][direction]``, 0 being forward and 1 reverse. Each tensor is
            (batch, time, hidden_size), zero past each length; what stands at t belongs to word t
            in both directions, so that the reverse cell state of word t comes from word t + 1.

        Raises:
            ValueError: the shapes do not fit or a length lies outside 1 to time.
        """
        return tuple(self._walk_layers(x, lengths, initial)[0])

    def _walk_layers(
        self, x: torch.Tensor, lengths: torch.Tensor, initial: States | None
    ) -> tuple[list[tuple[Gates, ...]], list[torch.Tensor], list[torch.Tensor]]:
        """Gates of each layer, and final h and c of each layer's directions."""
        self.check(x, lengths, *(initial or ()))
        is_word = torch.arange(x.shape[1]) < lengths.unsqueeze(1)
        is_word = is_word.to(x.device).unsqueeze(2)  # (batch, time, 1)
        x = x.masked_fill(~is_word, 0.0)  # the padding may hold anything
        if initial is None:
            zeros = x.new_zeros(self.num_layers * self.directions, x.shape[0], self.hidden_size)
            initial = zeros, zeros
        layers: list[tuple[Gates, ...]] = []
        h: list[torch.Tensor] = []
        c: list[torch.Tensor] = []
        for layer in range(self.num_layers):
            if layer > 0:
                x = nn.functional.dropout(x, self.dropout, self.training)
            weights = self.layer_weights(layer)
            of_layer = []
            for direction in range(self.directions):
                number = len(h)
                gates, last_h, last_c = walk(
                    x,
                    is_word,
                    initial[0][number],
                    initial[1][number],
                    weights[4 * direction : 4 * direction + 4],
                    reverse=direction == 1,
                )
                of_layer.append(gates)
                h.append(last_h)
                c.append(last_c)
            layers.append(tuple(of_layer))
            x = torch.cat([gates.hidden for gates in of_layer], dim=2)  # (b, t, directions * h)
        return layers, h, c


def walk(
    x: torch.Tensor,
    is_word: torch.Tensor,
    h: torch.Tensor,
    c: torch.Tensor,
    weights: list[torch.Tensor],
    *,
    reverse: bool,
) -> tuple[Gates, torch.Tensor, torch.Tensor]:
    """One direction of one layer, word by word; where a review has no word its states rest.

    So the reverse direction, which meets the padding first, brings the initial states to each
    review's own last word.

    Args:
        x: (batch, time, features).
        is_word: (batch, time, 1), false on padding.
        h, c: (batch, hidden), the initial states.
        weights: those of :func:`lstm_cell`.
        reverse: whether to go from the end to the beginning.

    Returns:
        The gates, (batch, time, hidden) each and zero on padding, and the final h and c.
    """
    # Taken apart at once: the gradient of each x[:, t] would be as large as x.
    words = list(zip(x.unbind(dim=1), is_word.unbind(dim=1), strict=True))
    at_word: list[Gates] = []
    for word, is_there in reversed(words) if reverse else words:
        gates = lstm_cell(word, h, c, weights)
        h = torch.where(is_there, gates.hidden, h)
        c = torch.where(is_there, gates.cell, c)
        at_word.append(gates)
    if reverse:
        at_word.reverse()
    over_time = {
        each.name: torch.stack([getattr(gates, each.name) for gates in at_word], dim=1)
        for each in fields(Gates)
    }
    return Gates(**{name: kept * is_word for name, kept in over_time.items()}), h, c
