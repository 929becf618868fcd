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

On a CPU the two directions run side by side, each on its share of the threads.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from sentiment.model.side_by_side import run_side_by_side

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
        in_order = bool((lengths[1:] <= lengths[:-1]).all())  # spares sorting on the device
        # Under autocast torch would run cuDNN's LSTM in fp16 whatever precision is asked for, with
        # no scaling of the loss to keep small gradients: in fp32 with TF32 instead.
        with torch.autocast("cuda", enabled=False):
            packed = pack_padded_sequence(
                x.float(), lengths, batch_first=True, enforce_sorted=in_order
            )
            output, states = super().forward(packed)
        return pad_packed_sequence(output, batch_first=True, total_length=x.shape[1])[0], states

    def _forward_padded(
        self, x: torch.Tensor, lengths: torch.Tensor
    ) -> tuple[torch.Tensor, States]:
        padding = None
        if lengths.min() < x.shape[1]:
            steps = torch.arange(x.shape[1], device=x.device)
            padding = (steps >= lengths.to(x.device).unsqueeze(1)).unsqueeze(2)  # (batch, time, 1)
        last_words = lengths.to(x.device) - 1  # (batch,)
        final_h: list[torch.Tensor] = []
        final_c: list[torch.Tensor] = []
        for layer in range(self.num_layers):
            if layer > 0:
                x = nn.functional.dropout(x, self.dropout, self.training)
            x, h, c = self._layer(layer, x, padding, last_words)
            final_h.append(h)
            final_c.append(c)
        return x, (torch.cat(final_h), torch.cat(final_c))

    def _layer(
        self,
        layer: int,
        x: torch.Tensor,
        padding: torch.Tensor | None,
        last_words: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """One layer, both directions.

        Returns:
            output (batch, time, directions * hidden), h and c (directions, batch, hidden).
        """
        weights = self._layer_weights(layer)
        if padding is not None:
            # The extra input stands last; the others are zeroed, lest they weigh against it.
            x = torch.cat((x.masked_fill(padding, 0.0), padding.to(x.dtype)), dim=2)
            switch = self._padding_switch(weights[0])
            weights[::4] = [torch.cat((weight, switch), dim=1) for weight in weights[::4]]
        if self.bidirectional and x.device.type == "cpu" and torch.get_num_threads() > 1:
            (forward, c_forward), (reverse, c_reverse) = run_side_by_side(
                (self._run_kernel, self._run_kernel_reversed), x, (weights[:4], weights[4:])
            )
            output, c = torch.cat((forward, reverse), dim=2), torch.cat((c_forward, c_reverse))
        else:
            output, c = self._run_kernel(x, weights)
        if padding is not None:
            output = output.masked_fill(padding, 0.0)
        batch = torch.arange(len(last_words), device=output.device)
        h = output[batch, last_words, : self.hidden_size].unsqueeze(0)  # (1, batch, hidden)
        if self.bidirectional:
            h = torch.cat((h, output[:, 0, self.hidden_size :].unsqueeze(0)))
        return output, h, c

    def _run_kernel(
        self, x: torch.Tensor, weights: Sequence[torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The padded kernel with the weights of one direction or of both."""
        directions = len(weights) // 4
        zeros = x.new_zeros(directions, x.shape[0], self.hidden_size)
        output, _, c = torch._VF.lstm(
            x, (zeros, zeros), list(weights), True, 1, 0.0, self.training, directions == 2, True
        )
        return output, c

    def _run_kernel_reversed(
        self, x: torch.Tensor, weights: Sequence[torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The kernel from the end of the padded time to its beginning, as a direction alone."""
        output, c = self._run_kernel(x.flip(1), weights)
        return output.flip(1), c

    def _layer_weights(self, layer: int) -> list[torch.Tensor]:
        """W_ih, W_hh, b_ih, b_hh of the forward, then of the reverse direction."""
        suffixes = ("", "_reverse") if self.bidirectional else ("",)
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        return [getattr(self, f"{name}_l{layer}{suffix}") for suffix in suffixes for name in names]

    def _padding_switch(self, like: torch.Tensor) -> torch.Tensor:
        """(4 * hidden, 1) weights of the extra input; PyTorch's gates are i, f, g, o."""
        switch = like.new_zeros(4 * self.hidden_size, 1)
        switch[: self.hidden_size] = -_SATURATING
        switch[self.hidden_size : 2 * self.hidden_size] = _SATURATING
        return switch
