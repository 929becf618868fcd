"""The classifier: embedding, LSTM, pooling over time, linear layer."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import nn

from sentiment.model.dropout import Dropout
from sentiment.model.packed_lstm import PackedLSTM
from sentiment.model.pooling import Pooling, pool

# Spread of an embedding that starts from no vectors: near that of trained GloVe vectors.
_EMBEDDING_DEVIATION = 0.3


class SentimentClassifier(nn.Module):
    """Token ids of reviews to logits of classes.

    Args:
        vocabulary_size: words with an embedding, ``<pad>`` (id 0) and ``<unk>`` among them.
        num_classes: classes to tell apart.
        embedding_size: values of a word's embedding.
        hidden_size: units of the LSTM in each direction.
        num_layers: LSTM layers.
        bidirectional: whether a second LSTM reads each review from its end.
        pooling: what of the outputs over time reaches the linear layer.
        embedding_dropout: share of the embedding's values dropped in training.
        dropout: share dropped between LSTM layers and before the linear layer in training.
        input_init: ``xavier`` (Glorot & Bengio 2010, uniform) or PyTorch's ``uniform``.
        recurrent_init: ``orthogonal`` for each gate (Saxe et al. 2014) or PyTorch's ``uniform``.
        forget_bias: start of the forget gate's bias (Jozefowicz et al. 2015 recommend 1).
        vectors: (vocabulary_size, embedding_size) that the embedding starts from.
        freeze_embedding: whether the embedding is left untrained.
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
        pooling: Pooling = "max",
        embedding_dropout: float = 0.0,
        dropout: float = 0.0,
        input_init: Literal["xavier", "uniform"] = "xavier",
        recurrent_init: Literal["orthogonal", "uniform"] = "orthogonal",
        forget_bias: float = 1.0,
        vectors: torch.Tensor | None = None,
        freeze_embedding: bool = False,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary_size, embedding_size, padding_idx=0)
        self.embedding_dropout = Dropout(embedding_dropout)
        self.recurrence = PackedLSTM(
            embedding_size, hidden_size, num_layers, bidirectional=bidirectional, dropout=dropout
        )
        self.pooling: Pooling = pooling
        self.dropout = Dropout(dropout)
        directions = 2 if bidirectional else 1
        self.output = nn.Linear(directions * hidden_size, num_classes)
        self._start_embedding(vectors)
        self.embedding.weight.requires_grad_(not freeze_embedding)
        _start_recurrence(self.recurrence, input_init, recurrent_init, forget_bias)

    def forward(self, tokens: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Classify a batch.

        Args:
            tokens: (batch, time) ids; what stands past each length is not read.
            lengths: (batch,) integers on the CPU, from 1 to time.

        Returns:
            (batch, num_classes) logits.
        """
        return self.classify(self.embed(tokens), lengths)

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        """(batch, time) ids to (batch, time, embedding), with dropout in training."""
        # Time stands first in memory, where the recurrence wants it.
        return self.embedding_dropout(self.embedding(tokens.t())).transpose(0, 1)

    def classify(self, embedded: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Classify a batch of embedded words.

        Args:
            embedded: (batch, time, embedding); what stands past each length is not read.
            lengths: (batch,) integers on the CPU, from 1 to time.

        Returns:
            (batch, num_classes) logits.
        """
        output, (h, _) = self.recurrence(embedded, lengths)
        # output: (batch, time, directions * hidden)
        directions = 2 if self.recurrence.bidirectional else 1
        pooled = pool(self.pooling, output, h[-directions:], lengths)  # (batch, directions*hidden)
        return self.output(self.dropout(pooled))

    @torch.no_grad()
    def _start_embedding(self, vectors: torch.Tensor | None) -> None:
        weight = self.embedding.weight
        if vectors is None:
            weight.normal_(0, _EMBEDDING_DEVIATION)
        elif vectors.shape != weight.shape:
            raise ValueError(f"vectors are {tuple(vectors.shape)}, expected {tuple(weight.shape)}")
        else:
            weight.copy_(vectors)
        weight[0] = 0


@torch.no_grad()
def _start_recurrence(
    recurrence: PackedLSTM, input_init: str, recurrent_init: str, forget_bias: float
) -> None:
    """Draw the LSTM's weights; matrices are (4 * hidden, ...), gates i, f, g, o."""
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
            if "_ih_" in name:  # bias_ih and bias_hh are added: one of them carries it
                parameter[hidden : 2 * hidden] = forget_bias
