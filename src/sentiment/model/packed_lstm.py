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

On words the extra input is 0 and adds nothing. Gradients are exact too: sigmoid is flat out there,
so none flows into the padding but the one passed on by f = 1. What remains is to zero the outputs
on padding and to pick the last word's h out of the outputs.

On a CPU the two directions run side by side (:mod:`sentiment.model.onednn_layer`).
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from sentiment.model.dropout import dropout
from sentiment.model.onednn_layer import Places, can_run, run_layer

# Far beyond where sigmoid is 0 or 1 to the last bit (about 104 in fp32), far within bf16 and fp16.
_SATURATING = 10_000.0

States = tuple[torch.Tensor, torch.Tensor]


class PackedLSTM(nn.LSTM):
    """``nn.LSTM`` on padded batches with lengths, equal to ``nn.LSTM`` on the ``PackedSequence``.

    Parameters have the names and shapes of ``nn.LSTM``, so state dicts fit both ways.

    Args:
        input_size: values of each time step.
        hidden_size: units in each direction.
        num_layers: layers stacked on one another.
        bidirectional: whether a second LSTM reads each review from its end.
        dropout: share of each layer's outputs dropped in training, but for the last layer's.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        bidirectional: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            batch_first=True,
            bidirectional=bidirectional,
            dropout=dropout if num_layers > 1 else 0.0,  # nn.LSTM warns of one without effect
        )

    def forward(  # type: ignore[override]
        self, x: torch.Tensor, lengths: torch.Tensor
    ) -> tuple[torch.Tensor, States]:
        """Run over a batch.

        Legend: directions is 2 if bidirectional, else 1.

        Args:
            x: (batch, time, input_size); what it holds past each length is not read.
            lengths: (batch,) integers on the CPU, from 1 to time, in any order.

        Returns:
            output: (batch, time, directions * hidden_size), zero past each length.
            (h, c): (num_layers * directions, batch, hidden_size) each, the final states.

        Raises:
            ValueError: the shapes do not fit or a length lies outside 1 to time.
        """
        self._check(x, lengths)
        if x.is_cuda:
            return self._forward_cudnn(x, lengths)
        return self._forward_padded(x, lengths)

    def _check(self, x: torch.Tensor, lengths: torch.Tensor) -> None:
        if x.dim() != 3 or x.shape[2] != self.input_size:
            raise ValueError(f"x is {tuple(x.shape)}, expected (batch, time, {self.input_size})")
        if lengths.device.type != "cpu":
            raise ValueError(f"lengths are on {lengths.device}, but must be on the CPU")
        if lengths.shape != x.shape[:1]:
            raise ValueError(f"lengths are {tuple(lengths.shape)}, expected ({x.shape[0]},)")
        if len(lengths) == 0 or lengths.min() < 1 or lengths.max() > x.shape[1]:
            raise ValueError(f"lengths must lie between 1 and {x.shape[1]}, got {lengths.tolist()}")

    def _forward_cudnn(self, x: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, States]:
        dtype = next(self.parameters()).dtype
        in_order = bool((lengths[1:] <= lengths[:-1]).all())  # spares sorting on the device
        # Under autocast torch would run cuDNN's LSTM in fp16 whatever precision is asked for, with
        # no scaling of the loss to keep small gradients: in fp32 with TF32 instead.
        with torch.autocast("cuda", enabled=False):
            packed = pack_padded_sequence(
                x.to(dtype), lengths, batch_first=True, enforce_sorted=in_order
            )
            output, states = super().forward(packed)
        return pad_packed_sequence(output, batch_first=True, total_length=x.shape[1])[0], states

    def _forward_padded(
        self, x: torch.Tensor, lengths: torch.Tensor
    ) -> tuple[torch.Tensor, States]:
        x, lengths = x.transpose(0, 1), lengths.to(x.device)  # (time, batch, input_size)
        time, batch, _ = x.shape
        padding = torch.arange(time, device=x.device).unsqueeze(1) >= lengths  # (time, batch)
        padded = padding.flatten().nonzero().squeeze(1)
        last = (lengths - 1) * batch + torch.arange(batch, device=x.device)
        places = Places(padded if len(padded) else None, last)
        dtype = _multiplied_in(x)
        x = x.to(dtype)
        states: list[tuple[torch.Tensor, torch.Tensor]] = []
        for layer in range(self.num_layers):
            if layer > 0:
                x = dropout(x, self.dropout, self.training)
            weights = self._layer_weights(layer)
            if places.padded is not None:
                x, weights = self._mark_padding(x, padding.unsqueeze(2), weights)
            if can_run(x, dtype):
                x, h, c = run_layer(x, places, weights, dtype)
            else:
                x, h, c = self._run_layer_anywhere(x, places, weights)
            states.append((h, c))
        h, c = (torch.cat(each) for each in zip(*states, strict=True))
        return x.transpose(0, 1), (h, c)

    def _mark_padding(
        self, x: torch.Tensor, padding: torch.Tensor, weights: list[torch.Tensor]
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Add the input that is 1 on padding, and its weights to the gates i, f, g, o."""
        # The others are zeroed there, lest they weigh against it.
        x = torch.cat((x.masked_fill(padding, 0.0), padding.to(x.dtype)), dim=2)
        hidden = self.hidden_size
        switch = weights[0].new_zeros(4 * hidden, 1)
        switch[:hidden], switch[hidden : 2 * hidden] = -_SATURATING, _SATURATING
        marked = [torch.cat((weight, switch), dim=1) for weight in weights[::4]]
        return x, [marked[i // 4] if i % 4 == 0 else each for i, each in enumerate(weights)]

    def _run_layer_anywhere(
        self, x: torch.Tensor, places: Places, weights: list[torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What :func:`run_layer` does, by the padded kernel of whatever device and precision."""
        directions, hidden = len(weights) // 4, self.hidden_size
        zeros = x.new_zeros(directions, x.shape[1], hidden)
        output, h, c = torch._VF.lstm(
            x, (zeros, zeros), weights, True, 1, 0.0, self.training, directions == 2, False
        )
        rows = output.flatten(0, 1)  # (time * batch, directions * hidden)
        if places.padded is not None:
            rows = rows.index_fill(0, places.padded, 0.0)
        h = torch.cat((rows[places.last, :hidden].unsqueeze(0), h[1:]))
        return rows.view_as(output), h, c

    def _layer_weights(self, layer: int) -> list[torch.Tensor]:
        """W_ih, W_hh, b_ih, b_hh of the forward, then of the reverse direction."""
        suffixes = ("", "_reverse") if self.bidirectional else ("",)
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        return [getattr(self, f"{name}_l{layer}{suffix}") for suffix in suffixes for name in names]


def _multiplied_in(x: torch.Tensor) -> torch.dtype:
    """The precision that autocast, where it is on, has chosen."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
