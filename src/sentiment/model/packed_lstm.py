"""An LSTM over reviews of different lengths: exact, and as fast as the device's own kernel.

PyTorch's way to give an LSTM reviews of different lengths is the ``PackedSequence``. cuDNN runs it
at full speed, but elsewhere it is cut into one slice a time step, and the backward of each slice
fills a gradient as large as the whole input: the cost grows with the square of the length
(pytorch/pytorch issue 149194). The kernel for padded batches is some 25 times faster, but reads
the padding: final states are those after it, and the reverse direction starts in it.

So we let the padded kernel run and make the cell ignore the padding. The cell state follows

    c_t = f_t * c_(t-1) + i_t * g_t        h_t = o_t * tanh(c_t)

with gates i, f, o = sigmoid(W x_t + U h_(t-1) + b). One more input, 1 on padding and 0 on words,
with weights -10,000 to the input gate and +10,000 to the forget gate, makes i exactly 0 and f
exactly 1 there: the cell state stands still, to the bit. Hence

- forward, the cell state after the padding is that of the review's last word;
- in reverse, the padding comes first, the cell state stays at its zero start, and with it
  h = o * tanh(0) = 0: the last word meets the states that a review alone would bring it.

Initial states other than zero would not survive that: o * tanh(c) is not the h of before. With
them the reverse direction runs forward over the reviews turned round, each within its own length.

On words the extra input is 0 and adds nothing. Gradients are exact too: sigmoid is flat out there,
so none flows into the padding but the one passed on by f = 1. What remains is to zero the outputs
on padding and to pick the last word's h out of the outputs.

On a CPU directions and halves of a batch run side by side (:mod:`sentiment.model.onednn`).
"""

from __future__ import annotations

import torch
from torch import nn

from sentiment.model.layers import dropout
from sentiment.model.onednn import choose_dtype, count_parts, run_layer
from sentiment.model.rnn_base import (
    PaddingIndex,
    VariableLengthRNN,
    cut_batch,
    find_places,
    multiplied_in,
)

# Far beyond where sigmoid is 0 or 1 to the last bit (about 104 in fp32), far within bf16 and fp16.
_SATURATING = 10_000.0

States = tuple[torch.Tensor, torch.Tensor]


class PackedLSTM(VariableLengthRNN, nn.LSTM):
    """``nn.LSTM`` on padded batches with lengths, equal to ``nn.LSTM`` on the ``PackedSequence``.

    Parameters have the names and shapes of ``nn.LSTM``, so state dicts fit both ways.

    Args:
        input_size: values of each time step.
        hidden_size: units in each direction.
        num_layers: layers stacked on one another.
        bidirectional: whether a second LSTM reads each review from its end.
        dropout: share of each layer's outputs dropped in training, but for the last layer's.
    """

    def forward(  # type: ignore[override]
        self, x: torch.Tensor, lengths: torch.Tensor, initial: States | None = None
    ) -> tuple[torch.Tensor, States]:
        """Run over a batch.

        Legend: directions is 2 if bidirectional, else 1.

        Args:
            x: (batch, time, input_size); what it holds past each length is not read.
            lengths: (batch,) integers on the CPU, from 1 to time, in any order.
            initial: h and c, (num_layers * directions, batch, hidden_size) each, the states before
                the first word that each direction reads; None is zero.

        Returns:
            output: (batch, time, directions * hidden_size), zero past each length.
            (h, c): (num_layers * directions, batch, hidden_size) each, the final states. Under
                autocast output and h are in its precision, c in fp32, as it is kept on the way.

        Raises:
            ValueError: the shapes do not fit or a length lies outside 1 to time.
        """
        self.check(x, lengths, *(initial or ()))
        if x.is_cuda:
            return self.run_cudnn(x, lengths, initial)
        return self._forward_padded(x, lengths, initial)

    def _forward_padded(
        self, x: torch.Tensor, lengths: torch.Tensor, initial: States | None
    ) -> tuple[torch.Tensor, States]:
        x = x.transpose(0, 1)  # (time, batch, input_size)
        wanted = multiplied_in(x)
        by_onednn = choose_dtype(x.device, wanted)
        x = x.to(by_onednn or next(self.parameters()).dtype)
        parts, places = [], None
        if by_onednn is None:
            places = find_places(lengths, len(x), x.device, with_turned=self.bidirectional)
        else:
            count = count_parts(len(lengths), self.directions)
            is_turned = self.bidirectional and initial is not None
            parts = cut_batch(lengths, len(x), x.device, count, with_turned=is_turned)
        states: list[States] = []
        for layer in range(self.num_layers):
            if layer > 0:
                x = dropout(x, self.dropout, self.training)
            weights = self.layer_weights(layer)
            if int(lengths.min()) < len(x):
                x, weights = self._mark_padding(x, lengths, weights)
            own = slice(layer * self.directions, (layer + 1) * self.directions)
            start = None if initial is None else (initial[0][own], initial[1][own])
            if places is None:
                x, h, c = run_layer(x, parts, weights, start)
            else:
                x, h, c = self._run_layer_anywhere(x, places, weights, start)
            states.append((h, c))
        h, c = (torch.cat(each) for each in zip(*states, strict=True))
        return x.transpose(0, 1).to(wanted), (h.to(wanted), c)

    def _mark_padding(
        self, x: torch.Tensor, lengths: torch.Tensor, weights: list[torch.Tensor]
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Add the input that is 1 on padding, and its weights to the gates i, f, g, o.

        Where that makes their number odd, another input of zeros follows, as the layer wants it.
        """
        word = torch.arange(x.shape[0], device=x.device).view(-1, 1, 1)
        padding = word >= lengths.to(x.device).unsqueeze(1)  # (time, batch, 1)
        spare = (x.shape[2] + 1) % 2
        marks = nn.functional.pad(padding.to(x.dtype), (0, spare))  # (time, batch, 1 or 2)
        # The others are zeroed there, lest they weigh against it.
        x = torch.cat((x.masked_fill(padding, 0.0), marks), dim=2)
        hidden = self.hidden_size
        switch = weights[0].new_zeros(4 * hidden, 1 + spare)
        switch[:hidden, 0], switch[hidden : 2 * hidden, 0] = -_SATURATING, _SATURATING
        marked = [torch.cat((weight, switch), dim=1) for weight in weights[::4]]
        return x, [marked[i // 4] if i % 4 == 0 else each for i, each in enumerate(weights)]

    def _run_layer_anywhere(
        self,
        x: torch.Tensor,
        places: PaddingIndex,
        weights: list[torch.Tensor],
        initial: States | None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What :func:`run_layer` does, by the device's padded kernel, in the weights' precision.

        In that of autocast the cell state would be too.
        """
        (time, batch, _), hidden = x.shape, self.hidden_size
        if initial is None:
            zeros = x.new_zeros(self.directions, batch, hidden)
            initial = zeros, zeros
        outputs, finals = [], []
        for direction in range(self.directions):
            turned = places.turned if direction == 1 else None
            own = x if turned is None else x.flatten(0, 1)[turned].view_as(x)
            start = [states[direction : direction + 1].to(x.dtype) for states in initial]
            with torch.autocast(x.device.type, enabled=False):
                output, _, c = torch._VF.lstm(
                    own, start, weights[4 * direction : 4 * direction + 4], True, 1, 0.0,
                    self.training, False, False,
                )  # fmt: skip
            rows = output.flatten(0, 1)  # (time * batch, hidden)
            finals.append((rows[places.last], c.squeeze(0)))
            outputs.append(rows if turned is None else rows[turned])
        rows = torch.cat(outputs, dim=1)  # (time * batch, directions * hidden)
        if places.padded is not None:
            rows = rows.index_fill(0, places.padded, 0.0)
        h, c = (torch.stack(each) for each in zip(*finals, strict=True))
        return rows.view(time, batch, -1), h, c
