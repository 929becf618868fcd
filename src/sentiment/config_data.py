"""The section that says which reviews, what is held out of them, and how they become tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from sentiment.config_sections import MOST, require


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
            raise ValueError(
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
