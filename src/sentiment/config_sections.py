"""The sections of a run's settings: each setting with its default, explanation and check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

# What can be downloaded by name, with its dimension: a contradiction with the model's embedding
# is then refused before 800 MB are fetched.
VectorsName = Literal[
    "glove.6B.50d", "glove.6B.100d", "glove.6B.200d", "glove.6B.300d", "glove.840B.300d"
]

MOST = 2**31 - 1  # of what is counted: far beyond use, and within every integer of torch's


def require(holds: bool, key: str, value: Any, expected: str) -> None:
    """Raise ``ValueError`` with the one message form of every check: key, value, what is valid."""
    if not holds:
        raise ValueError(f"{key} is {value!r}, but must be {expected}")


@dataclass(frozen=True, kw_only=True)
class VocabularyConfig:
    """Which tokens of the training split get an embedding of their own."""

    max_size: int | None = 30_000
    """Most frequent tokens kept, <pad> and <unk> not counted; null keeps all."""
    min_frequency: int = 2
    """Occurrences in the training split below which a token is unknown."""
    min_groups: int = 1
    """Stretches or groups (data.validation; single reviews, where it is random) of the training
    split in which a token must occur: leaves out names that belong to one film."""

    def __post_init__(self) -> None:
        size = self.max_size
        require(size is None or size >= 1, "vocabulary.max_size", size, "at least 1, or null")
        frequency = self.min_frequency
        require(frequency >= 1, "vocabulary.min_frequency", frequency, "at least 1")
        require(self.min_groups >= 1, "vocabulary.min_groups", self.min_groups, "at least 1")


@dataclass(frozen=True, kw_only=True)
class VectorsConfig:
    """Pre-trained word vectors the embedding starts from."""

    name: VectorsName | None = None
    """GloVe vectors to download once and keep in the cache; null without a path means none."""
    path: str | None = None
    """A file in GloVe's text format (.txt, .gz or .zip) to use instead of downloading."""
    freeze: bool = False
    """Whether the embedding stays as loaded instead of being trained further."""

    def __post_init__(self) -> None:
        require(self.path != "", "vectors.path", self.path, "a file, or null")
        if self.freeze and self.name is None and self.path is None:
            raise ValueError(
                "vectors.freeze is True, but there is nothing to freeze: set vectors.name or "
                "vectors.path, or vectors.freeze to false"
            )

    @property
    def dimension_by_name(self) -> int | None:
        """Dimension that the vectors to be downloaded have, None where a file decides."""
        if self.path is not None or self.name is None:
            return None
        return int(self.name.rsplit(".", 1)[1].removesuffix("d"))


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Batches, optimizer, schedule, stopping and logging."""

    num_epochs: int = 5
    """Passes over the training split at most."""
    batch_size: int = 64
    """Size of a batch, in the unit below."""
    batch_unit: Literal["reviews", "tokens"] = "reviews"
    """What batch_size counts; by tokens, short reviews come in larger batches."""
    accumulation_steps: int = 1
    """Batches whose gradients are added up before one update."""
    optimizer: Literal["adam", "adamw"] = "adam"
    """Adam, or AdamW, whose weight decay is decoupled from the gradient."""
    learning_rate: float = 1e-3
    """Learning rate after warm-up."""
    weight_decay: float = 0.0
    """Weight decay of the weight matrices; biases and the embedding are left out."""
    schedule: Literal["constant", "linear", "cosine", "plateau"] = "constant"
    """Learning rate after warm-up: constant, down to 0 by a line or a cosine, or reduced when the
    monitored metric stands still."""
    warmup_share: float = 0.0
    """Share of all updates over which the learning rate rises from 0."""
    plateau_factor: float = 0.5
    """What schedule plateau multiplies the learning rate by."""
    plateau_patience: int = 1
    """Epochs without improvement that schedule plateau waits."""
    gradient_clip: float | None = 1.0
    """Largest norm of the gradient, which is scaled down to it; null does not clip."""
    layer_rate_factor: float = 1.0
    """What each layer's learning rate is of the one above it, from the linear layer down to the
    embedding: below 1, what is pre-trained changes less."""
    unfreeze_epochs: float | None = None
    """Epochs after which the next layer down begins to learn; null trains all from the first."""
    average_decay: float | None = None
    """How much of the weights' running average an update keeps, as 0.999; the averaged weights are
    then validated and kept. Null averages nothing."""
    label_smoothing: float = 0.0
    """Share of a label's weight spread evenly over all classes."""
    monitor: Literal["accuracy", "f1", "auroc", "nll"] = "accuracy"
    """Validation metric that decides the best checkpoint, plateau and early stopping."""
    patience: int | None = None
    """Epochs without improvement after which training stops; null trains all epochs."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of the matrix products: auto takes bf16 where the hardware has it."""
    nonfinite: Literal["stop", "skip"] = "stop"
    """What a loss or gradient that is no finite number does: end training, or skip its update."""
    log_every: int = 20
    """Updates between two points of the step curves in TensorBoard."""
    checkpoint_minutes: float | None = 5.0
    """Minutes between two checkpoints for --resume inside an epoch; null makes none by time."""
    checkpoint_updates: int | None = None
    """Updates between two checkpoints for --resume; null makes none by count. Each epoch ends with
    one in any case."""
    pictures: bool = True
    """Whether TensorBoard gets pictures and explained reviews each epoch, some seconds of work."""

    def __post_init__(self) -> None:
        for name in ("num_epochs", "batch_size", "accumulation_steps", "log_every"):
            value = getattr(self, name)
            require(1 <= value <= MOST, f"training.{name}", value, f"from 1 to {MOST:,}")
        minutes = self.checkpoint_minutes
        valid = minutes is None or 0 < minutes < float("inf")
        require(valid, "training.checkpoint_minutes", minutes, "above 0, or null")
        updates = self.checkpoint_updates
        valid = updates is None or 1 <= updates <= MOST
        require(valid, "training.checkpoint_updates", updates, "at least 1, or null")
        rate = self.learning_rate
        require(0 < rate < float("inf"), "training.learning_rate", rate, "above 0 and finite")
        decay = self.weight_decay
        require(0 <= decay < float("inf"), "training.weight_decay", decay, ">= 0 and finite")
        share = self.warmup_share
        require(0 <= share < 1, "training.warmup_share", share, "from 0 to below 1")
        factor = self.plateau_factor
        require(0 < factor < 1, "training.plateau_factor", factor, "between 0 and 1")
        patience = self.plateau_patience
        require(patience >= 0, "training.plateau_patience", patience, ">= 0")
        clip = self.gradient_clip
        require(clip is None or clip > 0, "training.gradient_clip", clip, "above 0, or null")
        factor = self.layer_rate_factor
        require(0 < factor <= 1, "training.layer_rate_factor", factor, "above 0 and at most 1")
        wait = self.unfreeze_epochs
        valid = wait is None or 0 < wait < float("inf")
        require(valid, "training.unfreeze_epochs", wait, "above 0, or null")
        if wait is not None and self.schedule == "plateau":
            raise ValueError(
                "training.unfreeze_epochs and schedule 'plateau' both wait: choose another "
                "training.schedule"
            )
        average = self.average_decay
        within = average is None or 0 < average < 1
        require(
            within, "training.average_decay", average, "between 0 and 1, both excluded, or null"
        )
        smoothing = self.label_smoothing
        require(0 <= smoothing < 1, "training.label_smoothing", smoothing, "from 0 to below 1")
        stop = self.patience
        require(stop is None or stop >= 1, "training.patience", stop, "at least 1, or null")
