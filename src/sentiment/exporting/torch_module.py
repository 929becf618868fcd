"""A classifier as a TorchScript program, which torch loads without this package.

A review's reverse direction is a forward one over the review turned round within its length: then
padding only follows the words, and torch's own recurrences over padded batches need not know of
it. (``torch.export`` fixes the number of steps of a recurrence; TorchScript leaves it open.)

Legend: directions is 2 if bidirectional, else 1; features is directions * hidden.
"""

from __future__ import annotations

import torch
from torch import nn

from sentiment.exporting.parts import Attention, Direction, Parts


class ScriptedClassifier(nn.Module):
    """Token ids to logits, equal to :class:`sentiment.model.SentimentClassifier`.

    Args:
        parts: the classifier.
    """

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.embedding = nn.Embedding.from_pretrained(parts.embedding)
        self.layers = nn.ModuleList(_Layer(parts.cell, layer) for layer in parts.layers)
        self.poolings = list(parts.poolings)
        self.attention = _AttentionPooling(parts.attention) if parts.attention else None
        self.num_directions = len(parts.layers[0])
        self.output = nn.Linear(parts.output_weight.shape[1], parts.output_weight.shape[0])
        _fill(self.output, weight=parts.output_weight, bias=parts.output_bias)

    def forward(self, tokens: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Classify a batch.

        Args:
            tokens: (batch, time) ids; what stands past each length is not read.
            lengths: (batch,) integers from 1 to time, on any device.

        Returns:
            (batch, num_classes) logits.
        """
        lengths = lengths.to(tokens.device)
        x = self.embedding(tokens.t())  # (time, batch, embedding)
        steps = torch.arange(x.size(0), device=x.device).unsqueeze(1)
        is_inside = steps < lengths  # (time, batch)
        turned = torch.where(is_inside, lengths - 1 - steps, steps)
        for layer in self.layers:
            x = layer(x, turned)  # (time, batch, features)
        is_inside = is_inside.unsqueeze(2)  # (time, batch, 1)
        pooled = [self.pool(kind, x, is_inside, lengths) for kind in self.poolings]
        return self.output(torch.cat(pooled, dim=1))

    def pool(
        self, kind: str, x: torch.Tensor, is_inside: torch.Tensor, lengths: torch.Tensor
    ) -> torch.Tensor:
        """(time, batch, features) to (batch, features)."""
        if self.attention is not None and kind == "attention":
            return self.attention(x, is_inside)
        if kind == "max":
            return x.masked_fill(~is_inside, float("-inf")).amax(0)
        if kind == "mean":
            return x.masked_fill(~is_inside, 0.0).sum(0) / lengths.unsqueeze(1)
        last = x[lengths - 1, torch.arange(x.size(1), device=x.device)]  # (batch, features)
        if self.num_directions == 1:
            return last
        hidden = x.size(2) // 2
        return torch.cat((last[:, :hidden], x[0, :, hidden:]), dim=1)


class _Layer(nn.Module):
    """One layer, (time, batch, input) to (time, batch, features)."""

    def __init__(self, cell: str, directions: list[Direction]) -> None:
        super().__init__()
        kind = _LSTMDirection if cell == "LSTM" else _PlainDirection
        self.forwards = kind(cell, directions[0])
        self.backwards = kind(cell, directions[1]) if len(directions) == 2 else None

    def forward(self, x: torch.Tensor, turned: torch.Tensor) -> torch.Tensor:
        output = self.forwards(x)
        if self.backwards is not None:
            read = x.gather(0, turned.unsqueeze(2).expand(-1, -1, x.size(2)))
            reverse = self.backwards(read)
            back = reverse.gather(0, turned.unsqueeze(2).expand(-1, -1, reverse.size(2)))
            output = torch.cat((output, back), dim=2)
        return output


class _LSTMDirection(nn.Module):
    def __init__(self, cell: str, direction: Direction) -> None:
        super().__init__()
        assert cell == "LSTM" and direction.c is not None
        self.recurrence = nn.LSTM(direction.weight_ih.shape[1], len(direction.h))
        _fill_recurrence(self.recurrence, direction)
        self.h = nn.Parameter(direction.h, requires_grad=False)
        self.c = nn.Parameter(direction.c, requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.h.expand(1, x.size(1), -1).contiguous()
        c = self.c.expand(1, x.size(1), -1).contiguous()
        return self.recurrence(x, (h, c))[0]


class _PlainDirection(nn.Module):
    def __init__(self, cell: str, direction: Direction) -> None:
        super().__init__()
        kind = {"GRU": nn.GRU, "RNN_TANH": nn.RNN}[cell]
        self.recurrence = kind(direction.weight_ih.shape[1], len(direction.h))
        _fill_recurrence(self.recurrence, direction)
        self.h = nn.Parameter(direction.h, requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.recurrence(x, self.h.expand(1, x.size(1), -1).contiguous())[0]


class _AttentionPooling(nn.Module):
    def __init__(self, attention: Attention) -> None:
        super().__init__()
        features = len(attention.context)
        self.projection = nn.Linear(features, features)
        _fill(self.projection, weight=attention.weight, bias=attention.bias)
        self.context = nn.Parameter(attention.context, requires_grad=False)

    def forward(self, x: torch.Tensor, is_inside: torch.Tensor) -> torch.Tensor:
        scores = torch.matmul(self.projection(x).tanh(), self.context).unsqueeze(2)
        weights = scores.masked_fill(~is_inside, float("-inf")).softmax(0)  # (time, batch, 1)
        return (x * weights).sum(0)


def _fill_recurrence(recurrence: nn.Module, direction: Direction) -> None:
    _fill(
        recurrence,
        weight_ih_l0=direction.weight_ih,
        weight_hh_l0=direction.weight_hh,
        bias_ih_l0=direction.bias_ih,
        bias_hh_l0=direction.bias_hh,
    )


def _fill(module: nn.Module, **weights: torch.Tensor) -> None:
    module.load_state_dict(weights)
    module.requires_grad_(False)
