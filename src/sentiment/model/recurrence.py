"""Which recurrence a classifier has, and what its weights and states start from."""

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

_PACKED: dict[str, type[VariableLengthRNN]] = {
    "lstm": PackedLSTM,
    "gru": PackedGRU,
    "rnn": PackedRNN,
}


def choose_recurrence(cell: Cell, implementation: Implementation) -> type[VariableLengthRNN]:
    """The class that runs a cell over reviews of different lengths.

    Raises:
        ValueError: there is none.
    """
    if cell not in _PACKED:
        raise ValueError(f"cell is {cell!r}, but must be lstm, gru or rnn")
    if implementation == "packed":
        return _PACKED[cell]
    if implementation != "reference":
        raise ValueError(f"implementation is {implementation!r}, but must be packed or reference")
    if cell != "lstm":
        raise ValueError(f"implementation is 'reference', which is an lstm, but cell is {cell!r}")
    return ReferenceLSTM


def describe_recurrence(
    cell: Cell, implementation: Implementation, device: torch.device, dtype: torch.dtype
) -> str:
    """How a recurrence is computed on a device, as a person would name it."""
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
    """Draw a recurrence's weights, gate by gate.

    Args:
        recurrence: with matrices (gates * hidden, ...): i, f, g, o of an LSTM, r, z, n of a GRU.
        input_init: ``xavier`` or ``uniform``, of the weights of the input.
        recurrent_init: ``orthogonal`` or ``uniform``, of the weights of the state.
        forget_bias: of an LSTM's forget gate; all other biases are 0.
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
                # bias_ih and bias_hh are added: one of them carries it
                parameter[hidden : 2 * hidden] = forget_bias


def weight_drop(recurrence: VariableLengthRNN, p: float) -> dict[str, torch.Tensor]:
    """A recurrence's matrices from state to state, with a share of their entries dropped.

    DropConnect (Wan et al. 2013) on these alone, as Merity, Keskar & Socher (2018) have it: the
    same entries for all words and reviews of a batch, the others scaled to make up.

    Args:
        recurrence: whose matrices.
        p: share to drop.

    Returns:
        By the names of its parameters, to be put in their place: gradients flow to these.
    """
    return {
        name: dropout(parameter, p, True)
        for name, parameter in recurrence.named_parameters()
        if name.startswith("weight_hh")
    }


class InitialStates(nn.Module):
    """States before the first word, learned, and the same for all reviews; zero at the start.

    Args:
        recurrence: whose states they are.
    """

    def __init__(self, recurrence: VariableLengthRNN) -> None:
        super().__init__()
        shape = recurrence.num_layers * recurrence.directions, recurrence.hidden_size
        self.h = nn.Parameter(torch.zeros(shape))
        self.c = nn.Parameter(torch.zeros(shape)) if recurrence.mode == "LSTM" else None

    def forward(self, batch_size: int) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """As the recurrence takes them: h, of an LSTM h and c, for each review of a batch.

        Returns:
            (num_layers * directions, batch_size, hidden_size) each.
        """
        h = self.h.unsqueeze(1).expand(-1, batch_size, -1)
        return h if self.c is None else (h, self.c.unsqueeze(1).expand(-1, batch_size, -1))
