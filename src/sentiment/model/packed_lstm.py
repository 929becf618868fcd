"""An LSTM over reviews of different lengths: exact, and as fast as the device's own kernel.

PyTorch's way to pass reviews of different lengths to an LSTM is the ``PackedSequence``. cuDNN runs
it at full speed, but elsewhere it is cut into one slice for each time step, and the backward of
each slice fills a gradient as large as the whole input: the cost grows with the square of the
length (pytorch/pytorch issue 149194). The kernel for padded batches is about 25 times faster, but
it reads the padding: final states are those after it, and the reverse direction starts in it.

So we run the padded kernel and make the cell ignore the padding. The cell state follows

    c_t = f_t * c_(t-1) + i_t * g_t        h_t = o_t * tanh(c_t)

with gates i, f, o = sigmoid(W x_t + U h_(t-1) + b). An additional input, 1 on padding and 0 on
words, with weights -10,000 to the input gate and +10,000 to the forget gate, makes i exactly 0 and
f exactly 1 on padding, so that the cell state does not change, to the bit. Therefore

- forward, the cell state after the padding is that of the review's last word;
- in reverse, the padding comes first, the cell state stays at its initial zero, and with it
  h = o * tanh(0) = 0: the last word meets the same states as without padding.

Initial states other than zero would not survive the padding, as o * tanh(c) is not the initial h.
With them the reverse direction runs forward over reviews reversed within their own lengths.

On words the additional input is 0 and adds nothing. Gradients are exact too: the sigmoid is flat
there, so that only f = 1 passes a gradient through the padding. What remains to do is to zero the
outputs on padding and to take the last word's h from the outputs.

On a CPU, directions and parts of a batch run side by side (:mod:`sentiment.model.onednn`).
"""

from __future__ import annotations

import torch
from torch import nn

from sentiment.model.layers import dropout
from sentiment.model.onednn import choose_dtype, count_parts, run_layer
from sentiment.model.rnn_base import (
    PaddingIndex,
    States,
    VariableLengthRNN,
    index_padding,
    matmul_dtype,
    reverse_reviews,
    split_batch,
    weights_of,
)

# Sigmoid is 0 or 1 to the last bit from about 104 on in fp32; bf16 and fp16 can represent 10,000.
_SATURATING = 10_000.0


class PackedLSTM(VariableLengthRNN, nn.LSTM):
    """``nn.LSTM`` on padded batches with lengths, equal to ``nn.LSTM`` on the ``PackedSequence``.

    Its parameters are those of ``nn.LSTM``, so that state dicts fit both ways.
    """

    def forward(  # type: ignore[override]
        self, x: torch.Tensor, lengths: torch.Tensor, initial: States | None = None
    ) -> tuple[torch.Tensor, States]:
        """Run over a batch.

        Args:
            x: (batch, time, input_size); values past each length are not read.
            lengths: (batch,) integers on the CPU, from 1 to time, in any order.
            initial: initial h and c, (num_layers * directions, batch, hidden_size) each; None is
                zero.

        Returns:
            output: (batch, time, directions * hidden_size), zero past each length.
            (h, c): final states, (num_layers * directions, batch, hidden_size) each. Under autocast
                on the CPU, output and h have its precision, and c, which sums over time, is in
                fp32; cuDNN keeps the parameters' precision.

        Raises:
            ValueError: the shapes do not fit, or a length is not from 1 to time.
        """
        self.check(x, lengths, *(initial or ()))
        if x.is_cuda:
            return self.run_cudnn(x, lengths, initial)
        x = x.transpose(0, 1)  # (time, batch, input_size)
        dtype = matmul_dtype(x)
        onednn_dtype = choose_dtype(x.device, dtype)
        x = x.to(onednn_dtype or next(self.parameters()).dtype)
        parts, index = [], None
        if onednn_dtype is None:
            index = index_padding(lengths, len(x), x.device, with_reversed=self.bidirectional)
        else:
            num_parts = count_parts(len(lengths), self.directions)
            with_reversed = self.bidirectional and initial is not None
            parts = split_batch(lengths, len(x), x.device, num_parts, with_reversed=with_reversed)
        states: list[States] = []
        for layer in range(self.num_layers):
            if layer > 0:
                x = dropout(x, self.dropout, self.training)
            weights = self.layer_weights(layer)
            if int(lengths.min()) < len(x):
                x, weights = self._mark_padding(x, lengths, weights)
            rows = slice(layer * self.directions, (layer + 1) * self.directions)
            start = None if initial is None else (initial[0][rows], initial[1][rows])
            if index is None:
                x, h, c = run_layer(x, parts, weights, start)
            else:
                x, h, c = run_torch_layer(x, index, weights, start, training=self.training)
            states.append((h, c))  # x: (time, batch, directions * hidden)
        h, c = (torch.cat(layers) for layers in zip(*states, strict=True))
        return x.transpose(0, 1).to(dtype), (h.to(dtype), c)

    def _mark_padding(
        self, x: torch.Tensor, lengths: torch.Tensor, weights: list[torch.Tensor]
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Add the input that is 1 on padding, and its weights to the gates i, f, g, o.

        oneDNN is fast with an even number of inputs: if needed, an input of zeros is added too.
        """
        word = torch.arange(x.shape[0], device=x.device).view(-1, 1, 1)
        padding = word >= lengths.to(x.device).unsqueeze(1)  # (time, batch, 1)
        spare = (x.shape[2] + 1) % 2
        marks = nn.functional.pad(padding.to(x.dtype), (0, spare))  # (time, batch, 1 or 2)
        # The other inputs are zeroed on padding, so that they cannot outweigh the mark.
        x = torch.cat((x.masked_fill(padding, 0.0), marks), dim=2)  # (time, batch, input + 1 or 2)
        hidden = self.hidden_size
        columns = weights[0].new_zeros(4 * hidden, 1 + spare)
        columns[:hidden, 0], columns[hidden : 2 * hidden, 0] = -_SATURATING, _SATURATING
        marked = list(weights)
        marked[::4] = [torch.cat((weight, columns), dim=1) for weight in weights[::4]]  # all W_ih
        return x, marked


def run_torch_layer(
    x: torch.Tensor,
    index: PaddingIndex | None,
    weights: list[torch.Tensor],
    initial: States | None,
    *,
    training: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """As :func:`run_layer`, by torch's kernel for the device and in the weights' precision.

    ``index`` is that of the padding, None without any.
    """
    directions, hidden = len(weights) // 4, weights[1].shape[1]
    if initial is None:
        zeros = x.new_zeros(directions, x.shape[-2], hidden)
        initial = zeros, zeros
    outputs, finals = [], []
    for direction in range(directions):
        reversed_index = index.reversed_index if index is not None and direction == 1 else None
        own = x[direction] if x.dim() == 4 else reverse_reviews(x, reversed_index)
        start = [states[direction : direction + 1].to(x.dtype) for states in initial]
        # Autocast would keep the cell state in its low precision, and run cuDNN in fp16 without
        # scaling the loss.
        with torch.autocast(x.device.type, enabled=False):
            output, h, c = torch._VF.lstm(
                own, start, weights_of(weights, direction), True, 1, 0.0, training,
                False, False,
            )  # fmt: skip
        final_h = h.squeeze(0) if index is None else output.flatten(0, 1)[index.last]
        finals.append((final_h, c.squeeze(0)))
        outputs.append(reverse_reviews(output, reversed_index))
    joined = torch.cat(outputs, dim=2)  # (time, batch, directions * hidden)
    if index is not None and index.padded is not None:
        joined = joined.flatten(0, 1).index_fill(0, index.padded, 0.0).view_as(joined)
    h, c = (torch.stack(states) for states in zip(*finals, strict=True))
    return joined, h, c
