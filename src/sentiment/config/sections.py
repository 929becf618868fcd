"""The sections of the settings: each setting with its default, its explanation and its bounds."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from sentiment.display.console import did_you_mean
from sentiment.runtime.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """A range of numbers, without infinity unless ``finite`` is False."""

    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None
    finite: bool = True

    def allows(self, value: float) -> bool:
        return (
            (self.ge is None or value >= self.ge)
            and (self.gt is None or value > self.gt)
            and (self.le is None or value <= self.le)
            and (self.lt is None or value < self.lt)
            and (isinstance(value, int) or isfinite(value) or not self.finite)
        )

    def describe(self, value: float) -> str:
        """The range in words, for a message about ``value``."""
        if self.gt is not None and self.lt is not None:
            return f"between {self.gt:,} and {self.lt:,}, both excluded"
        lower = "" if self.gt is None else f"above {self.gt:,}"
        if self.ge is not None:
            is_open = self.le is None and self.lt is None
            lower = f"at least {self.ge:,}" if is_open else f"from {self.ge:,}"
        if self.le is not None:
            return f"{lower} {'to' if self.gt is None else 'and at most'} {self.le:,}"
        if self.lt is not None:
            return f"{lower} to below {self.lt:,}"
        if isinstance(value, int) or not self.finite:
            return lower
        return f"{lower} and finite" if lower else "finite"


@dataclass(frozen=True)
class NonBlank:
    """A text that is not blank; ``what`` describes valid values, such as "a folder"."""

    what: str

    def allows(self, value: str) -> bool:
        return value.strip() != ""

    def describe(self, value: str) -> str:
        return self.what


def require(holds: bool, key: str, value: Any, expected: str) -> None:
    """Raise ``UserError`` with the key, its value and what is valid, unless it holds."""
    if not holds:
        raise UserError(f"{key} is {value!r}, but must be {expected}")


def check_bounds(section: Any, prefix: str = "") -> None:
    """Raise ``UserError`` if a setting of a section is outside the bounds in its type."""
    for name, (bounds, allows_none) in _bounds(section.__class__).items():
        value = getattr(section, name)
        if value is None and allows_none:
            continue
        expected = bounds.describe(value) + (", or null" if allows_none else "")
        require(bounds.allows(value), prefix + name, value, expected)


@functools.cache
def _bounds(section: type) -> dict[str, tuple[Bounds | NonBlank, bool]]:
    """The bounds of each setting that has some, and whether it may be null."""
    hints = get_type_hints(section, include_extras=True)
    return {
        name: (hint.__metadata__[0], type(None) in get_args(hint.__origin__))
        for name, hint in hints.items()
        if get_origin(hint) is Annotated
    }


# GloVe files that can be downloaded by name. The name holds the dimension, so that vectors that do
# not fit the model's embedding are refused before 800 MB are fetched.
VectorsName = Literal[
    "glove.6B.50d", "glove.6B.100d", "glove.6B.200d", "glove.6B.300d", "glove.840B.300d"
]

# Validation metrics that decide which epoch, trial or search is the best.
Metric = Literal["accuracy", "f1", "macro_f1", "auroc", "nll"]

MAX_COUNT = 2**31 - 1  # far beyond use, and within every integer type of torch
MAX_TEACHERS = 100

# Types that several settings share.
Count = Annotated[int, Bounds(ge=1, le=MAX_COUNT)]
PositiveFloat = Annotated[float, Bounds(gt=0)]
NonNegativeFloat = Annotated[float, Bounds(ge=0)]
Share = Annotated[float, Bounds(ge=0, lt=1)]
OpenShare = Annotated[float, Bounds(gt=0, lt=1)]


@dataclass(frozen=True, kw_only=True)
class VocabularyConfig:
    """Which tokens of the training split get an embedding."""

    max_size: Annotated[int | None, Bounds(ge=1)] = 30_000
    """Most frequent tokens kept, not counting <pad> and <unk>; null keeps all."""
    min_frequency: Annotated[int, Bounds(ge=1)] = 2
    """Tokens with fewer occurrences in the training split are unknown."""
    min_groups: Annotated[int, Bounds(ge=1)] = 1
    """Smallest number of stretches or groups (see data.validation; single reviews if it is random)
    in which a token must occur; leaves out names from a single film."""
    min_spread: Annotated[float, Bounds(ge=0, le=1)] = 0.0
    """Smallest ratio of the stretches or groups in which a token occurs to those in which it would
    if its reviews were random ones; leaves out names and subjects of a few films, also frequent
    ones, and no rare words of other kinds. 0.7 is typical, 0 leaves out nothing."""

    def __post_init__(self) -> None:
        check_bounds(self, "vocabulary.")


@dataclass(frozen=True, kw_only=True)
class VectorsConfig:
    """Pre-trained word vectors that the embedding starts from."""

    name: VectorsName | None = None
    """GloVe vectors to download once and keep in the cache; null downloads none."""
    path: Annotated[str | None, NonBlank("a file")] = None
    """A file to use instead of a download: text as from GloVe and fastText (.txt, .vec), or
    word2vec's .bin; also as .gz or .zip."""
    freeze: bool = False
    """Whether the embedding stays as loaded instead of being trained further."""

    def __post_init__(self) -> None:
        check_bounds(self, "vectors.")
        if self.freeze and self.name is None and self.path is None:
            raise UserError(
                "vectors.freeze is True, but no vectors are set to freeze: set vectors.name or "
                "vectors.path, or vectors.freeze to false"
            )

    @property
    def dimension_by_name(self) -> int | None:
        """Dimension of the vectors to download; None where a file decides, or without vectors."""
        if self.path is not None or self.name is None:
            return None
        return int(self.name.rsplit(".", 1)[1].removesuffix("d"))


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Batches, optimizer, schedule, stopping and logging."""

    init_from: Annotated[str | None, NonBlank("a folder")] = None
    """A finished run with the same layers, whose best weights training starts from to learn from
    other reviews; other classes get a new last layer. null starts anew."""
    init_vocabulary: Literal["keep", "extend"] = "extend"
    """Vocabulary with init_from: keep the run's, or extend it by the words that the vocabulary
    settings choose from these reviews; these start from the vectors, if any, else at random."""
    num_epochs: Count = 5
    """Maximum number of passes over the training split."""
    batch_size: Count = 64
    """Size of a batch, in training.batch_unit."""
    batch_unit: Literal["reviews", "tokens"] = "reviews"
    """What batch_size counts; by tokens, batches of short reviews hold more of them."""
    pieces: Annotated[int, Bounds(ge=0, le=100)] = 0
    """Number of random excerpts of each review, one or a few sentences long, to train on too, with
    the review's label; for models that will read short texts."""
    contrasts: Annotated[int, Bounds(ge=0, le=10)] = 0
    """Mean number of contrast texts for each review to train on too, if there are enough clauses:
    clauses with an opinion word, alone, negated, and set against one of the other class. For
    English and two opposite classes."""
    accumulation_steps: Count = 1
    """Batches whose gradients are added up for one update."""
    optimizer: Literal["adam", "adamw"] = "adam"
    """Adam, or AdamW, whose weight decay is decoupled from the gradient."""
    learning_rate: PositiveFloat = 1e-3
    """Learning rate after warm-up."""
    weight_decay: NonNegativeFloat = 0.0
    """Weight decay of the weight matrices; biases and the embedding are excluded."""
    schedule: Literal["constant", "linear", "cosine", "plateau"] = "constant"
    """Learning rate after warm-up: constant; falling to 0 linearly or as a cosine; or reduced when
    the monitored metric stops improving (plateau)."""
    warmup_share: Share = 0.0
    """Share of all updates over which the learning rate rises from 0."""
    plateau_factor: OpenShare = 0.5
    """Factor by which schedule plateau reduces the learning rate."""
    plateau_patience: Annotated[int, Bounds(ge=0)] = 1
    """Epochs without improvement before schedule plateau reduces the learning rate."""
    gradient_clip: Annotated[float | None, Bounds(gt=0, finite=False)] = 1.0
    """Maximum norm of the gradient; a larger gradient is scaled down to it. null does not clip."""
    layer_rate_factor: Annotated[float, Bounds(gt=0, le=1)] = 1.0
    """Ratio of each layer's learning rate to that of the layer above it, from the linear layer down
    to the embedding; below 1, pre-trained layers change less."""
    unfreeze_epochs: Annotated[float | None, Bounds(gt=0)] = None
    """Epochs after which the next lower layer begins to learn; null trains all from the start."""
    average_decay: Annotated[float | None, Bounds(gt=0, lt=1)] = None
    """Decay of an exponential moving average of the weights at each update, such as 0.999; the
    averaged weights are validated and saved. null does not average."""
    label_smoothing: Share = 0.0
    """Share of a label's weight that is spread evenly over all classes."""
    class_weights: Literal["balanced"] | dict[str, float] | None = None
    """Weights of the classes in the loss, such as {spam: 3}, or balanced: inversely proportional to
    the numbers of training reviews. Classes that are not named weigh 1; null weighs all alike. A
    review of weight 2 counts like two reviews; all weights are scaled to a mean of 1 over the
    training reviews, so that only their ratios count."""
    monitor: Metric = "accuracy"
    """Validation metric that decides the best checkpoint, plateau and early stopping; of epochs
    with the same value, the one with the lower NLL is better."""
    positive_class: str | None = None
    """Name of the class that F1, AUROC, average precision and thresholds are about. null is the
    second of two classes; with more, these are means over the classes, as macro_f1 always is."""
    patience: Annotated[int | None, Bounds(ge=1)] = None
    """Epochs without improvement after which training stops; null trains all epochs."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Precision of matrix products: auto takes bf16 where the hardware supports it."""
    nonfinite: Literal["stop", "skip"] = "stop"
    """What to do at a non-finite loss or gradient: stop training, or skip the update."""
    log_every: Count = 20
    """Updates between two points of the training curves in TensorBoard."""
    checkpoint_minutes: Annotated[float | None, Bounds(gt=0)] = 5.0
    """Minutes between two checkpoints for --resume within an epoch; null turns these off."""
    checkpoint_updates: Annotated[int | None, Bounds(ge=1, le=MAX_COUNT)] = None
    """Updates between two checkpoints for --resume; null turns these off. Each epoch ends with a
    checkpoint in any case."""
    pictures: bool = True
    """Whether to add figures and explained reviews to TensorBoard each epoch (takes seconds)."""

    @property
    def is_open_ended(self) -> bool:
        """Whether more epochs can follow the last one: the learning rate does not fall to 0."""
        return self.schedule in ("constant", "plateau")

    def __post_init__(self) -> None:
        check_bounds(self, "training.")
        self._check_class_weights()
        if self.unfreeze_epochs is not None and self.schedule == "plateau":
            raise UserError(
                "training.unfreeze_epochs cannot be combined with training.schedule plateau: "
                "choose another schedule, or set training.unfreeze_epochs to null"
            )

    def positive_index(self, class_names: Sequence[str]) -> int | None:
        """The index of the positive class; None without one, as by default with three or more."""
        name, key = self.positive_class, "training.positive_class"
        if name is None:
            return 1 if len(class_names) == 2 else None
        require(name in class_names, key, name, f"one of {', '.join(class_names[:20])}, or null")
        return class_names.index(name)

    def _check_class_weights(self) -> None:
        weights, key = self.class_weights, "training.class_weights"
        if not isinstance(weights, dict):
            return
        for name, weight in weights.items():
            is_name = isinstance(name, str | int) and not isinstance(name, bool)  # YAML's yes, no
            require(is_name, f"a class in {key}", name, 'a name: write one like yes as "yes"')
            is_weight = 0 < weight < float("inf")
            require(is_weight, f"{key} of {name}", weight, "above 0 and finite")
        # Names of classes are texts, also those that YAML reads as numbers.
        texts = {str(name): weight for name, weight in weights.items()}
        object.__setattr__(self, "class_weights", texts)


_POOLINGS = ("last", "mean", "max", "attention")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Embedding, recurrent layers, pooling over time, linear layer to the classes."""

    embedding_size: Annotated[int, Bounds(ge=1, le=65_536)] = 100
    """Dimension of the word embedding, and of the vectors it starts from."""
    hidden_size: Annotated[int, Bounds(ge=1, le=65_536)] = 256
    """Size of the hidden state of each direction."""
    num_layers: Annotated[int, Bounds(ge=1, le=64)] = 1
    """Number of stacked recurrent layers."""
    bidirectional: bool = True
    """Whether a second recurrence reads each review from its end."""
    cell: Literal["lstm", "gru", "rnn"] = "lstm"
    """The recurrent cell: LSTM, GRU, or a plain RNN with tanh."""
    implementation: Literal["packed", "reference"] = "packed"
    """The fast implementation, or a slow LSTM written out gate by gate for reading and checking."""
    learned_initial_state: bool = False
    """Whether the states before the first word are learned instead of zero."""
    pooling: str = "max"
    """How the outputs over time become one vector: final states (last), mean, max, or a mean with
    learned weights (attention); or several of them concatenated, such as last+max+mean."""
    word_dropout: Share = 0.0
    """Share of the words replaced by <unk> in training."""
    embedding_dropout: Share = 0.5
    """Share of the embedding's values dropped in training."""
    locked_dropout: bool = False
    """Whether the embedding's dropout drops the same values of all words of a review."""
    normalize_embedding: bool = False
    """Whether the embedding is normalized to mean 0 and variance 1 over the training texts."""
    dropout: Share = 0.5
    """Share dropped between recurrent layers and before the linear layer in training."""
    weight_dropout: Share = 0.0
    """Share of the recurrent weight matrices dropped in training, the same for a whole batch."""
    input_init: Literal["xavier", "uniform"] = "xavier"
    """Initial input weights: Xavier uniform, or PyTorch's uniform in 1/sqrt(hidden_size)."""
    recurrent_init: Literal["orthogonal", "uniform"] = "orthogonal"
    """Initial recurrent weights: orthogonal for each gate, or PyTorch's uniform."""
    forget_bias: Annotated[float, Bounds()] = 1.0
    """Initial bias of an LSTM's forget gate: above 0, the cell remembers from the first step on."""

    def __post_init__(self) -> None:
        check_bounds(self, "model.")
        kinds = self.pooling.split("+")
        unknown = [kind for kind in kinds if kind not in _POOLINGS]
        hint = did_you_mean(unknown[0], _POOLINGS) if unknown else ""
        is_valid = not unknown and len(set(kinds)) == len(kinds)
        expected = f"one of {', '.join(_POOLINGS)}, or different ones joined by +: last+max+mean"
        require(is_valid, "model.pooling", self.pooling, f"{expected}{hint}")
        is_implemented = self.implementation == "packed" or self.cell == "lstm"
        expected = "lstm for model.implementation 'reference'; packed implements all cells"
        require(is_implemented, "model.cell", self.cell, expected)


@dataclass(frozen=True, kw_only=True)
class ObjectivesConfig:
    """Weights of the terms added to the supervised loss; a term with weight 0 is off."""

    adversarial: NonNegativeFloat = 0.0
    """Weight of the loss on adversarially perturbed embeddings (Miyato et al. 2017)."""
    virtual_adversarial: NonNegativeFloat = 0.0
    """Weight of the divergence between predictions on clean embeddings and on embeddings perturbed
    in the direction that changes predictions most."""
    entropy: NonNegativeFloat = 0.0
    """Weight of the entropy of the predictions."""
    perturbation_norm: PositiveFloat = 5.0
    """L2 norm of the perturbation, over all embeddings of a review together."""
    power_iterations: Annotated[int | None, Bounds(ge=1, le=100)] = None
    """Iterations of the power method that finds the direction that changes the prediction most;
    null takes one, or zero for two classes, where a gradient gives that direction."""
    finite_difference: PositiveFloat = 1.0
    """Norm of the step by which a power iteration probes a direction; in bf16, the effect of much
    smaller steps is rounded away."""
    unlabelled: bool = True
    """Whether virtual_adversarial and entropy also learn from the source's unsupervised split."""
    unlabelled_batch_size: Annotated[int | None, Bounds(ge=1, le=MAX_COUNT)] = None
    """Size of the unlabelled batch that goes with each labelled one, in training.batch_unit; null
    takes training.batch_size."""

    def __post_init__(self) -> None:
        check_bounds(self, "objectives.")

    @property
    def are_any(self) -> bool:
        return max(self.adversarial, self.virtual_adversarial, self.entropy) > 0


@dataclass(frozen=True, kw_only=True)
class PretrainingConfig:
    """Pre-training of the LSTM; on if num_epochs is above 0 or path is set.

    A language model learns to predict each word from the words before it, and in the reverse
    direction from those after it (Dai & Le 2015).

    It also uses the settings data, except data.max_length and data.keep; vocabulary; vectors; those
    that shape and initialize the model's embedding and recurrence; model.dropout between layers,
    but no other dropout; training.precision, and how often training logs and saves.
    """

    path: Annotated[str | None, NonBlank("a folder")] = None
    """A folder written by sentiment pretrain to start from, whatever num_epochs is; null
    pre-trains if num_epochs is above 0."""
    num_epochs: Annotated[int, Bounds(ge=0, le=MAX_COUNT)] = 0
    """Passes over the reviews; with 0, or with a path to start from, nothing is pre-trained."""
    unlabelled: bool = True
    """Whether the source's unsupervised split is read besides the training reviews."""
    objective: Literal["language_model", "autoencoder"] = "language_model"
    """What is learned: to predict the next word, or to repeat a review from its final state."""
    batch_size: Count = 64
    """Reviews in a batch."""
    max_length: Annotated[int, Bounds(ge=2, le=MAX_COUNT)] = 1000
    """Tokens kept of a review."""
    window: Count = 25
    """Words of truncated back-propagation; the state is carried over to the next window."""
    learning_rate: PositiveFloat = 2e-3
    """Learning rate after warm-up, from which it falls to 0 linearly."""
    warmup_share: Share = 0.02
    """Share of all updates over which the learning rate rises from 0."""
    gradient_clip: PositiveFloat = 1.0
    """Maximum norm of the gradient."""
    dropout: Share = 0.2
    """Share of the embedded words' values, and of the recurrence's outputs, dropped in training."""
    num_candidates: Count = 512
    """Negative samples of the sampled softmax at each update, drawn by their frequency."""

    def __post_init__(self) -> None:
        check_bounds(self, "pretraining.")
        needed = 2 * self.max_length
        if self.objective == "autoencoder" and self.window < needed:
            raise UserError(
                f"pretraining.window is {self.window}, but an autoencoder reads a review twice and "
                f"must remember all of it: set it to {needed}, twice pretraining.max_length, or "
                "lower that too"
            )

    @property
    def is_wanted(self) -> bool:
        """Whether a classifier starts from a language model."""
        return self.path is not None or self.num_epochs > 0


@dataclass(frozen=True, kw_only=True)
class DistillationConfig:
    """Learning from other models' predictions; off without teachers and with labelled at 0.

    A student learns the probabilities that its teachers give (Hinton, Vinyals & Dean 2015).
    """

    teachers: tuple[str, ...] | None = None
    """Folders of finished runs or baselines, such as [runs/a, runs/b], that held out the same
    validation reviews: the mean of their probabilities labels the source's unsupervised split. null
    for none."""
    baseline: bool = False
    """Whether the linear model of sentiment baseline teaches too: it is trained first, into a
    folder next to the run's, unless that holds the baseline of the same reviews."""
    num_teachers: Annotated[int, Bounds(ge=0, le=MAX_TEACHERS)] = 0
    """Number of teachers to train first, with the same settings and other seeds, next to the run's
    folder. Finished ones are reused; --overwrite replaces those with other settings. 0 trains
    none."""
    labelled: Annotated[float, Bounds(ge=0, le=1)] = 0.0
    """Share of a second opinion in the target of each labelled review, beside its label: the
    probabilities by a linear model of the other training reviews, four fifths of them. Label
    smoothing applies to the label's share. 0 learns from the labels alone."""
    weight: PositiveFloat = 1.0
    """Weight of the cross-entropy between predictions and the teachers' labels."""
    temperature: Annotated[float, Bounds(ge=0.1, le=100)] = 1.0
    """Divisor of the teachers' logits, and of the student's in this term; above 1, soft labels
    give more weight to the less likely classes."""

    def __post_init__(self) -> None:
        check_bounds(self, "distillation.")
        folders = self.teachers
        if folders is not None:
            is_named = len(folders) > 0 and all(folder.strip() for folder in folders)
            require(is_named, "distillation.teachers", folders, "folders, or null")
            is_distinct = len(set(folders)) == len(folders)
            require(is_distinct, "distillation.teachers", folders, "different folders")

    @property
    def has_teachers(self) -> bool:
        """Whether other models label the unlabelled reviews."""
        return self.teachers is not None or self.trains_teachers or self.baseline

    @property
    def off(self) -> str:
        """The settings that leave the teachers out, for messages."""
        settings = []
        if self.trains_teachers:
            settings.append("distillation.num_teachers to 0")
        if self.teachers is not None:
            settings.append("distillation.teachers to null")
        if self.baseline:
            settings.append("distillation.baseline to false")
        return " and ".join(settings)

    @property
    def trains_teachers(self) -> bool:
        return self.teachers is None and self.num_teachers > 0
