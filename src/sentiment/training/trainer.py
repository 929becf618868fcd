"""The training itself: epoch after epoch, to be put down and taken up at any update."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import torch
from tqdm import tqdm

from sentiment.config.config import Config
from sentiment.data.pipeline import TrainingData
from sentiment.data.sampler import BucketSampler, by_update
from sentiment.evaluation.calibration import fit_temperature
from sentiment.model import SentimentClassifier
from sentiment.runs.weights import WeightsInfo, save_weights
from sentiment.runtime.device import peak_memory_bytes
from sentiment.runtime.distributed import DistributedContext
from sentiment.runtime.processes import Interrupted, StopRequests
from sentiment.training.checkpoint import (
    CheckpointData,
    CheckpointSchedule,
    FitResult,
    TrainerState,
    save_state,
)
from sentiment.training.logger import EpochMetrics, RunLogger
from sentiment.training.objectives import build_mixture
from sentiment.training.step import TrainStep
from sentiment.training.validation import Validator

logger = logging.getLogger(__name__)


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
        world: the ranks that train together.
        state: where an earlier process has put the training down.
        after_update: called with the number of each update when it is done.
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
        journal: RunLogger,
        distributed: DistributedContext | None = None,
        state: CheckpointData | None = None,
        after_update: Callable[[int], object] = lambda update: None,
    ) -> None:
        self._model = model
        self._data = data
        self._config = config
        self._training = config.training
        self._device = device
        self._path = path
        self._journal = journal
        self._distributed = distributed or DistributedContext()
        self._after_update = after_update
        self._corpus = data.train.to(device)
        self._sampler = BucketSampler(
            data.train.lengths,
            batch_size=self._training.batch_size,
            unit=self._training.batch_unit,
            seed=config.seed,
        )
        self._updates = TrainStep(
            model,
            self._corpus,
            config.training,
            device=device,
            precision=precision,
            num_updates=self._training.num_epochs * self._updates_per_epoch(),
            distributed=self._distributed,
            mixture=build_mixture(
                model, data.unlabelled, config,
                device=device, precision=precision, distributed=self._distributed,
                soft_labels=data.soft_labels,
            ),
        )  # fmt: skip
        average = self._updates.average
        self._kept_model = model if average is None else average.model
        self._validation = Validator(
            self._kept_model, data, config, device, journal, self._distributed
        )
        self._standing = TrainerState(model, self._updates, device, self._distributed)
        self._stop = StopRequests(ends_at_second=not self._distributed.is_distributed)
        self._cadence = CheckpointSchedule(config.training)
        if state is not None and (last := self._standing.restore(state)):
            self._keep(last)

    def fit(self) -> FitResult:
        """Train all epochs, or until validation has stopped improving.

        Raises:
            Interrupted: a signal came; the state is saved.
            UserError: loss or gradient is not finite, and ``training.nonfinite`` is ``stop``.
        """
        if self._updates.update == 0:
            self._save_state()  # so that whatever happens next, there is something to resume
        with self._stop:
            while not self._is_over():
                summary = self._train_epoch()
                self._end_epoch(summary)
        best, embedding = self._standing.best, self._kept_model.embedding_table()
        assert best is not None  # num_epochs is at least 1
        self._journal.finish(self._config, best.metrics, embedding, self._data.vocabulary)
        self._journal.state()  # written through to the disk, before the run is called finished
        return self._standing.result()

    def _is_over(self) -> bool:
        done, patience = self._standing.progress.epoch - 1, self._training.patience
        if done and patience is not None and done - self._standing.best_epoch >= patience:
            logger.info("no better %s for %d epochs: stopping", self._training.monitor, patience)
            return True
        return done >= self._training.num_epochs

    def _updates_per_epoch(self) -> int:
        return -(-len(self._sampler) // self._training.accumulation_steps)

    def _train_epoch(self) -> EpochMetrics:
        """What remains of the epoch that has been reached."""
        progress = self._standing.progress
        self._model.train()
        self._sampler.set_epoch(progress.epoch)
        groups = list(by_update(self._sampler, self._training.accumulation_steps))
        progress.start_clock()
        with self._bar(groups[: progress.num_updates]) as bar:
            for group in groups[progress.num_updates :]:
                norm = self._updates.step(
                    group, progress.all, progress.recent, epoch=progress.epoch
                )
                progress.count(sum(int(self._corpus.lengths[each].sum()) for each in group))
                if self._updates.update % self._training.log_every == 0:
                    self._log(bar, norm)
                if progress.num_updates == len(groups):
                    self._updates.guard.settle()
                    progress.stop_clock()
                    # Here, because the last gradients are not kept in a checkpoint.
                    self._journal.histograms(self._model, progress.epoch)
                bar.update(sum(map(len, group)))
                self._pause()
        progress.stop_clock()
        return self._summarize()

    def _bar(self, done: list[list[torch.Tensor]]) -> tqdm:
        return tqdm(
            initial=sum(len(indices) for group in done for indices in group),
            total=len(self._corpus),
            desc=f"epoch {self._standing.progress.epoch}/{self._training.num_epochs}",
            unit="review",
            leave=False,
            disable=None if self._distributed.is_main else True,
        )

    def _log(self, bar: tqdm, norm: torch.Tensor) -> None:
        self._updates.guard.settle()
        progress = self._standing.progress
        speed = progress.recent_tokens_per_second
        loss, accuracy = progress.recent.means(self._distributed)
        bar.set_postfix_str(f"loss {loss:.3f}, {speed:,.0f} tokens/s", refresh=False)
        self._journal.update(
            self._updates.update,
            loss=loss,
            accuracy=accuracy,
            gradient_norm=float(norm),
            learning_rate=self._updates.learning_rate,
            tokens_per_second=speed,
        )
        self._journal.terms(self._updates.update, self._updates.take_terms())
        progress.begin_point()

    def _summarize(self) -> EpochMetrics:
        progress = self._standing.progress
        loss, accuracy = progress.all.means(self._distributed)
        seconds = progress.seconds
        return EpochMetrics(
            epoch=progress.epoch,
            update=self._updates.update,
            loss=loss,
            accuracy=accuracy,
            seconds=seconds,
            tokens_per_second=progress.num_tokens / seconds,
            padding_share=self._sampler.padding_share(),
            learning_rate=self._updates.learning_rate,
            peak_memory_bytes=peak_memory_bytes(self._device),
        )

    def _pause(self) -> None:
        """After an update: a checkpoint where one is due, and the end where a signal came."""
        update = self._updates.update
        self._after_update(update)
        # The ranks must agree: signals reach them at different updates, and clocks differ.
        is_due = self._distributed.is_main and self._cadence.is_due(update)
        stop, due = self._distributed.all_reduce_max([self._stop.signal, int(is_due)])
        if stop or due:
            self._save_state()
        if stop:
            raise Interrupted(stop)

    def _end_epoch(self, summary: EpochMetrics) -> None:
        """Validate, keep what has come of the epoch, and tell it."""
        epoch, update = summary.epoch, summary.update
        predictions = self._validation.predict(self._stop_validating)
        metrics = predictions.metrics()
        # Of one rank, so that rounding on other hardware cannot make the ranks part.
        own = torch.tensor(metrics.score(self._training.monitor), dtype=torch.float64)
        score = self._distributed.broadcast(own).item()
        self._updates.after_epoch(score)
        is_best = self._standing.is_better(score)
        temperature = fit_temperature(predictions.log_probabilities, predictions.labels)
        last = WeightsInfo(epoch, update, metrics.as_dict(), temperature)
        self._standing.end_epoch(last, score)
        self._validation.tell(summary, predictions, metrics, temperature, is_best=is_best)
        # First of all files, so that those after it can be made from it.
        self._save_state(last)
        self._keep(last)

    def _stop_validating(self, num_reviews: int) -> None:
        # Alone: several ranks would have to agree, batch by batch, on something that is soon over.
        if self._stop.signal and not self._distributed.is_distributed:
            self._save_state()
            raise Interrupted(self._stop.signal)

    def _keep(self, last: WeightsInfo) -> None:
        """Save the weights of an epoch that is over; done twice, the same files stand there."""
        if self._distributed.is_main:
            for name in ("last", "best") if last.epoch == self._standing.best_epoch else ("last",):
                save_weights(self._path, name, self._kept_model, last)
        self._distributed.barrier()

    def _save_state(self, last: WeightsInfo | None = None) -> None:
        """Save all that a process needs to go on from here; all ranks take part.

        Args:
            last: the epoch that is just over, if one is.
        """
        self._updates.guard.settle()
        state = self._standing.state(self._journal.state(), last)
        if self._distributed.is_main:
            save_state(self._path, state)
        self._cadence.note()
        self._distributed.barrier()
