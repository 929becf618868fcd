"""Every setting of a run, with its default, its explanation and its check in one place.

The classes are frozen: a run's settings are decided once, before anything is read. They are plain
data and import nothing heavy, so that ``--help`` and a mistyped key answer at once; turning files
and command lines into them is the business of :mod:`sentiment.settings`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Literal

# What can be downloaded by name, with its dimension: a contradiction with the model's embedding
# is then refused before 800 MB are fetched.
VectorsName = Literal[
    "glove.6B.50d", "glove.6B.100d", "glove.6B.200d", "glove.6B.300d", "glove.840B.300d"
]

_MOST = 2**31 - 1  # of what is counted: far beyond use, and within every integer of torch's


def _require(holds: bool, key: str, value: Any, expected: str) -> None:
    """Raise ``ValueError`` with the one message form of every check: key, value, what is valid."""
    if not holds:
        raise ValueError(f"{key} is {value!r}, but must be {expected}")


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
    validation_share: float = 0.1
    """Share of the training reviews held out where the data brings no validation split."""
    validation_seed: int = 0
    """Seed of that hold-out, apart from the run's seed so that seeds compare on equal reviews."""
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
        _require(self.source in ("mini", "imdb"), "data.source", self.source, "mini or imdb")
        _require(self.path != "", "data.path", self.path, "a folder, or null")
        names = self.class_names
        if names is not None:
            _require(len(names) >= 2, "data.class_names", names, "two names or more, or null")
            _require(len(set(names)) == len(names), "data.class_names", names, "distinct names")
        share = self.validation_share
        _require(0 < share < 1, "data.validation_share", share, "between 0 and 1, both excluded")
        _require(self.validation_seed >= 0, "data.validation_seed", self.validation_seed, ">= 0")
        length = self.max_length
        _require(1 <= length <= _MOST, "data.max_length", length, f"from 1 to {_MOST:,} tokens")
        processes = self.num_processes
        within = processes is None or 1 <= processes <= 256
        _require(within, "data.num_processes", processes, "from 1 to 256, or null")


@dataclass(frozen=True, kw_only=True)
class VocabularyConfig:
    """Which tokens of the training split get an embedding of their own."""

    max_size: int | None = 30_000
    """Most frequent tokens kept, <pad> and <unk> not counted; null keeps all."""
    min_frequency: int = 2
    """Occurrences in the training split below which a token is unknown."""

    def __post_init__(self) -> None:
        size = self.max_size
        _require(size is None or size >= 1, "vocabulary.max_size", size, "at least 1, or null")
        frequency = self.min_frequency
        _require(frequency >= 1, "vocabulary.min_frequency", frequency, "at least 1")


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
        _require(self.path != "", "vectors.path", self.path, "a file, or null")
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
class ModelConfig:
    """Embedding, packed LSTM, pooling over time, linear layer to the classes."""

    embedding_size: int = 100
    """Dimension of the word embedding, and of the vectors it starts from."""
    hidden_size: int = 256
    """Units of the LSTM in each direction."""
    num_layers: int = 1
    """LSTM layers stacked on one another."""
    bidirectional: bool = True
    """Whether a second LSTM reads each review from its end."""
    pooling: Literal["last", "mean", "max"] = "max"
    """What of the outputs over time reaches the linear layer: final states, mean or maximum."""
    embedding_dropout: float = 0.5
    """Share of the embedding's values dropped in training."""
    dropout: float = 0.5
    """Share dropped between LSTM layers and before the linear layer in training."""
    input_init: Literal["xavier", "uniform"] = "xavier"
    """Start of the input weights: Xavier uniform, or PyTorch's uniform in 1/sqrt(hidden_size)."""
    recurrent_init: Literal["orthogonal", "uniform"] = "orthogonal"
    """Start of the recurrent weights: orthogonal for each gate, or PyTorch's uniform."""
    forget_bias: float = 1.0
    """Start of the forget gate's bias: above 0 the cell remembers from the first step on."""

    def __post_init__(self) -> None:
        for name, most in (("embedding_size", 65_536), ("hidden_size", 65_536), ("num_layers", 64)):
            value = getattr(self, name)
            _require(1 <= value <= most, f"model.{name}", value, f"from 1 to {most:,}")
        _require(isfinite(self.forget_bias), "model.forget_bias", self.forget_bias, "finite")
        for name in ("embedding_dropout", "dropout"):
            value = getattr(self, name)
            _require(0 <= value < 1, f"model.{name}", value, "from 0 to below 1")


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
    label_smoothing: float = 0.0
    """Share of a label's weight spread evenly over all classes."""
    monitor: Literal["accuracy", "f1", "auroc", "nll"] = "accuracy"
    """Validation metric that decides the best checkpoint, plateau and early stopping."""
    patience: int | None = None
    """Epochs without improvement after which training stops; null trains all epochs."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of the matrix products: auto takes bf16 where the hardware has it."""
    log_every: int = 20
    """Updates between two points of the step curves in TensorBoard."""

    def __post_init__(self) -> None:
        for name in ("num_epochs", "batch_size", "accumulation_steps", "log_every"):
            value = getattr(self, name)
            _require(1 <= value <= _MOST, f"training.{name}", value, f"from 1 to {_MOST:,}")
        rate = self.learning_rate
        _require(0 < rate < float("inf"), "training.learning_rate", rate, "above 0 and finite")
        decay = self.weight_decay
        _require(0 <= decay < float("inf"), "training.weight_decay", decay, ">= 0 and finite")
        share = self.warmup_share
        _require(0 <= share < 1, "training.warmup_share", share, "from 0 to below 1")
        factor = self.plateau_factor
        _require(0 < factor < 1, "training.plateau_factor", factor, "between 0 and 1")
        patience = self.plateau_patience
        _require(patience >= 0, "training.plateau_patience", patience, ">= 0")
        clip = self.gradient_clip
        _require(clip is None or clip > 0, "training.gradient_clip", clip, "above 0, or null")
        smoothing = self.label_smoothing
        _require(0 <= smoothing < 1, "training.label_smoothing", smoothing, "from 0 to below 1")
        stop = self.patience
        _require(stop is None or stop >= 1, "training.patience", stop, "at least 1, or null")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of one training run."""

    output_dir: str = "runs/quickstart"
    """The run's folder: everything that training and evaluating write."""
    seed: int = 0
    """Seed of weights, dropout and the order of the batches."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 (any number) or mps; auto takes the best there is."""
    data: DataConfig = field(default_factory=DataConfig)
    vocabulary: VocabularyConfig = field(default_factory=VocabularyConfig)
    vectors: VectorsConfig = field(default_factory=VectorsConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def __post_init__(self) -> None:
        _require(self.output_dir.strip() != "", "output_dir", self.output_dir, "a folder")
        _require(0 <= self.seed < 2**32, "seed", self.seed, "from 0 to 2**32 - 1")
        check_device_name(self.device)
        dimension = self.vectors.dimension_by_name
        if dimension is not None and dimension != self.model.embedding_size:
            raise ValueError(
                f"vectors.name is {self.vectors.name!r} of {dimension} dimensions, but "
                f"model.embedding_size is {self.model.embedding_size}: set model.embedding_size "
                f"to {dimension} or choose other vectors"
            )
        training = self.training
        if training.batch_unit == "tokens" and training.batch_size < self.data.max_length:
            raise ValueError(
                f"training.batch_size is {training.batch_size} tokens, but data.max_length is "
                f"{self.data.max_length}: a batch must hold a review; set training.batch_size to "
                "some 10,000 or training.batch_unit to reviews"
            )
        if self.training.optimizer == "adam" and self.training.weight_decay > 0:
            raise ValueError(
                f"training.weight_decay is {self.training.weight_decay}, but training.optimizer "
                "is 'adam', which does not decay weights: set training.optimizer to adamw"
            )


def check_device_name(device: str) -> None:
    """Raise ``ValueError`` unless ``device`` is a name that :mod:`sentiment.runtime` knows."""
    known = re.fullmatch(r"auto|cpu|mps|cuda(:(0|[1-9]\d{0,2}))?", device)
    _require(known is not None, "device", device, "auto, cpu, cuda, cuda:1 (any number) or mps")
