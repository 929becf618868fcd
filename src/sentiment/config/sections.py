"""The sections of the settings: each setting with its default, its explanation and its bounds."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from math import isfinite
from typing import Any, Literal

from sentiment.runtime.errors import UserError

# What can be downloaded by name, with its dimension: a contradiction with the model's embedding
# is then refused before 800 MB are fetched.
VectorsName = Literal[
    "glove.6B.50d", "glove.6B.100d", "glove.6B.200d", "glove.6B.300d", "glove.840B.300d"
]

MOST = 2**31 - 1  # of what is counted: far beyond use, and within every integer of torch's


def require(holds: bool, key: str, value: Any, expected: str) -> None:
    """Raise ``UserError`` with the one message form of every check: key, value, what is valid."""
    if not holds:
        raise UserError(f"{key} is {value!r}, but must be {expected}")


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
            raise UserError(
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
            raise UserError(
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


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which reviews, how they are split, and how their text becomes tokens."""

    source: Literal["mini", "imdb"] = "mini"
    """Where reviews come from when no path is given: the embedded corpus or IMDB from the hub."""
    path: str | None = None
    """Local reviews instead of the source: a folder with train|validation|test.parquet, .csv,
    .tsv or .jsonl (columns text and label), or the original aclImdb folder."""
    class_names: tuple[str, ...] | None = None
    """Names of the classes in the order of their integers; null takes them from the labels."""
    validation: Literal["random", "stretches", "groups"] | None = None
    """What is held out of the training reviews where the data brings no validation split: single
    reviews at random; whole stretches of neighbouring rows, where reviews of one film, author or
    product stand together; or whole groups, by a column. null means stretches for the source imdb,
    else random."""
    stretch_length: int = 50
    """Neighbouring rows of a stretch, with data.validation stretches."""
    group_column: str | None = None
    """Column that names a row's group (a film, an author), with data.validation groups."""
    validation_share: float = 0.1
    """Share of the training reviews held out where the data brings no validation split."""
    validation_seed: int = 0
    """Seed of that hold-out, apart from the run's seed so that seeds compare on equal reviews."""
    num_folds: int | None = None
    """Hold out one of so many folds of the training reviews instead of a share; null does not."""
    fold: int = 1
    """Which of the folds is held out, from 1."""
    shared_reviews: Literal["report", "drop", "ignore"] = "report"
    """Copies of one review in two splits: report how many there are; drop them from train, and from
    validation where test holds them; or ignore them, which alone leaves the test split unopened."""
    max_length: int = 400
    """Tokens kept of a review; longer reviews are cut."""
    keep: Literal["head", "tail", "head+tail"] = "head"
    """Which tokens of a longer review are kept: the first, the last, or half of them each."""
    lower_case: bool = True
    """Whether tokens are lower-cased, as the GloVe 6B vectors are."""
    num_processes: int | None = None
    """Processes that tokenize; null takes as many as pay for themselves on the allowed cores."""
    cache_dir: str | None = None
    """Folder for tokenized reviews and downloaded vectors; null means ~/.cache/sentiment."""

    def __post_init__(self) -> None:
        require(self.source in ("mini", "imdb"), "data.source", self.source, "mini or imdb")
        require(self.path != "", "data.path", self.path, "a folder, or null")
        names = self.class_names
        if names is not None:
            require(len(names) >= 2, "data.class_names", names, "two names or more, or null")
            require(len(set(names)) == len(names), "data.class_names", names, "distinct names")
        share = self.validation_share
        require(0 < share < 1, "data.validation_share", share, "between 0 and 1, both excluded")
        require(self.validation_seed >= 0, "data.validation_seed", self.validation_seed, ">= 0")
        self._check_hold_out()
        length = self.max_length
        require(1 <= length <= MOST, "data.max_length", length, f"from 1 to {MOST:,} tokens")
        processes = self.num_processes
        within = processes is None or 1 <= processes <= 256
        require(within, "data.num_processes", processes, "from 1 to 256, or null")

    def _check_hold_out(self) -> None:
        length, folds = self.stretch_length, self.num_folds
        require(1 <= length <= MOST, "data.stretch_length", length, f"from 1 to {MOST:,} rows")
        column = self.group_column
        is_other = column not in ("", "text", "label")
        require(
            is_other, "data.group_column", column, "another column than text and label, or null"
        )
        if (self.validation == "groups") != (self.group_column is not None):
            raise UserError(
                f"data.validation is {self.validation!r} and data.group_column is "
                f"{self.group_column!r}: to hold out whole groups, set data.validation to groups "
                "and data.group_column to the column that names them"
            )
        within = folds is None or 2 <= folds <= MOST
        require(within, "data.num_folds", folds, f"from 2 to {MOST:,}, or null")
        last = folds or 1
        require(1 <= self.fold <= last, "data.fold", self.fold, f"from 1 to data.num_folds, {last}")

    @property
    def hold_out(self) -> Literal["random", "stretches", "groups"]:
        """What is held out, the default decided."""
        return self.validation or ("stretches" if self.source == "imdb" else "random")

    def hold_out_settings(self) -> dict[str, Any]:
        """The settings, under their dotted keys, that decide which reviews are held out."""
        found: dict[str, Any] = {"data.validation": self.hold_out}
        if self.hold_out == "stretches":
            found["data.stretch_length"] = self.stretch_length
        if self.hold_out == "groups":
            found["data.group_column"] = self.group_column
        if self.num_folds is None:
            found["data.validation_share"] = self.validation_share
        else:
            found |= {"data.num_folds": self.num_folds, "data.fold": self.fold}
        return found | {"data.validation_seed": self.validation_seed}

    def describe_hold_out(self) -> str:
        """The same in words: by what, and which fold."""
        words = {
            "random": "at random",
            "stretches": f"by stretches of {self.stretch_length} neighbouring rows",
            "groups": f"by groups of {self.group_column}",
        }[self.hold_out]
        return words if self.num_folds is None else f"{words}, fold {self.fold} of {self.num_folds}"


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
