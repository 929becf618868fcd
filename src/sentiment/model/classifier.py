"""The classifier: embedding, recurrence, pooling over time, linear layer; initial weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn
from torch.func import functional_call

from sentiment.model.layers import (
    AttentionPooling,
    NormalizedEmbedding,
    drop_over_time,
    drop_words,
    dropout,
    pool,
    split_pooling,
    to_device,
)
from sentiment.model.onednn import describe_kernel
from sentiment.model.packed_gru import PackedGRU, PackedRNN
from sentiment.model.packed_lstm import PackedLSTM
from sentiment.model.reference_lstm import ReferenceLSTM
from sentiment.model.rnn_base import VariableLengthRNN

Cell = Literal["lstm", "gru", "rnn"]
Implementation = Literal["packed", "reference"]

_RECURRENCES: dict[tuple[str, str], type[VariableLengthRNN]] = {  # by cell and implementation
    ("lstm", "packed"): PackedLSTM,
    ("gru", "packed"): PackedGRU,
    ("rnn", "packed"): PackedRNN,
    ("lstm", "reference"): ReferenceLSTM,
}

_EMBEDDING_STD = 0.3  # of random embeddings, close to that of GloVe vectors


class SentimentClassifier(nn.Module):
    """Maps token ids of reviews to logits of classes.

    ``ModelConfig`` in ``sentiment/config/sections.py`` explains the arguments from
    ``embedding_size`` to ``forget_bias``. Words 0 and 1 are ``<pad>`` and ``<unk>``;
    ``vectors`` (vocabulary_size, embedding_size) are the initial embeddings, None for random ones;
    ``normalize_embedding`` needs ``frequencies``, how often each word occurs in the training texts.

    Raises:
        ValueError: a choice is unknown, or cannot be combined with another.
    """

    def __init__(
        self,
        *,
        vocabulary_size: int,
        num_classes: int,
        embedding_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bidirectional: bool = True,
        cell: Cell = "lstm",
        implementation: Implementation = "packed",
        learned_initial_state: bool = False,
        pooling: str = "max",
        word_dropout: float = 0.0,
        embedding_dropout: float = 0.0,
        locked_dropout: bool = False,
        dropout: float = 0.0,
        weight_dropout: float = 0.0,
        input_init: Literal["xavier", "uniform"] = "xavier",
        recurrent_init: Literal["orthogonal", "uniform"] = "orthogonal",
        forget_bias: float = 1.0,
        vectors: torch.Tensor | None = None,
        freeze_embedding: bool = False,
        normalize_embedding: bool = False,
        frequencies: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.embedding: nn.Embedding
        if not normalize_embedding:
            self.embedding = nn.Embedding(vocabulary_size, embedding_size, padding_idx=0)
        elif frequencies is None:
            raise ValueError("normalize_embedding is True, but frequencies is None")
        else:
            self.embedding = NormalizedEmbedding(vocabulary_size, embedding_size, frequencies)
        self._word_dropout = word_dropout
        self._embedding_dropout = embedding_dropout
        self._locked_dropout = locked_dropout
        self._dropout = dropout
        self._weight_dropout = weight_dropout
        if (cell, implementation) not in _RECURRENCES:
            known = ", ".join(" ".join(pair) for pair in _RECURRENCES)
            raise ValueError(
                f"cell {cell!r} has no implementation {implementation!r}, but these exist: {known}"
            )
        self.recurrence = _RECURRENCES[cell, implementation](
            embedding_size, hidden_size, num_layers, bidirectional=bidirectional, dropout=dropout
        )
        self.initial_states = InitialStates(self.recurrence) if learned_initial_state else None
        features = self.recurrence.directions * hidden_size
        self.pooling = pooling
        self._poolings = split_pooling(pooling)
        self.attention = AttentionPooling(features) if "attention" in self._poolings else None
        self.output = nn.Linear(len(self._poolings) * features, num_classes)
        self._init_embedding(vectors)
        self.embedding.weight.requires_grad_(not freeze_embedding)
        init_weights(self.recurrence, input_init, recurrent_init, forget_bias)

    def forward(self, tokens: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """(batch, num_classes) logits of token ids (batch, time).

        Lengths (batch,) are on the CPU, from 1 to time; ids past each length are not read.
        """
        return self.classify(self.embed(tokens), lengths)

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        """Embed (batch, time) ids as (batch, time, embedding), with dropout in training."""
        tokens = drop_words(tokens, self._word_dropout, self.training)
        # Time first in memory, as the recurrence needs it.
        embedded = self.embedding(tokens.t())  # (time, batch, embedding)
        drop = drop_over_time if self._locked_dropout else dropout
        return drop(embedded, self._embedding_dropout, self.training).transpose(0, 1)

    def embedding_table(self) -> torch.Tensor:
        """(vocabulary, embedding), the embeddings before dropout."""
        if isinstance(self.embedding, NormalizedEmbedding):
            return self.embedding.table()
        return self.embedding.weight

    def classify(self, embedded: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """As :meth:`forward`, of embedded words (batch, time, embedding)."""
        output, final = self.run_recurrence(embedded, lengths)
        lengths = to_device(lengths, output.device)  # once for all poolings
        parts = [
            self.attention(output, lengths)
            if kind == "attention" and self.attention is not None
            else pool(kind, output, final, lengths)
            for kind in self._poolings
        ]  # (batch, directions * hidden) each
        pooled = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)  # (batch, features)
        return self.output(dropout(pooled, self._dropout, self.training))

    def run_recurrence(
        self, embedded: torch.Tensor, lengths: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the recurrence over embedded words (batch, time, embedding).

        Returns its output (batch, time, directions * hidden), zero past each length, and the last
        layer's final hidden states (directions, batch, hidden).
        """
        initial = None if self.initial_states is None else self.initial_states(len(lengths))
        if self.training and self._weight_dropout > 0:
            dropped = weight_drop(self.recurrence, self._weight_dropout)
            output, states = functional_call(self.recurrence, dropped, (embedded, lengths, initial))
        else:
            output, states = self.recurrence(embedded, lengths, initial)
        h = states[0] if isinstance(states, tuple) else states  # an LSTM returns h and c
        return output, h[-self.recurrence.directions :]

    @torch.no_grad()
    def _init_embedding(self, vectors: torch.Tensor | None) -> None:
        weight = self.embedding.weight
        if vectors is None:
            weight.normal_(0, _EMBEDDING_STD)
        elif vectors.shape != weight.shape:
            raise ValueError(f"vectors are {tuple(vectors.shape)}, expected {tuple(weight.shape)}")
        else:
            weight.copy_(vectors)
        weight[0] = 0


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

    After Glorot & Bengio (2010, xavier), Saxe et al. (2014, orthogonal) and Jozefowicz et al.
    (2015, a forget bias of 1). The matrices are (gates * hidden, ...), an LSTM's with gates i, f,
    g, o, a GRU's with r, z, n.
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
    dropped = {
        name: dropout(parameter, p, True)
        for name, parameter in recurrence.named_parameters()
        if name.startswith("weight_hh")
    }
    if all(weight.is_cuda for weight in dropped.values()):
        return recurrence.in_chunks(dict(recurrence.named_parameters()) | dropped)
    return dropped


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
