"""What comes after an epoch: the validation reviews classified, and what is told of them."""

from __future__ import annotations

from collections.abc import Callable

import torch

from sentiment.config.config import Config
from sentiment.data.pipeline import TrainingData
from sentiment.evaluation.evaluate import Predictions, predict_corpus
from sentiment.evaluation.metrics import Metrics
from sentiment.model import SentimentClassifier
from sentiment.runtime.distributed import DistributedContext
from sentiment.training.logger import EpochMetrics, RunLogger, ValidationSamples


class Validator:
    """Validates a model, and tells how it went.

    Args:
        model: the classifier, on ``device``.
        data: with the validation reviews.
        config: the run's settings.
        device: where to compute.
        journal: where it is told.
        world: the ranks.
    """

    def __init__(
        self,
        model: SentimentClassifier,
        data: TrainingData,
        config: Config,
        device: torch.device,
        journal: RunLogger,
        distributed: DistributedContext,
    ) -> None:
        self._model = model
        self._class_names = data.class_names
        self._corpus = data.validation.to(device)
        self._showcase = ValidationSamples(data.validation_reviews, self._corpus, config.seed)
        self._with_pictures = config.training.pictures
        self._device = device
        self._journal = journal
        self._distributed = distributed

    def predict(self, report: Callable[[int], object]) -> Predictions:
        """All predictions, on every rank; ``report`` is called with reviews as they are done."""
        return predict_corpus(
            self._model,
            self._corpus,
            device=self._device,
            description="validating",
            distributed=self._distributed,
            report=report,
        )

    def tell(
        self,
        summary: EpochMetrics,
        predictions: Predictions,
        metrics: Metrics,
        temperature: float,
        *,
        is_best: bool,
    ) -> None:
        """Curves, reviews and pictures of an epoch, by the first rank."""
        if not self._distributed.is_main:
            return
        epoch = summary.epoch
        self._journal.epoch(summary, metrics, is_best=is_best)
        self._journal.reviews(self._showcase.verdicts(predictions, temperature), epoch)
        if self._with_pictures:
            self._journal.predictions(predictions, self._class_names, temperature, epoch)
            for tag, figure in self._showcase.explanations(self._model, temperature):
                self._journal.figure(tag, figure, epoch)
