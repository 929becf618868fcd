"""All settings of a run, and the checks across sections.

The classes are frozen plain data and import nothing heavy, so that ``--help`` and a mistyped key
answer at once; :mod:`sentiment.config.parser` builds them from files and command lines.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

from sentiment.config.bounds import Bounds, NonBlank, check_bounds, require
from sentiment.config.data import DataConfig
from sentiment.config.sections import (
    DistillationConfig,
    ModelConfig,
    ObjectivesConfig,
    PretrainingConfig,
    TrainingConfig,
    VectorsConfig,
    VocabularyConfig,
)
from sentiment.runtime.errors import UserError

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
        if self.distillation.is_wanted and not self.objectives.unlabelled:
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
