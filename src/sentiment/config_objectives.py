"""The section of what is learned beside the labels: each setting with its explanation and check."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

from sentiment.config_sections import require


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
