"""Validation after each epoch."""

from __future__ import annotations

from collections.abc import Callable

from sentiment.data.pipeline import TrainingData
from sentiment.evaluation.evaluate import Predictions, predict_corpus
from sentiment.evaluation.metrics import Metrics
from sentiment.model import SentimentClassifier
from sentiment.training.context import TrainingContext
from sentiment.training.logger import EpochMetrics, RunLogger, ValidationSamples


class Validator:
    """Predicts the validation reviews and logs the results."""

    def __init__(
        self,
        model: SentimentClassifier,
        data: TrainingData,
        context: TrainingContext,
        run_logger: RunLogger,
    ) -> None:
        self._model = model
        self._class_names = data.class_names
        self._corpus = data.validation.to(context.device)
        self._samples = ValidationSamples(
            data.validation_reviews, self._corpus, context.config.seed
        )
        self._draws_pictures = context.config.training.pictures
        self._context = context
        self._run_logger = run_logger

    def predict(self, report: Callable[[int], object]) -> Predictions:
        """All predictions, on every rank; ``report`` takes the size of each finished batch."""
        return predict_corpus(
            self._model,
            self._corpus,
            device=self._context.device,
            description="validating",
            distributed=self._context.distributed,
            report=report,
        )

    def log(
        self,
        epoch: EpochMetrics,
        predictions: Predictions,
        metrics: Metrics,
        temperature: float,
        *,
        is_best: bool,
    ) -> None:
        """Log metrics, sample reviews and pictures of an epoch."""
        if not self._context.distributed.is_main:
            return
        number = epoch.epoch
        self._run_logger.epoch(epoch, metrics, is_best=is_best)
        self._run_logger.reviews(self._samples.verdicts(predictions, temperature), number)
        if self._draws_pictures:
            self._run_logger.predictions(predictions, self._class_names, temperature, number)
            for tag, figure in self._samples.explanations(self._model, temperature):
                self._run_logger.figure(tag, figure, number)
