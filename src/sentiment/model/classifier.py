"""The classifier: embedding, recurrence, pooling over time, linear layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn
from torch.func import functional_call

from sentiment.model.layers import (
    AttentionPooling,
    Dropout,
    NormalizedEmbedding,
    drop_over_time,
    drop_words,
    pool,
    split_pooling,
)
from sentiment.model.layers import dropout as drop_values
from sentiment.model.recurrence import (
    Cell,
    Implementation,
    InitialStates,
    choose_recurrence,
    init_weights,
    weight_drop,
)

_EMBEDDING_STD = 0.3  # of random embeddings, close to that of GloVe vectors


class SentimentClassifier(nn.Module):
    """Maps token ids of reviews to logits of classes.

    Args:
        vocabulary_size: number of words, with ``<pad>`` (id 0) and ``<unk>`` (id 1).
        hidden_size: units of the recurrence in each direction.
        bidirectional: whether a second recurrence reads each review from its end.
        cell: ``lstm``, ``gru`` (Cho et al. 2014) or ``rnn`` (Elman 1990, with tanh).
        implementation: ``packed`` is fast; ``reference``, for LSTMs only, is readable.
        learned_initial_state: whether to learn the initial states instead of zeros.
        pooling: how to pool the outputs over time: ``last``, ``mean``, ``max``, ``attention``, or
            several joined by ``+``, whose results are concatenated (Howard & Ruder 2018 use
            ``last+max+mean``).
        word_dropout: share of the words made unknown in training.
        embedding_dropout: share of the embeddings' features dropped in training.
        locked_dropout: whether to drop the same features for all words of a review.
        dropout: share dropped between recurrent layers and before the linear layer in training.
        weight_dropout: share of the hidden-to-hidden weights dropped in training, see
            :func:`weight_drop`.
        input_init: ``xavier`` (Glorot & Bengio 2010, uniform) or PyTorch's ``uniform``.
        recurrent_init: ``orthogonal`` for each gate (Saxe et al. 2014) or PyTorch's ``uniform``.
        forget_bias: initial bias of an LSTM's forget gate (Jozefowicz et al. 2015 recommend 1).
        vectors: (vocabulary_size, embedding_size), initial embeddings; None draws random ones.
        freeze_embedding: whether the embeddings stay untrained.
        normalize_embedding: whether to use :class:`NormalizedEmbedding`, which needs
            ``frequencies``.
        frequencies: how often each word occurs in the training texts.

    Raises:
        ValueError: a choice is unknown, or does not go with another.
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
        self._weight_dropout = weight_dropout
        self.recurrence = choose_recurrence(cell, implementation)(
            embedding_size, hidden_size, num_layers, bidirectional=bidirectional, dropout=dropout
        )
        self.initial_states = InitialStates(self.recurrence) if learned_initial_state else None
        features = self.recurrence.directions * hidden_size
        self.pooling = pooling
        self._poolings = split_pooling(pooling)
        self.attention = AttentionPooling(features) if "attention" in self._poolings else None
        self.dropout = Dropout(dropout)
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
        drop = drop_over_time if self._locked_dropout else drop_values
        return drop(embedded, self._embedding_dropout, self.training).transpose(0, 1)

    def embedding_table(self) -> torch.Tensor:
        """(vocabulary, embedding), the embeddings before dropout."""
        if isinstance(self.embedding, NormalizedEmbedding):
            return self.embedding.table()
        return self.embedding.weight

    def classify(self, embedded: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """As :meth:`forward`, of embedded words (batch, time, embedding)."""
        output, final = self.run_recurrence(embedded, lengths)
        parts = [
            self.attention(output, lengths)
            if kind == "attention" and self.attention is not None
            else pool(kind, output, final, lengths)
            for kind in self._poolings
        ]  # (batch, directions * hidden) each
        pooled = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)  # (batch, features)
        return self.output(self.dropout(pooled))

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
