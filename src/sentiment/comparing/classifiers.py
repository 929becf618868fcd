"""What can be compared, a run or a baseline, by the few things that comparing asks of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from sentiment.baseline.folder import load_baseline
from sentiment.config import Config, flat_settings
from sentiment.description import holds_baseline
from sentiment.evaluation.evaluate import Predictions, predict_corpus
from sentiment.runs import Run, load_run
from sentiment.shown import printable
from sentiment.text.pipeline import encode_reviews
from sentiment.text.reviews import Reviews


class Classifier(Protocol):
    """Something trained that predicts the classes of reviews."""

    @property
    def path(self) -> Path:
        """Its folder."""

    @property
    def config(self) -> Config:
        """The settings it was made by; of a baseline those of the data count."""

    @property
    def settings(self) -> dict[str, Any]:
        """Those settings that it has, by their dotted keys."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes, in the order of their labels."""

    @property
    def temperature(self) -> float:
        """What its log-probabilities are divided by to be calibrated."""

    @property
    def seed(self) -> int | None:
        """The seed it was trained with, None where nothing is drawn."""

    @property
    def epoch(self) -> int | None:
        """The epoch its weights are of, None where there are no epochs."""

    def predict(self, reviews: Reviews, *, device: torch.device) -> Predictions:
        """What it says of reviews, which it reads in its own way, at temperature 1."""


@dataclass(frozen=True)
class RunClassifier:
    """A run as a :class:`Classifier`."""

    run: Run

    @property
    def path(self) -> Path:
        return self.run.path

    @property
    def config(self) -> Config:
        return self.run.config

    @property
    def settings(self) -> dict[str, Any]:
        return flat_settings(self.run.config)

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.run.class_names

    @property
    def temperature(self) -> float:
        return self.run.checkpoint.temperature

    @property
    def seed(self) -> int:
        return self.run.config.seed

    @property
    def epoch(self) -> int:
        return self.run.checkpoint.epoch

    def predict(self, reviews: Reviews, *, device: torch.device) -> Predictions:
        corpus = encode_reviews(reviews, self.run.vocabulary, self.config.data)
        title = printable(self.path.name)
        return predict_corpus(self.run.model.to(device), corpus, device=device, description=title)


def load_classifier(path: Path, *, checkpoint: str = "best") -> Classifier:
    """The run or the baseline of a folder.

    Raises:
        FileNotFoundError: the folder is neither, or a file is missing.
        ValueError: a file is damaged, of a newer format, or does not fit the others.
    """
    if holds_baseline(path):
        return load_baseline(path)
    return RunClassifier(load_run(path, checkpoint=checkpoint))
