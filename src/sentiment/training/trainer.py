"""The training itself: update, epoch, fit."""

from __future__ import annotations

import itertools
import logging
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from sentiment.config import Config
from sentiment.evaluation.calibration import fit_temperature
from sentiment.evaluation.evaluate import Predictions, predict_corpus
from sentiment.evaluation.metrics import Metrics
from sentiment.model import SentimentClassifier
from sentiment.runtime import autocast, peak_memory_bytes
from sentiment.text.batches import Batch
from sentiment.text.bucketing import BucketSampler
from sentiment.text.pipeline import TrainingData
from sentiment.training.journal import EpochSummary, Journal
from sentiment.training.optimizer import Schedule, build_optimizer
from sentiment.training.showcase import Showcase
from sentiment.training.sums import RunningSums
from sentiment.weights import Checkpoint, save_weights

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FitResult:
    """What training came to: the best epoch and its validation metrics."""

    best_epoch: int
    best_metrics: Metrics


class Trainer:
    """Trains a classifier and keeps its best and last weights in the run's folder.

    Args:
        model: the classifier, on ``device``.
        data: corpora, vocabulary and class names.
        config: the run's settings.
        device: where to compute.
        precision: arithmetic of training's matrix products; validation is in fp32.
        path: the run's folder.
        journal: where the course is written.
    """

    def __init__(
        self,
        model: SentimentClassifier,
        data: TrainingData,
        config: Config,
        *,
        device: torch.device,
        precision: torch.dtype,
        path: Path,
        journal: Journal,
    ) -> None:
        self._model = model
        self._data = data
        self._config = config
        self._training = config.training
        self._device = device
        self._path = path
        self._journal = journal
        self._precision = precision
        self._corpus = data.train.to(device)
        self._validation = data.validation.to(device)
        self._showcase = Showcase(data.validation_reviews, self._validation, config.seed)
        self._sampler = BucketSampler(
            data.train.lengths,
            batch_size=self._training.batch_size,
            unit=self._training.batch_unit,
            seed=config.seed,
        )
        self._optimizer = build_optimizer(model, config.training)
        self._schedule = Schedule(self._optimizer, config.training, self._num_updates())
        self._loss = nn.CrossEntropyLoss(
            reduction="sum", label_smoothing=self._training.label_smoothing
        )
        self._update = 0
        self._learning_rate = 0.0  # of the last update

    def fit(self) -> FitResult:
        """Train all epochs, or until validation has stopped improving."""
        best_score, best = float("-inf"), None
        for epoch in range(1, self._training.num_epochs + 1):
            summary = self._train_epoch(epoch)
            predictions = self._validate()
            metrics = predictions.metrics()
            score = metrics.score(self._training.monitor)
            self._schedule.after_epoch(score)
            is_best = best is None or score > best_score
            if is_best:
                best_score, best = score, FitResult(epoch, metrics)
            temperature = self._keep(epoch, predictions, metrics, is_best=is_best)
            self._journal.epoch(summary, metrics, is_best=is_best)
            self._journal.histograms(self._model, epoch)
            self._journal.reviews(self._showcase.verdicts(predictions, temperature), epoch)
            if self._training.pictures:
                self._draw(predictions, temperature, epoch)
            patience = self._training.patience
            if best and patience is not None and epoch - best.best_epoch >= patience:
                logger.info(
                    "no better %s for %d epochs: stopping", self._training.monitor, patience
                )
                break
        assert best is not None  # num_epochs is at least 1
        self._finish(best)
        return best

    def _num_updates(self) -> int:
        batches, group = len(self._sampler), self._training.accumulation_steps
        return self._training.num_epochs * -(-batches // group)

    def _train_epoch(self, epoch: int) -> EpochSummary:
        self._model.train()
        self._sampler.set_epoch(epoch)
        epoch_sums = RunningSums(self._device)
        recent_sums = RunningSums(self._device)
        num_tokens = recent_tokens = 0
        started = recent_started = time.perf_counter()
        with self._progress(epoch) as bar:
            for group in self._groups():
                norm = self._train_update(group, epoch_sums, recent_sums)
                tokens = sum(int(self._corpus.lengths[indices].sum()) for indices in group)
                num_tokens, recent_tokens = num_tokens + tokens, recent_tokens + tokens
                if self._update % self._training.log_every == 0:
                    seconds = time.perf_counter() - recent_started
                    self._log(bar, recent_sums, norm, recent_tokens / seconds)
                    recent_sums = RunningSums(self._device)
                    recent_tokens, recent_started = 0, time.perf_counter()
                bar.update(sum(map(len, group)))
            loss, accuracy = self._means(epoch_sums)
        seconds = time.perf_counter() - started
        return EpochSummary(
            epoch=epoch,
            update=self._update,
            loss=loss,
            accuracy=accuracy,
            seconds=seconds,
            tokens_per_second=num_tokens / seconds,
            padding_share=self._sampler.padding_share(),
            learning_rate=self._learning_rate,
            peak_memory_bytes=peak_memory_bytes(self._device),
        )

    def _progress(self, epoch: int) -> tqdm:
        description = f"epoch {epoch}/{self._training.num_epochs}"
        return tqdm(
            total=len(self._corpus), desc=description, unit="review", leave=False, disable=None
        )

    def _groups(self) -> Iterator[list[torch.Tensor]]:
        """The batches' indices, grouped by update."""
        batches = iter(self._sampler)
        while group := list(itertools.islice(batches, self._training.accumulation_steps)):
            yield group

    def _train_update(self, group: list[torch.Tensor], *sums: RunningSums) -> torch.Tensor:
        """One update from the mean loss over all reviews of the group's batches.

        Returns:
            The gradient's norm before clipping, still on the device.
        """
        self._optimizer.zero_grad(set_to_none=True)
        num_reviews = sum(map(len, group))
        for batch in self._corpus.batches(group):
            with autocast(self._device, self._precision):
                logits = self._model(batch.tokens, batch.lengths)
            loss_sum = self._loss(logits.float(), batch.labels)
            (loss_sum / num_reviews).backward()
            self._count(sums, batch, logits.detach().float())
        clip = self._training.gradient_clip
        norm = nn.utils.clip_grad_norm_(
            self._model.parameters(), float("inf") if clip is None else clip
        )
        self._learning_rate = self._optimizer.param_groups[0]["lr"]
        self._optimizer.step()
        self._schedule.after_update()
        self._update += 1
        return norm

    @staticmethod
    def _count(sums: tuple[RunningSums, ...], batch: Batch, logits: torch.Tensor) -> None:
        """Add up what is reported: the loss without smoothing, to stand beside validation's."""
        loss_sum = nn.functional.cross_entropy(logits, batch.labels, reduction="sum")
        num_correct = (logits.argmax(dim=1) == batch.labels).sum()
        for each in sums:
            each.add(loss_sum, num_correct, len(batch.lengths))

    def _log(self, bar: tqdm, sums: RunningSums, norm: torch.Tensor, speed: float) -> None:
        loss, accuracy = self._means(sums)
        bar.set_postfix_str(f"loss {loss:.3f}, {speed:,.0f} tokens/s", refresh=False)
        self._journal.update(
            self._update,
            loss=loss,
            accuracy=accuracy,
            gradient_norm=float(norm),
            learning_rate=self._learning_rate,
            tokens_per_second=speed,
        )

    def _means(self, sums: RunningSums) -> tuple[float, float]:
        """Mean loss and accuracy, while the loss is a number."""
        loss, accuracy = sums.means()
        if not math.isfinite(loss):
            raise ValueError(
                f"the loss became {loss} by update {self._update}: lower training.learning_rate "
                f"({self._training.learning_rate}) or set training.gradient_clip"
            )
        return loss, accuracy

    def _validate(self) -> Predictions:
        return predict_corpus(
            self._model,
            self._validation,
            device=self._device,
            description="validating",
        )

    def _draw(self, predictions: Predictions, temperature: float, epoch: int) -> None:
        self._journal.predictions(predictions, self._data.class_names, temperature, epoch)
        for tag, figure in self._showcase.explanations(self._model, temperature):
            self._journal.figure(tag, figure, epoch)

    def _keep(
        self, epoch: int, predictions: Predictions, metrics: Metrics, *, is_best: bool
    ) -> float:
        """Save the weights with their temperature, which is returned."""
        temperature = fit_temperature(predictions.log_probabilities, predictions.labels)
        checkpoint = Checkpoint(epoch, self._update, metrics.as_dict(), temperature)
        for name in ("last", "best") if is_best else ("last",):
            save_weights(self._path, name, self._model, checkpoint)
        return temperature

    def _finish(self, best: FitResult) -> None:
        figures: dict[str, Any] = best.best_metrics.as_dict()
        embedding = self._model.embedding.weight
        self._journal.finish(self._config, figures, embedding, self._data.vocabulary)
