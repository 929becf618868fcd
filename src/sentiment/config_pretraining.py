"""Settings of the language model that a classifier's embedding and recurrence start from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sentiment.config_sections import MOST, require


@dataclass(frozen=True, kw_only=True)
class PretrainingConfig:
    """Pre-training on training and unlabelled reviews; off unless epochs or a path say so.

    A language model learns to tell each word from those before it, and in the reverse direction
    from those after it (Dai & Le 2015).

    Of the other sections these settings count: all of data and vocabulary but data.max_length and
    data.keep; vectors; what shapes and starts the model's embedding and recurrence; model.dropout
    between layers, where there are several, and none of the model's other dropouts; and of training
    the precision, and how often it logs and makes checkpoints.
    """

    path: str | None = None
    """A folder that sentiment pretrain has written, to start from, whatever num_epochs is; null
    pre-trains where num_epochs is above 0."""
    num_epochs: int = 0
    """Passes over the reviews; 0 pre-trains nothing, as does a path, from
    which training starts instead."""
    unlabelled: bool = True
    """Whether the source's unsupervised split is read too, beside the training reviews."""
    objective: Literal["language_model", "autoencoder"] = "language_model"
    """What is learned: the next word, or to repeat a whole review from its final state."""
    batch_size: int = 64
    """Reviews in a batch."""
    max_length: int = 1000
    """Tokens kept of a review."""
    window: int = 100
    """Words that gradients flow back over; the state is carried on beyond."""
    learning_rate: float = 2e-3
    """Learning rate after warm-up, from where it falls to 0 by a line."""
    warmup_share: float = 0.02
    """Share of all updates over which the learning rate rises from 0."""
    gradient_clip: float = 1.0
    """Largest norm of the gradient."""
    dropout: float = 0.2
    """Share of embedded words' values, and of the recurrence's outputs, dropped in training."""
    num_candidates: int = 512
    """Words that the right one is told from at each update, drawn by their frequency."""

    def __post_init__(self) -> None:
        require(self.path != "", "pretraining.path", self.path, "a folder, or null")
        epochs = self.num_epochs
        require(0 <= epochs <= MOST, "pretraining.num_epochs", epochs, f"from 0 to {MOST:,}")
        for name in ("batch_size", "window", "num_candidates"):
            value = getattr(self, name)
            require(1 <= value <= MOST, f"pretraining.{name}", value, f"from 1 to {MOST:,}")
        length = self.max_length
        require(2 <= length <= MOST, "pretraining.max_length", length, f"from 2 to {MOST:,} tokens")
        for name in ("learning_rate", "gradient_clip"):
            value = getattr(self, name)
            valid = 0 < value < float("inf")
            require(valid, f"pretraining.{name}", value, "above 0 and finite")
        for name in ("warmup_share", "dropout"):
            value = getattr(self, name)
            require(0 <= value < 1, f"pretraining.{name}", value, "from 0 to below 1")

        least = 2 * self.max_length
        if self.objective == "autoencoder" and self.window < least:
            raise ValueError(
                f"pretraining.window is {self.window}, but an autoencoder reads a review twice and "
                f"must remember all of it: set it to {least}, twice pretraining.max_length, or "
                "lower that too"
            )

    @property
    def is_wanted(self) -> bool:
        """Whether a classifier is to start from a language model."""
        return self.path is not None or self.num_epochs > 0
