"""Each direction of a recurrence over a stream of its own, from first to last, with its states.

In a language model the reverse direction reads the review turned round, window by window, and so
does not read what the forward direction reads at the same time.
"""

from __future__ import annotations

import torch

from sentiment.model.dropout import dropout
from sentiment.model.onednn_kernel import choose_dtype
from sentiment.model.onednn_layer import count_parts, run_layer
from sentiment.model.packed_lstm import PackedLSTM, States
from sentiment.model.ragged import cut_batch, multiplied_in


def read_streams(
    lstm: PackedLSTM, x: torch.Tensor, states: States | None
) -> tuple[torch.Tensor, States]:
    """Run an LSTM over streams without padding.

    Legend: directions is 2 if bidirectional, else 1.

    Args:
        lstm: of one layer, or of several in one direction.
        x: (directions, time, batch, input_size).
        states: h and c (num_layers * directions, batch, hidden) to go on from, None for zero.

    Returns:
        output: (directions, time, batch, hidden).
        (h, c): (num_layers * directions, batch, hidden) each.
    """
    assert lstm.directions == 1 or lstm.num_layers == 1
    directions, time, batch, _ = x.shape
    hidden = lstm.hidden_size
    wanted = multiplied_in(x)
    by_onednn = choose_dtype(x.device, wanted)
    x = x.to(by_onednn or next(lstm.parameters()).dtype)
    lengths = torch.full((batch,), time)
    parts = (
        []
        if by_onednn is None
        else cut_batch(lengths, time, x.device, count_parts(batch, directions))
    )
    finals: list[States] = []
    for layer in range(lstm.num_layers):
        if layer > 0:
            x = dropout(x, lstm.dropout, lstm.training)
        own = slice(layer * directions, (layer + 1) * directions)
        start = None if states is None else (states[0][own], states[1][own])
        weights = lstm.layer_weights(layer)
        if parts:
            output, h, c = run_layer(x, parts, weights, start)
            # (time, batch, directions * hidden) to (directions, time, batch, hidden)
            x = output.view(time, batch, directions, hidden).permute(2, 0, 1, 3)
        else:
            x, h, c = _read_anywhere(x, weights, start, hidden)
        finals.append((h, c))
    h, c = (torch.cat(each) for each in zip(*finals, strict=True))
    return x.to(wanted), (h.to(wanted), c)


def _read_anywhere(
    x: torch.Tensor, weights: list[torch.Tensor], start: States | None, hidden: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What :func:`run_layer` does, by the kernel of whatever device, in the weights' precision."""
    if start is None:
        zeros = x.new_zeros(len(x), x.shape[2], hidden)
        start = zeros, zeros
    results = []
    # Under autocast torch would run cuDNN in fp16, without a scaling of the loss.
    with torch.autocast(x.device.type, enabled=False):
        for direction, own in enumerate(x):
            first = [each[direction : direction + 1].to(x.dtype) for each in start]
            factors = weights[4 * direction : 4 * direction + 4]
            results.append(torch._VF.lstm(own, first, factors, True, 1, 0.0, True, False, False))
    output = torch.stack([each[0] for each in results])
    return output, torch.cat([each[1] for each in results]), torch.cat([e[2] for e in results])
