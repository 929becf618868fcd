"""Settings of what is learned from finished runs."""

from __future__ import annotations

from dataclasses import dataclass

from sentiment.config_sections import require

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
