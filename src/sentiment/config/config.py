"""Every setting of a run, with its default, its explanation and its check in one place.

The classes are frozen: a run's settings are decided once, before anything is read. They are plain
data and import nothing heavy, so that ``--help`` and a mistyped key answer at once; turning files
and command lines into them is the business of :mod:`sentiment.config.parser`.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from typing import Any

from sentiment.config.learning_sections import (
    DistillationConfig,
    ObjectivesConfig,
    PretrainingConfig,
)
from sentiment.config.sections import (
    DataConfig,
    ModelConfig,
    TrainingConfig,
    VectorsConfig,
    VocabularyConfig,
    require,
)
from sentiment.runtime.errors import UserError

__all__ = [
    "Config",
    "DataConfig",
    "DistillationConfig",
    "ModelConfig",
    "ObjectivesConfig",
    "PretrainingConfig",
    "TrainingConfig",
    "VectorsConfig",
    "VocabularyConfig",
    "check_device_name",
    "deciding_settings",
    "first_difference",
    "flat_settings",
]

# Settings that do not change what is learned: where things lie, and how it is computed and told.
WITHOUT_EFFECT = {
    "output_dir",
    "device",
    "data.cache_dir",
    "data.num_processes",
    "training.pictures",
    "training.checkpoint_minutes",
    "training.checkpoint_updates",
}


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
    objectives: ObjectivesConfig = field(default_factory=ObjectivesConfig)
    pretraining: PretrainingConfig = field(default_factory=PretrainingConfig)
    distillation: DistillationConfig = field(default_factory=DistillationConfig)

    def __post_init__(self) -> None:
        require(self.output_dir.strip() != "", "output_dir", self.output_dir, "a folder")
        require(0 <= self.seed < 2**32, "seed", self.seed, "from 0 to 2**32 - 1")
        check_device_name(self.device)
        dimension = self.vectors.dimension_by_name
        if dimension is not None and dimension != self.model.embedding_size:
            raise UserError(
                f"vectors.name is {self.vectors.name!r} of {dimension} dimensions, but "
                f"model.embedding_size is {self.model.embedding_size}: set model.embedding_size "
                f"to {dimension} or choose other vectors"
            )
        training = self.training
        if training.batch_unit == "tokens" and training.batch_size < self.data.max_length:
            raise UserError(
                f"training.batch_size is {training.batch_size} tokens, but data.max_length is "
                f"{self.data.max_length}: a batch must hold a review; set training.batch_size to "
                "some 10,000 or training.batch_unit to reviews"
            )
        size = self.objectives.unlabelled_batch_size
        if training.batch_unit == "tokens" and size is not None and size < self.data.max_length:
            raise UserError(
                f"objectives.unlabelled_batch_size is {size} tokens, but data.max_length is "
                f"{self.data.max_length}: a batch must hold a review; set it to some 10,000 or "
                "training.batch_unit to reviews"
            )
        if self.distillation.is_wanted and not self.objectives.unlabelled:
            raise UserError(
                "objectives.unlabelled is False, but distillation has unlabelled reviews "
                f"labelled to learn from: set it to true, or {self.distillation.off}"
            )
        self._check_pretraining()
        self._check_unfreezing()
        if self.training.optimizer == "adam" and self.training.weight_decay > 0:
            raise UserError(
                f"training.weight_decay is {self.training.weight_decay}, but training.optimizer "
                "is 'adam', which does not decay weights: set training.optimizer to adamw"
            )

    def _check_pretraining(self) -> None:
        """Refuse at once what would be met after hours, or would have no effect."""
        if not self.pretraining.is_wanted:
            return
        setting = "pretraining.path" if self.pretraining.path else "pretraining.num_epochs"
        model = self.model
        if model.cell != "lstm" or model.implementation != "packed":
            raise UserError(
                f"model.cell is {model.cell!r} and model.implementation {model.implementation!r}, "
                f"but {setting} wants the packed lstm: set them to lstm and packed"
            )
        if model.bidirectional and model.num_layers > 1:
            raise UserError(
                f"model.num_layers is {model.num_layers} and model.bidirectional is true, but of "
                f"what {setting} wants, the second layer would see the words to be predicted: set "
                "model.num_layers to 1, or model.bidirectional to false"
            )
        if self.vectors.freeze:
            raise UserError(
                f"vectors.freeze is True, but {setting} trains the embedding, from vectors too: "
                "set vectors.freeze to false"
            )

    def _check_unfreezing(self) -> None:
        """Refuse to wait so long with a layer that it never learns."""
        wait, epochs = self.training.unfreeze_epochs, self.training.num_epochs
        depth = self.model.num_layers + (not self.vectors.freeze)  # of the lowest that learns
        if wait is not None and depth * wait >= epochs:
            raise UserError(
                f"training.unfreeze_epochs is {wait:g}, so the lowest layer would begin to learn "
                f"after {depth * wait:g} epochs, but training.num_epochs is {epochs}: set "
                f"training.unfreeze_epochs below {epochs / depth:g}"
            )


def check_device_name(device: str) -> None:
    """Raise ``UserError`` unless ``device`` is a name of a device."""
    known = re.fullmatch(r"auto|cpu|mps|cuda(:(0|[1-9]\d{0,2}))?", device)
    require(known is not None, "device", device, "auto, cpu, cuda, cuda:1 (any number) or mps")


def flat_settings(config: Config) -> dict[str, Any]:
    """All settings under their dotted keys, a hold-out that is left to its default decided."""
    flat: dict[str, Any] = {}
    for section, values in asdict(config).items():
        for name, value in (values if isinstance(values, dict) else {"": values}).items():
            flat[f"{section}.{name}" if name else section] = value
    return flat | {"data.validation": config.data.hold_out}


def deciding_settings(config: Config) -> dict[str, Any]:
    """The settings that decide what is learned, under their dotted keys."""
    return {key: each for key, each in flat_settings(config).items() if key not in WITHOUT_EFFECT}


def first_difference(then: dict[str, Any], now: dict[str, Any]) -> str | None:
    """The key of the first of these settings that was another then, None if they are the same."""
    return next((key for key, value in now.items() if then.get(key) != value), None)
