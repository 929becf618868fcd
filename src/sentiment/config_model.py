"""The section of a run's settings that says what the model is."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from math import isfinite
from typing import Literal

from sentiment.config_sections import require

_POOLINGS = ("last", "mean", "max", "attention")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Embedding, recurrence, pooling over time, linear layer to the classes."""

    embedding_size: int = 100
    """Dimension of the word embedding, and of the vectors it starts from."""
    hidden_size: int = 256
    """Units of the recurrence in each direction."""
    num_layers: int = 1
    """Recurrent layers stacked on one another."""
    bidirectional: bool = True
    """Whether a second recurrence reads each review from its end."""
    cell: Literal["lstm", "gru", "rnn"] = "lstm"
    """What a recurrent step computes: LSTM, GRU, or a plain RNN with tanh."""
    implementation: Literal["packed", "reference"] = "packed"
    """The fast one, or an LSTM written out gate by gate: for reading and checking, and slow."""
    learned_initial_state: bool = False
    """Whether the states before the first word are learned instead of zero."""
    pooling: str = "max"
    """What of the outputs over time goes on: final states (last), mean, max, or a mean by learned
    weights (attention); or several of them side by side, as last+max+mean."""
    word_dropout: float = 0.0
    """Share of the words made unknown in training."""
    embedding_dropout: float = 0.5
    """Share of the embedding's values dropped in training."""
    locked_dropout: bool = False
    """Whether the embedding's dropout takes the same values of all words of a review."""
    normalize_embedding: bool = False
    """Whether the embedding is normalized to mean 0 and variance 1 over the training texts."""
    dropout: float = 0.5
    """Share dropped between recurrent layers and before the linear layer in training."""
    weight_dropout: float = 0.0
    """Share of the recurrent weight matrices dropped in training, the same for a whole batch."""
    input_init: Literal["xavier", "uniform"] = "xavier"
    """Start of the input weights: Xavier uniform, or PyTorch's uniform in 1/sqrt(hidden_size)."""
    recurrent_init: Literal["orthogonal", "uniform"] = "orthogonal"
    """Start of the recurrent weights: orthogonal for each gate, or PyTorch's uniform."""
    forget_bias: float = 1.0
    """Start of an LSTM's forget gate's bias: above 0 the cell remembers from the first step on."""

    def __post_init__(self) -> None:
        for name, most in (("embedding_size", 65_536), ("hidden_size", 65_536), ("num_layers", 64)):
            value = getattr(self, name)
            require(1 <= value <= most, f"model.{name}", value, f"from 1 to {most:,}")
        require(isfinite(self.forget_bias), "model.forget_bias", self.forget_bias, "finite")
        for name in ("word_dropout", "embedding_dropout", "dropout", "weight_dropout"):
            value = getattr(self, name)
            require(0 <= value < 1, f"model.{name}", value, "from 0 to below 1")
        kinds = self.pooling.split("+")
        known = set(kinds) <= set(_POOLINGS) and len(set(kinds)) == len(kinds)
        require(known, "model.pooling", self.pooling, _expected_pooling(kinds))
        fits = self.implementation == "packed" or self.cell == "lstm"
        expected = "lstm where model.implementation is 'reference', or that must be packed"
        require(fits, "model.cell", self.cell, expected)


def _expected_pooling(kinds: list[str]) -> str:
    """What pooling must be, with what one of another kind was probably meant to be."""
    unknown = [kind for kind in kinds if kind not in _POOLINGS]
    near = difflib.get_close_matches(unknown[0], _POOLINGS, n=1, cutoff=0.5) if unknown else []
    hint = f" (did you mean {near[0]}?)" if near else ""
    return f"one of {', '.join(_POOLINGS)}, or different ones joined by +, as last+max+mean{hint}"
