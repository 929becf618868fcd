"""A classifier taken apart into plain tensors, for another program to be built from."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sentiment.model import SentimentClassifier
from sentiment.model.pooling import Pooling, split_pooling


@dataclass(frozen=True)
class Direction:
    """One direction of one layer, with PyTorch's shapes and order of gates.

    Legend: gates is 4 (i, f, g, o) of an LSTM, 3 (r, z, n) of a GRU, 1 of an RNN.

    Attributes:
        weight_ih: (gates * hidden, input).
        weight_hh: (gates * hidden, hidden).
        bias_ih, bias_hh: (gates * hidden,).
        h, c: (hidden,) states before the first word; c is an LSTM's alone.
    """

    weight_ih: torch.Tensor
    weight_hh: torch.Tensor
    bias_ih: torch.Tensor
    bias_hh: torch.Tensor
    h: torch.Tensor
    c: torch.Tensor | None


@dataclass(frozen=True)
class Attention:
    """Attention over the words: softmax(tanh(W h + b) . v).

    Attributes:
        weight, bias: (features, features) and (features,).
        context: (features,).
    """

    weight: torch.Tensor
    bias: torch.Tensor
    context: torch.Tensor


@dataclass(frozen=True)
class Parts:
    """What a classifier consists of.

    Attributes:
        embedding: (vocabulary, embedding), as it comes out of normalizing where it is normalized.
        cell: ``LSTM``, ``GRU`` or ``RNN_TANH``.
        layers: the directions of each layer, one or two.
        poolings: how outputs over time become one vector, or several that stand side by side.
        attention: where one of them is attention.
        output_weight, output_bias: (num_classes, poolings * directions * hidden) and
            (num_classes,).
    """

    embedding: torch.Tensor
    cell: str
    layers: list[list[Direction]]
    poolings: tuple[Pooling, ...]
    attention: Attention | None
    output_weight: torch.Tensor
    output_bias: torch.Tensor

    @property
    def has_learned_states(self) -> bool:
        """Whether states before the first word are other than zero."""
        starts = [state for layer in self.layers for each in layer for state in (each.h, each.c)]
        return any(state is not None and bool(state.any()) for state in starts)


_CELLS = ("LSTM", "GRU", "RNN_TANH")
_POOLINGS = {"last", "mean", "max", "attention"}


def take_apart(model: SentimentClassifier) -> Parts:
    """The parts of a classifier, on the CPU in fp32.

    Raises:
        ValueError: it has something that no exported file can have.
    """
    weights = {key: value.detach().cpu().float() for key, value in model.state_dict().items()}
    recurrence = model.recurrence
    num_directions = 2 if recurrence.bidirectional else 1
    if recurrence.mode not in _CELLS or not set(model.pooling.split("+")) <= _POOLINGS:
        raise ValueError(
            f"a model of cell {recurrence.mode} and pooling {model.pooling} cannot be exported"
        )
    layers = [
        [_take_direction(weights, recurrence, layer, number) for number in range(num_directions)]
        for layer in range(recurrence.num_layers)
    ]
    for name in ("initial_states.h", "initial_states.c"):
        weights.pop(name, None)
    attention = None
    poolings = split_pooling(model.pooling)
    if "attention" in poolings:
        names = ("projection.weight", "projection.bias", "context")
        attention = Attention(*[weights.pop(f"attention.{name}") for name in names])
    for name in ("embedding.weight", "embedding.shares"):
        weights.pop(name, None)
    embedding = model.embedding_table().detach().cpu().float()
    output = weights.pop("output.weight"), weights.pop("output.bias")
    if weights:  # of a part that came later than this
        raise ValueError(f"the model cannot be exported: it has {', '.join(sorted(weights))}")
    return Parts(embedding, recurrence.mode, layers, poolings, attention, *output)


def _take_direction(
    weights: dict[str, torch.Tensor], recurrence: torch.nn.RNNBase, layer: int, number: int
) -> Direction:
    suffix = f"l{layer}{'_reverse' if number else ''}"
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    w_ih, w_hh, b_ih, b_hh = (weights.pop(f"recurrence.{name}_{suffix}") for name in names)
    place = layer * (2 if recurrence.bidirectional else 1) + number
    zero = torch.zeros(recurrence.hidden_size)
    h = weights["initial_states.h"][place] if "initial_states.h" in weights else zero
    c = weights["initial_states.c"][place] if "initial_states.c" in weights else zero
    return Direction(w_ih, w_hh, b_ih, b_hh, h, c if recurrence.mode == "LSTM" else None)
