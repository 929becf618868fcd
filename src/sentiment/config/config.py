"""All settings of a run: the section of the data, and the checks across sections.

The classes are frozen plain data and import nothing heavy, so that ``--help`` and a mistyped key
answer at once; :mod:`sentiment.config.parser` builds them from files and command lines.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

from sentiment.config.sections import (
    MAX_COUNT,
    Bounds,
    Count,
    DistillationConfig,
    ModelConfig,
    NonBlank,
    ObjectivesConfig,
    OpenShare,
    PretrainingConfig,
    TrainingConfig,
    VectorsConfig,
    VocabularyConfig,
    check_bounds,
    require,
)
from sentiment.runtime.errors import UserError

NULL_SIGNS = {"~": "tilde", "#": "hash"}  # delimiters that YAML reads as null, with their names

Quoting = Literal["double", "backslash", "none"]
Missing = Literal["error", "skip"]


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which reviews are read, how they are split, and how their text becomes tokens."""

    source: Literal["mini", "imdb"] = "mini"
    """Where reviews come from without a path: the mini corpus, or IMDB from the hub."""
    hub: Annotated[str | None, NonBlank("NAME or NAME:CONFIG")] = None
    """A dataset of the Hugging Face hub instead of the source, as NAME or NAME:CONFIG."""
    path: Annotated[str | None, NonBlank("a file or a folder")] = None
    """Local reviews instead of the source: a file (.csv, .tsv, .json, .jsonl, .parquet, .arrow or
    fastText's .txt, compressed or not), or a folder with train|validation|test files or folders,
    like the original aclImdb. Some rows of a single file are held out for validation."""
    text_column: str | tuple[str, ...] | None = None
    """Column of the texts, or several to join, such as [title, body]; null takes text, review,
    sentence or another well-known name."""
    label_column: str | None = None
    """Column of the labels; null takes label, sentiment, stars or another well-known name."""
    split_column: str | None = None
    """Column that says which rows train, validate and test, such as split or is_valid."""
    column_names: tuple[str, ...] | None = None
    """Names of the columns of CSV and TSV files without a header."""
    delimiter: str | None = None
    """What separates the values of CSV and TSV files: a character, tab, tilde (~) or hash (#);
    null detects it."""
    quoting: Quoting = "double"
    """How quotes inside quoted values are written in CSV and TSV files: doubled (double) or after a
    backslash (backslash). With none, quotes have no special meaning."""
    encoding: str | None = None
    """Encoding of text files, such as cp1252; null means UTF-8, or what a byte order mark says."""
    class_names: tuple[str, ...] | None = None
    """Names of the classes in order; integer labels may index them from 0. null takes the labels
    themselves as names, where 1, 1.0 and the text 1 are one class."""
    labels: dict | None = field(default=None, hash=False)  # jsonargparse would parse Any twice
    """Class of each label, such as {0: neg, 4: pos, 2: null}, to rename or merge labels; rows with
    a label mapped to null are left out. Labels that are not listed are classes of their own."""
    missing: Missing = "error"
    """What to do with rows without a text: refuse them, or leave them out. Rows without a label
    (empty, NA, null, or a rare -1 beside classes from 0) are left out in any case, as unlabelled
    reviews."""
    validation: Literal["random", "stretches", "groups"] | None = None
    """Which training reviews are held out where the data has no validation split: single
    reviews at random; whole stretches of neighbouring rows, where reviews of one film, author or
    product are adjacent (also within each class of a sorted file); or whole groups, by a column.
    null means stretches for the source imdb, else random."""
    stretch_length: Count = 50
    """Rows in a stretch, with data.validation stretches."""
    group_column: str | None = None
    """Column that names a row's group (a film, an author), with data.validation groups."""
    validation_share: OpenShare = 0.1
    """Share of the training reviews held out where the data has no validation split."""
    validation_seed: Annotated[int, Bounds(ge=0)] = 0
    """Seed of that hold-out, separate from the run's seed so that runs with different seeds are
    compared on the same reviews."""
    num_folds: Annotated[int | None, Bounds(ge=2, le=MAX_COUNT)] = None
    """Hold out one of this many folds of the training reviews; null holds out a share."""
    fold: int = 1
    """Which of the folds is held out, from 1."""
    shared_reviews: Literal["report", "drop", "ignore"] = "report"
    """What to do with reviews that occur in two splits: report how many there are; drop them from
    train, and from validation where test holds them; or ignore them, the only choice that leaves
    the test split unopened."""
    exclude: Annotated[str | None, NonBlank("a file")] = None
    """Rows to leave out of training and validation, as listed by sentiment audit: a .csv file with
    the columns split, row and digest."""
    max_length: Count = 400
    """Tokens kept of a review; longer reviews are truncated."""
    keep: Literal["head", "tail", "head+tail"] = "head"
    """Which tokens of a longer review are kept: the first, the last, or half from each end."""
    language: str = "en"
    """Language by whose rules spaCy finds the words: en, de, es, fr, ru and 70 others; xx for any
    other with white space between words; zh reads each character as a word."""
    lower_case: bool = True
    """Whether tokens are lower-cased, as the GloVe 6B vectors are."""
    num_processes: Annotated[int | None, Bounds(ge=1, le=256)] = None
    """Processes that tokenize; null takes as many as are worth starting on the available cores."""
    cache_dir: str | None = None
    """Folder for tokenized reviews and downloaded vectors; null means ~/.cache/sentiment."""

    def __post_init__(self) -> None:
        check_bounds(self, "data.")
        require(self.source in ("mini", "imdb"), "data.source", self.source, "mini or imdb")
        names = self.class_names
        if names is not None:
            require(len(names) >= 2, "data.class_names", names, "two names or more, or null")
            require(len(set(names)) == len(names), "data.class_names", names, "distinct names")
        is_code = re.fullmatch("[a-z]{2,3}", self.language) is not None
        expected = "a code of two or three letters, such as en, de or zh, or xx for any language"
        require(is_code, "data.language", self.language, expected)
        self._check_labels()
        self._check_reading()
        column, expected = self.group_column, "another column than text and label, or null"
        require(column not in ("", "text", "label"), "data.group_column", column, expected)
        if self.validation == "groups" and column is None:
            raise UserError(
                "data.validation is groups, but data.group_column is not set: set it to the column "
                "that names each review's group"
            )
        if self.validation != "groups" and column is not None:
            raise UserError(
                f"data.group_column is {column!r}, but data.validation is not groups: set it to "
                "groups to hold out whole groups"
            )
        last = self.num_folds or 1
        expected = "1 unless data.num_folds is set"
        if self.num_folds is not None:
            expected = f"from 1 to data.num_folds, {last}"
        require(1 <= self.fold <= last, "data.fold", self.fold, expected)

    def _check_labels(self) -> None:
        """Check ``labels``, and make them texts, as a settings file or JSON may order them."""
        if self.labels is None:
            return
        example = "labels with their classes, such as {0: neg, 4: pos, 2: null}"
        require(len(self.labels) > 0, "data.labels", self.labels, f"{example}, or null")
        for label, name in self.labels.items():
            is_quoted = not isinstance(name, bool)
            hint = "a name: YAML reads yes, no, on and off as true and false, so quote them"
            require(is_quoted, f"data.labels.{label}", name, hint)
            is_name = name is None or (isinstance(name, str | int | float) and str(name).strip())
            require(bool(is_name), f"data.labels.{label}", name, "a name, or null")
            is_label = isinstance(label, str | int | float) and str(label).strip()
            require(bool(is_label), "data.labels", self.labels, example)
        names = {str(k): None if v is None else str(v) for k, v in self.labels.items()}
        object.__setattr__(self, "labels", names)

    def _check_reading(self) -> None:
        if self.path is not None and self.hub is not None:
            raise UserError(
                f"data.path is {self.path!r} and data.hub is {self.hub!r}: set one of them to null"
            )
        names = self.column_names
        if names is not None:
            require(len(set(names)) == len(names) > 0, "data.column_names", names, "distinct names")
        is_delimiter = self.delimiter is None or self.delimiter_character is not None
        expected = "one character or tab, or null"
        require(is_delimiter, "data.delimiter", self.delimiter, expected)
        if self.encoding is not None:
            try:
                "".encode(self.encoding)
            except (LookupError, ValueError):
                expected = "an encoding of text that Python knows, such as cp1252 or utf-16"
                require(False, "data.encoding", self.encoding, expected)

    @property
    def text_columns(self) -> tuple[str, ...]:
        """``text_column`` as a tuple; empty where it is null."""
        column = self.text_column
        return (column,) if isinstance(column, str) else tuple(column or ())

    @property
    def delimiter_character(self) -> str | None:
        """The delimiter as one character; None where the setting names none."""
        names = {"tab": "\t", "\\t": "\t"} | {name: sign for sign, name in NULL_SIGNS.items()}
        delimiter = names.get(self.delimiter or "", self.delimiter or "")
        return delimiter if len(delimiter) == 1 and delimiter not in '"\r\n' else None

    def option_name(self, setting: str) -> str:
        """How a user writes a setting of this section as an option."""
        return f"--data.{setting}"

    def option(self, name: str, value: str | Sequence[str]) -> str:
        """An option with its value as one writes it in a shell."""
        if not isinstance(value, str):
            quoted = (re.sub(r"[^\w.-]", "_", item.strip()) for item in value)
            value = f"'[{','.join(quoted)}]'"
        elif value in NULL_SIGNS:
            value = NULL_SIGNS[value]
        elif not re.fullmatch(r"[\w.-]+", value):
            value = f"'{value}'"
        return f"{self.option_name(name)} {value}"

    @property
    def hold_out(self) -> Literal["random", "stretches", "groups"]:
        """``validation`` with its default resolved."""
        return self.validation or ("stretches" if self.source == "imdb" else "random")

    def hold_out_settings(self) -> dict[str, Any]:
        """The settings that decide which reviews are held out, under their dotted keys."""
        settings: dict[str, Any] = {"data.validation": self.hold_out}
        if self.hold_out == "stretches":
            settings["data.stretch_length"] = self.stretch_length
        if self.hold_out == "groups":
            settings["data.group_column"] = self.group_column
        if self.num_folds is None:
            settings["data.validation_share"] = self.validation_share
        else:
            settings |= {"data.num_folds": self.num_folds, "data.fold": self.fold}
        return settings | {"data.validation_seed": self.validation_seed}

    @property
    def may_be_english(self) -> bool:
        return self.language in ("en", "xx")

    def describe_hold_out(self) -> str:
        words = {
            "random": "at random",
            "stretches": f"by stretches of {self.stretch_length} neighbouring rows",
            "groups": f"by groups of {self.group_column}",
        }[self.hold_out]
        return words if self.num_folds is None else f"{words}, fold {self.fold} of {self.num_folds}"


# Settings that do not change what is learned: where files are, what is logged and saved, and how it
# is computed. data.missing is one of them because the reviews themselves are compared.
WITHOUT_EFFECT = {
    "output_dir",
    "device",
    "data.cache_dir",
    "data.missing",
    "data.num_processes",
    "training.pictures",
    "training.checkpoint_minutes",
    "training.checkpoint_updates",
}


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of one training run."""

    output_dir: Annotated[str, NonBlank("a folder")] = "runs/quickstart"
    """The run's folder, which holds everything that training and evaluation write."""
    seed: Annotated[int, Bounds(ge=0, le=2**32 - 1)] = 0
    """Seed of the initial weights, of dropout and of the order of the batches."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 (any number) or mps; auto takes the fastest one available."""
    data: DataConfig = field(default_factory=DataConfig)
    vocabulary: VocabularyConfig = field(default_factory=VocabularyConfig)
    vectors: VectorsConfig = field(default_factory=VectorsConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    objectives: ObjectivesConfig = field(default_factory=ObjectivesConfig)
    pretraining: PretrainingConfig = field(default_factory=PretrainingConfig)
    distillation: DistillationConfig = field(default_factory=DistillationConfig)

    def __post_init__(self) -> None:
        check_bounds(self)
        check_device_name(self.device)
        self._check_vectors()
        self._check_batches()
        self._check_pretraining()
        self._check_unfreezing()
        self._check_contrasts()
        if self.distillation.has_teachers and not self.objectives.unlabelled:
            raise UserError(
                "objectives.unlabelled is False, but distillation needs unlabelled reviews: set it "
                f"to true, or {self.distillation.off}"
            )
        if self.training.optimizer == "adam" and self.training.weight_decay > 0:
            raise UserError(
                f"training.weight_decay is {self.training.weight_decay}, but training.optimizer "
                "is 'adam', which does not decay weights: set training.optimizer to adamw"
            )

    def _check_vectors(self) -> None:
        dimension = self.vectors.dimension_by_name
        if dimension is not None and dimension != self.model.embedding_size:
            raise UserError(
                f"vectors.name is {self.vectors.name!r} of {dimension} dimensions, but "
                f"model.embedding_size is {self.model.embedding_size}: set model.embedding_size "
                f"to {dimension} or choose other vectors"
            )

    def _check_batches(self) -> None:
        if self.training.batch_unit != "tokens":
            return
        for key, size in (
            ("training.batch_size", self.training.batch_size),
            ("objectives.unlabelled_batch_size", self.objectives.unlabelled_batch_size),
        ):
            if size is not None and size < self.data.max_length:
                raise UserError(
                    f"{key} is {size} tokens, but data.max_length is {self.data.max_length}: a "
                    f"batch must hold at least one review; set {key} to "
                    f"{max(10_000, self.data.max_length)} or training.batch_unit to reviews"
                )

    def _check_pretraining(self) -> None:
        if not self.pretraining.is_wanted:
            return
        setting = "pretraining.path" if self.pretraining.path else "pretraining.num_epochs"
        if self.training.init_from is not None:
            raise UserError(
                f"training.init_from is {self.training.init_from!r}, but {setting} also decides "
                "the initial weights: set training.init_from to null, or pretraining.path to null "
                "and pretraining.num_epochs to 0"
            )
        model = self.model
        if model.cell != "lstm" or model.implementation != "packed":
            raise UserError(
                f"model.cell is {model.cell!r} and model.implementation {model.implementation!r}, "
                f"but {setting} needs the packed LSTM: set them to lstm and packed"
            )
        if model.bidirectional and model.num_layers > 1:
            raise UserError(
                f"model.num_layers is {model.num_layers} and model.bidirectional is true, but with "
                f"{setting} the second layer would see the words to be predicted: set "
                "model.num_layers to 1, or model.bidirectional to false"
            )
        if self.vectors.freeze:
            raise UserError(
                f"vectors.freeze is True, but {setting} trains the embedding, also one that starts "
                "from vectors: set vectors.freeze to false"
            )

    def _check_contrasts(self) -> None:
        num_contrasts = self.training.contrasts
        if num_contrasts > 0 and not self.data.may_be_english:
            raise UserError(
                f"training.contrasts is {num_contrasts}, but data.language is "
                f"{self.data.language!r}: contrast texts are made by rules for English; set "
                "training.contrasts to 0"
            )
        if num_contrasts > 0 and self.training.class_weights is not None:
            raise UserError(
                f"training.contrasts is {num_contrasts}, but training.class_weights is set, which "
                "would also weigh the contrast texts, although both classes have as many: set "
                "training.contrasts to 0, or training.class_weights to null"
            )

    def _check_unfreezing(self) -> None:
        wait, epochs = self.training.unfreeze_epochs, self.training.num_epochs
        depth = self.model.num_layers + (not self.vectors.freeze)  # of the lowest trained layer
        if wait is not None and depth * wait >= epochs:
            raise UserError(
                f"training.unfreeze_epochs is {wait:g}, so the lowest layer would begin to learn "
                f"after {depth * wait:g} epochs, but training.num_epochs is {epochs}: set "
                f"training.unfreeze_epochs below {epochs / depth:g}"
            )


def check_device_name(device: str) -> None:
    is_known = re.fullmatch(r"auto|cpu|mps|cuda(:(0|[1-9]\d{0,2}))?", device) is not None
    require(is_known, "device", device, "auto, cpu, cuda, cuda:1 (any number) or mps")


def flat_settings(config: Config) -> dict[str, Any]:
    """All settings under their dotted keys, with the default of data.validation resolved."""
    settings: dict[str, Any] = {}
    for name, value in asdict(config).items():
        if isinstance(value, dict):
            settings |= {f"{name}.{key}": inner for key, inner in value.items()}
        else:
            settings[name] = value
    return settings | {"data.validation": config.data.hold_out}


def deciding_settings(config: Config) -> dict[str, Any]:
    """The settings that decide what is learned, under their dotted keys."""
    settings = flat_settings(config)
    return {key: value for key, value in settings.items() if key not in WITHOUT_EFFECT}


def first_difference(before: dict[str, Any], after: dict[str, Any]) -> str | None:
    """The first key of ``after`` whose value differs from ``before``; None if none does."""
    return next((key for key, value in after.items() if before.get(key) != value), None)
