"""The sections on what is learned beside the labels: objectives, pre-training, distillation."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Literal

from sentiment.config.sections import MOST, require
from sentiment.runtime.errors import UserError


@dataclass(frozen=True, kw_only=True)
class ObjectivesConfig:
    """Terms added to the supervised loss, each by its weight; at 0 a term is off."""

    adversarial: float = 0.0
    """Weight of the loss at words moved to where their review's label is least likely."""
    virtual_adversarial: float = 0.0
    """Weight of how far a prediction changes at words moved to where it changes most."""
    entropy: float = 0.0
    """Weight of the predictions' entropy: how undecided they are."""
    perturbation_norm: float = 5.0
    """How far all words of a review are moved together: the L2 norm over their embeddings."""
    power_iterations: int | None = None
    """Steps of the power method that look for where a prediction changes most; null takes one, and
    none for two classes, where a gradient is that direction."""
    finite_difference: float = 1.0
    """How far such a step moves the words to see what changes, as a norm; in bf16, what much
    smaller ones change is rounded away."""
    unlabelled: bool = True
    """Whether virtual_adversarial and entropy learn from the source's unsupervised split too."""
    unlabelled_batch_size: int | None = None
    """Size of the batch without labels beside each batch with them, in training.batch_unit; null
    takes training.batch_size."""

    def __post_init__(self) -> None:
        for name in ("adversarial", "virtual_adversarial", "entropy"):
            weight = getattr(self, name)
            valid = weight >= 0 and isfinite(weight)
            require(valid, f"objectives.{name}", weight, ">= 0 and finite")
        for name in ("perturbation_norm", "finite_difference"):
            norm = getattr(self, name)
            valid = norm > 0 and isfinite(norm)
            require(valid, f"objectives.{name}", norm, "above 0 and finite")
        steps = self.power_iterations
        valid = steps is None or 1 <= steps <= 100
        require(valid, "objectives.power_iterations", steps, "from 1 to 100, or null")
        size = self.unlabelled_batch_size
        valid = size is None or 1 <= size < 2**31
        require(valid, "objectives.unlabelled_batch_size", size, "from 1 to 2,147,483,647, or null")

    @property
    def are_any(self) -> bool:
        """Whether there is any term but the supervised one."""
        return max(self.adversarial, self.virtual_adversarial, self.entropy) > 0


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
            raise UserError(
                f"pretraining.window is {self.window}, but an autoencoder reads a review twice and "
                f"must remember all of it: set it to {least}, twice pretraining.max_length, or "
                "lower that too"
            )

    @property
    def is_wanted(self) -> bool:
        """Whether a classifier is to start from a language model."""
        return self.path is not None or self.num_epochs > 0


MOST_TEACHERS = 100
_LOWEST, _HIGHEST = 0.1, 100.0  # temperatures; beyond, probabilities are 0 and 1, or all alike


@dataclass(frozen=True, kw_only=True)
class DistillationConfig:
    """Learning from what other runs say of unlabelled reviews; off without teachers.

    A student learns the probabilities that its teachers give (Hinton, Vinyals & Dean 2015).
    """

    teachers: tuple[str, ...] | None = None
    """Folders of finished runs, as [runs/a, runs/b], with the same validation reviews held out: the
    mean of their probabilities labels the source's unsupervised split. null for none."""
    num_teachers: int = 0
    """Teachers to train first, instead of naming some: by the same settings with other seeds,
    beside the run's folder, where finished ones are used again and --overwrite replaces others; 0
    trains none."""
    weight: float = 1.0
    """Weight of the cross-entropy of predictions against these labels."""
    temperature: float = 1.0
    """What logits are divided by, the teachers' and in this term the student's; above 1, labels
    say more of the classes that are not the likeliest."""

    def __post_init__(self) -> None:
        folders = self.teachers
        is_named = folders is None or (len(folders) > 0 and all(each.strip() for each in folders))
        require(is_named, "distillation.teachers", folders, "folders, or null")
        are_distinct = folders is None or len(set(folders)) == len(folders)
        require(are_distinct, "distillation.teachers", folders, "different folders")
        count = self.num_teachers
        valid = 0 <= count <= MOST_TEACHERS
        require(valid, "distillation.num_teachers", count, f"from 0 to {MOST_TEACHERS}")
        weight = self.weight
        valid = 0 < weight < float("inf")
        require(valid, "distillation.weight", weight, "above 0 and finite")
        temperature = self.temperature
        valid = _LOWEST <= temperature <= _HIGHEST
        allowed = f"from {_LOWEST} to {_HIGHEST:g}"
        require(valid, "distillation.temperature", temperature, allowed)

    @property
    def is_wanted(self) -> bool:
        """Whether there is anybody to learn from."""
        return self.teachers is not None or self.trains_teachers

    @property
    def off(self) -> str:
        """What would have to be set for there to be none, for messages."""
        if self.trains_teachers:
            return "distillation.num_teachers to 0"
        return "distillation.teachers to null"

    @property
    def trains_teachers(self) -> bool:
        """Whether teachers are to be trained first."""
        return self.teachers is None and self.num_teachers > 0
