"""The choice of a recurrence, its initial weights and states, and weight dropout."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import nn

from sentiment.model.layers import dropout
from sentiment.model.onednn import describe_kernel
from sentiment.model.packed_gru import PackedGRU, PackedRNN
from sentiment.model.packed_lstm import PackedLSTM
from sentiment.model.reference_lstm import ReferenceLSTM
from sentiment.model.rnn_base import VariableLengthRNN

Cell = Literal["lstm", "gru", "rnn"]
Implementation = Literal["packed", "reference"]

_PACKED: dict[str, type[VariableLengthRNN]]
_PACKED = {"lstm": PackedLSTM, "gru": PackedGRU, "rnn": PackedRNN}


def choose_recurrence(cell: Cell, implementation: Implementation) -> type[VariableLengthRNN]:
    """The class that runs a cell; ``ValueError`` if there is none for cell and implementation."""
    if cell not in _PACKED:
        raise ValueError(f"cell is {cell!r}, but must be lstm, gru or rnn")
    if implementation == "packed":
        return _PACKED[cell]
    if implementation != "reference":
        raise ValueError(f"implementation is {implementation!r}, but must be packed or reference")
    if cell != "lstm":
        raise ValueError(f"implementation is 'reference', which needs lstm, but cell is {cell!r}")
    return ReferenceLSTM


def describe_recurrence(
    cell: Cell, implementation: Implementation, device: torch.device, dtype: torch.dtype
) -> str:
    """How a recurrence is computed on a device, in words."""
    if implementation == "reference":
        return "LSTM by its equations"
    if cell != "lstm":
        name = cell.upper()
        return f"{name} by cuDNN's kernel" if device.type == "cuda" else f"{name} by a loop"
    return f"LSTM by {describe_kernel(device, dtype)}"


@torch.no_grad()
def init_weights(
    recurrence: VariableLengthRNN, input_init: str, recurrent_init: str, forget_bias: float
) -> None:
    """Initialize a recurrence's weights, gate by gate; all biases but ``forget_bias`` are 0.

    Its matrices are (gates * hidden, ...), an LSTM's with gates i, f, g, o, a GRU's with r, z, n.
    """
    hidden = recurrence.hidden_size
    bound = 1 / math.sqrt(hidden)
    for name, parameter in recurrence.named_parameters():
        if name.startswith("weight"):
            init = input_init if "_ih_" in name else recurrent_init
            for gate in parameter.split(hidden):
                if init == "xavier":
                    nn.init.xavier_uniform_(gate)
                elif init == "orthogonal":
                    nn.init.orthogonal_(gate)
                else:
                    gate.uniform_(-bound, bound)
        else:
            parameter.zero_()
            if recurrence.mode == "LSTM" and "_ih_" in name:
                # bias_ih and bias_hh are added, so only one of them has it
                parameter[hidden : 2 * hidden] = forget_bias


def weight_drop(recurrence: VariableLengthRNN, p: float) -> dict[str, torch.Tensor]:
    """Drop a share ``p`` of the hidden-to-hidden weights, the same ones for a whole batch.

    DropConnect (Wan et al. 2013), applied to these weights only, as by Merity, Keskar & Socher
    (2018). Returns the weights by parameter name, to call the recurrence with; gradients flow to
    its parameters.
    """
    return {
        name: dropout(parameter, p, True)
        for name, parameter in recurrence.named_parameters()
        if name.startswith("weight_hh")
    }


class InitialStates(nn.Module):
    """Learned initial states, the same for all reviews; they start at zero."""

    def __init__(self, recurrence: VariableLengthRNN) -> None:
        super().__init__()
        shape = recurrence.num_layers * recurrence.directions, recurrence.hidden_size
        self.h = nn.Parameter(torch.zeros(shape))
        self.c = nn.Parameter(torch.zeros(shape)) if recurrence.mode == "LSTM" else None

    def forward(self, batch_size: int) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """h, or h and c of an LSTM, (num_layers * directions, batch_size, hidden_size) each."""
        h = self.h.unsqueeze(1).expand(-1, batch_size, -1)
        return h if self.c is None else (h, self.c.unsqueeze(1).expand(-1, batch_size, -1))
