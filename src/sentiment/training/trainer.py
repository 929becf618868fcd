"""The training loop, which a checkpoint can interrupt after any update."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from tqdm.auto import tqdm

from sentiment.data.batches import BucketSampler, by_update
from sentiment.data.pipeline import TrainingData
from sentiment.display.console import progress_bar
from sentiment.evaluation.calibration import fit_temperature
from sentiment.evaluation.evaluate import fit_threshold
from sentiment.model import SentimentClassifier
from sentiment.runs.weights import WeightsInfo, save_weights
from sentiment.runtime.device import autocast, mixed_seed, peak_memory_bytes
from sentiment.runtime.distributed import sum_gradients
from sentiment.runtime.processes import Interrupted, StopRequests
from sentiment.training.checkpoint import (
    CheckpointData,
    CheckpointSchedule,
    TrainerState,
    generator_states,
    restore_generators,
    save_state,
)
from sentiment.training.context import TrainingContext
from sentiment.training.logger import EpochMetrics, RunLogger, Validator
from sentiment.training.meters import EpochProgress, MeanMeter, meter_sums
from sentiment.training.objectives import LabelLoss, build_objective
from sentiment.training.optim import (
    NonFiniteGuard,
    Schedule,
    StepInfo,
    WeightAverage,
    build_optimizer,
    explain_out_of_memory,
    optimizer_state,
    restore_optimizer,
    take_step,
)

logger = logging.getLogger(__name__)

DDP_BUCKET_MB = 4  # gradients that ranks exchange while the others are still computed


class Trainer:
    """Trains a classifier, and keeps its best and last weights in the run's folder.

    All ranks make the same calls.

    Args:
        model: on the context's device.
        data: corpora, vocabulary and class names.
        context: settings, folder, device, precision and ranks.
        run_logger: writes curves and metrics.
        checkpoint: to continue from.
        num_updates, rate_factor: for another :class:`Schedule` than the settings describe.
        after_update: called with the number of each finished update.
    """

    def __init__(
        self,
        model: SentimentClassifier,
        data: TrainingData,
        context: TrainingContext,
        run_logger: RunLogger,
        *,
        checkpoint: CheckpointData | None = None,
        num_updates: int | None = None,
        rate_factor: Callable[[int], float] | None = None,
        after_update: Callable[[int], object] = lambda update: None,
    ) -> None:
        config, device = context.config, context.device
        training = config.training
        self._model, self._vocabulary, self._context = model, data.vocabulary, context
        self._config, self._training = config, training
        self._device, self._distributed = device, context.distributed
        self._run_logger = run_logger
        self._after_update = after_update
        self._lengths, self._reviews_of = data.train.lengths, data.train.reviews_of
        self._sampler = BucketSampler(
            self._lengths,
            batch_size=training.batch_size,
            unit=training.batch_unit,
            seed=config.seed,
        )
        self._loss = LabelLoss(config, data.train.labels.to(device), data.class_names)
        self._objective, self._micro_batches = build_objective(model, data, self._loss, context)
        self._parallel: nn.Module = model
        if self._distributed.is_distributed and self._objective is None:
            self._parallel = DistributedDataParallel(
                model, gradient_as_bucket_view=True, bucket_cap_mb=DDP_BUCKET_MB
            )
        self._optimizer = build_optimizer(model, training)
        if num_updates is None:
            updates_per_epoch = math.ceil(len(self._sampler) / training.accumulation_steps)
            num_updates = training.num_epochs * updates_per_epoch
        self._schedule = Schedule(self._optimizer, training, num_updates, rate_factor)
        decay = training.average_decay
        self._average = None if decay is None else WeightAverage(model, decay)
        self._kept_model = model if self._average is None else self._average.model
        self._guard = NonFiniteGuard(training.nonfinite, device, self._distributed)
        self._validator = Validator(self._kept_model, data, context, run_logger)
        self._checkpoint_schedule = CheckpointSchedule(training)
        self._stop = StopRequests(ends_at_second=not self._distributed.is_distributed)
        self._state = TrainerState(EpochProgress(1, device))
        self.update = 0
        self.learning_rate = 0.0  # of the last update
        if checkpoint is not None and (finished := self._restore(checkpoint)):
            self._keep_weights(finished)

    def fit(self) -> dict[str, Any]:
        """Train all epochs, or until validation has stopped improving.

        Raises:
            Interrupted: a signal came; a checkpoint is saved.
        """
        if self.update == 0:
            self._save_checkpoint()  # from here on there is always something to resume
        with self._stop:
            while not self._is_over():
                self._end_epoch(self._train_epoch())
        result, embedding = self._state.result(), self._kept_model.embedding_table()
        self._run_logger.finish(self._config, result["metrics"], embedding, self._vocabulary)
        self._run_logger.state()  # on the disk before the run counts as finished
        return result

    def _is_over(self) -> bool:
        done, patience = self._state.progress.epoch - 1, self._training.patience
        if done and patience is not None and done - self._state.best_epoch >= patience:
            logger.info("no better %s for %d epochs: stopping", self._training.monitor, patience)
            return True
        return done >= self._training.num_epochs

    def updates(self, epoch: int) -> list[list[torch.Tensor]]:
        """The batches of an epoch, by the update of the weights that accumulates them."""
        self._sampler.set_epoch(epoch)
        return list(by_update(self._sampler, self._training.accumulation_steps))

    def _train_epoch(self) -> EpochMetrics:
        """Carry out the remaining updates of the current epoch."""
        progress = self._state.progress
        self._model.train()
        updates = self.updates(progress.epoch)
        progress.start_clock()
        with self._progress_bar(updates[: progress.num_updates]) as bar:
            for batches in updates[progress.num_updates :]:
                norm, num_tokens = self.train_step(batches, progress.all, progress.recent)
                progress.count(num_tokens)
                if self.update % self._training.log_every == 0:
                    self._log(bar, norm)
                if progress.num_updates == len(updates):
                    self.check_finite()
                    progress.stop_clock()
                    # Now, because a checkpoint does not hold the last gradients.
                    self._run_logger.histograms(self._model, progress.epoch)
                bar.update(sum(map(len, batches)))
                self._after_update(self.update)
                self._save_checkpoint_if_due()
        progress.stop_clock()
        return self._epoch_metrics()

    def train_step(
        self, batches: list[torch.Tensor], *meters: MeanMeter
    ) -> tuple[torch.Tensor, int]:
        """Update the weights once, by the mean loss over all reviews of some batches.

        Args:
            batches: rows of each batch's reviews, over all ranks, longest review first.
            meters: count loss and correct predictions of this rank, unless the update is skipped.

        Returns:
            () norm of the gradient before clipping, on the device; and the tokens of all ranks'
            batches, unlabelled ones included.
        """
        self._optimizer.zero_grad(set_to_none=True)
        if self._objective is not None:
            self._objective.terms.begin_update()
        total_loss = torch.zeros((), device=self._device)
        results = []
        micro_batches, num_tokens = self._micro_batches.of_update(self.update, batches)
        for number, micro_batch in enumerate(micro_batches, 1):
            batch, is_last = micro_batch.batch, number == len(micro_batches)
            memory = explain_out_of_memory(
                batch, self._training, self._device, is_labelled=micro_batch.is_labelled
            )
            with memory, self._sync(is_last):
                if self._objective is not None:
                    logits, loss = self._objective.backward(micro_batch)
                else:
                    with autocast(self._device, self._context.precision):
                        logits = self._parallel(batch.tokens, batch.lengths)  # (batch, classes)
                    soft_labels = micro_batch.soft_labels
                    losses = self._loss(logits.float(), batch.labels, soft_labels)  # (batch,)
                    loss = losses.sum() / micro_batch.num_labelled
                    # The exchange averages gradients over the ranks, but their sum is needed.
                    weight = 0 if micro_batch.is_placeholder else self._distributed.world_size
                    (loss * weight).backward()
            if not micro_batch.is_placeholder:
                total_loss += loss.detach()
                if micro_batch.is_labelled:
                    results.append((logits.detach().float(), batch.labels))
        if self._objective is not None:
            sum_gradients(self._model, self._distributed)
        max_norm = self._training.gradient_clip or float("inf")
        norm = nn.utils.clip_grad_norm_(self._model.parameters(), max_norm)
        self.learning_rate = self._optimizer.param_groups[0]["lr"]
        allowed = self._guard.allows(self._step_info(batches), total_loss, norm)
        if allowed is not False:
            take_step(self._optimizer, allowed)
            self._count(results, meters, allowed)
        if self._average is not None:
            self._average.update()  # after a skipped update too, which a GPU's host doesn't know of
        self._schedule.after_update()
        self.update += 1
        return norm, num_tokens

    def check_finite(self) -> None:
        """Raise ``UserError`` if a loss or gradient so far was not finite."""
        self._guard.check()

    def _sync(self, is_last: bool) -> AbstractContextManager[None]:
        """Have ranks exchange gradients only in an update's last backward pass."""
        if isinstance(self._parallel, DistributedDataParallel) and not is_last:
            return self._parallel.no_sync()
        return nullcontext()

    def _count(
        self,
        results: list[tuple[torch.Tensor, torch.Tensor]],
        meters: tuple[MeanMeter, ...],
        allowed: bool | torch.Tensor,
    ) -> None:
        """Add loss, without label smoothing as in validation, and correct predictions."""
        for logits, labels in results:
            loss_sum = nn.functional.cross_entropy(logits, labels, reduction="sum")
            num_correct = (logits.argmax(dim=1) == labels).sum()
            sums = meter_sums(loss_sum, num_correct, len(labels), allowed)
            for meter in meters:
                meter.add(sums)
        if self._objective is not None:
            self._objective.terms.keep_update(allowed)

    def _step_info(self, batches: list[torch.Tensor]) -> StepInfo:
        reviews = self._reviews_of(torch.cat(batches)).tolist()
        longest = max(int(self._lengths[batch].max()) for batch in batches)
        epoch = self._state.progress.epoch
        return StepInfo(self.update + 1, epoch, self.learning_rate, reviews, longest)

    def _progress_bar(self, done: list[list[torch.Tensor]]) -> tqdm:
        return progress_bar(
            initial=sum(len(rows) for batches in done for rows in batches),
            total=len(self._lengths),
            desc=f"epoch {self._state.progress.epoch}/{self._training.num_epochs}",
            unit="review",
            leave=False,
            is_hidden=not self._distributed.is_main,
        )

    def _log(self, bar: tqdm, norm: torch.Tensor) -> None:
        self.check_finite()
        progress = self._state.progress
        speed = progress.recent_tokens_per_second
        loss, accuracy = progress.recent.means(self._distributed)
        bar.set_postfix_str(f"loss {loss:.3f}, {speed:,.0f} tokens/s", refresh=False)
        objective = self._objective
        self._run_logger.update(
            self.update,
            {} if objective is None else objective.terms.take_means(self._distributed),
            loss=loss,
            accuracy=accuracy,
            gradient_norm=float(norm),
            learning_rate=self.learning_rate,
            tokens_per_second=speed,
        )
        progress.reset_recent()

    def _epoch_metrics(self) -> EpochMetrics:
        progress = self._state.progress
        loss, accuracy = progress.all.means(self._distributed)
        seconds = progress.seconds
        return EpochMetrics(
            epoch=progress.epoch,
            update=self.update,
            loss=loss,
            accuracy=accuracy,
            seconds=seconds,
            tokens_per_second=progress.num_tokens / seconds,
            padding_share=self._sampler.padding_share(),
            learning_rate=self.learning_rate,
            peak_memory_bytes=peak_memory_bytes(self._device),
        )

    def _save_checkpoint_if_due(self) -> None:
        """After an update: save a checkpoint if one is due, and stop if a signal came."""
        # The ranks must agree: signals reach them at different updates, and clocks differ.
        is_due = self._distributed.is_main and self._checkpoint_schedule.is_due(self.update)
        stop, due = self._distributed.all_reduce_max([self._stop.signal, int(is_due)])
        if stop or due:
            self._save_checkpoint()
        if stop:
            raise Interrupted(stop)

    def _end_epoch(self, epoch: EpochMetrics) -> None:
        """Validate, log the epoch, and save weights and checkpoint."""
        predictions = self._validator.predict(self._stop_validating)
        metrics = predictions.metrics()
        # From the main rank, so that rounding on other hardware cannot drive the ranks apart.
        scores = [metrics.score(self._training.monitor), metrics.score("nll")]
        score, negated_nll = self._distributed.broadcast(
            torch.tensor(scores, dtype=torch.float64)
        ).tolist()
        self._schedule.after_epoch(score)
        temperature = fit_temperature(predictions.log_probabilities, predictions.labels)
        threshold = fit_threshold(predictions.calibrated(temperature))
        finished = WeightsInfo(epoch.epoch, epoch.update, metrics.as_dict(), temperature, threshold)
        following = EpochProgress(epoch.epoch + 1, self._device)
        is_best = self._state.end_epoch(finished, (score, negated_nll), following)
        self._validator.log(epoch, predictions, metrics, temperature, is_best=is_best)
        # Before the weights, which can then be rebuilt from it.
        self._save_checkpoint(finished)
        self._keep_weights(finished)

    def _stop_validating(self, num_reviews: int) -> None:
        # Several ranks would have to agree in every batch, and validation is soon over.
        if self._stop.signal and not self._distributed.is_distributed:
            self._save_checkpoint()
            raise Interrupted(self._stop.signal)

    def _keep_weights(self, finished: WeightsInfo) -> None:
        """Save the weights of a finished epoch; idempotent."""
        if self._distributed.is_main:
            is_best = finished.epoch == self._state.best_epoch
            for name in ("last", "best") if is_best else ("last",):
                save_weights(self._context.path, name, self._kept_model, finished)
        self._distributed.barrier()

    def _save_checkpoint(self, finished: WeightsInfo | None = None) -> None:
        """Save all that is needed to continue from here; a collective call.

        ``finished`` is the epoch that has just ended, whose weights are not saved yet.
        """
        self.check_finite()
        checkpoint = self._checkpoint(finished)
        if self._distributed.is_main:
            save_state(self._context.path, checkpoint)
        self._checkpoint_schedule.restart_clock()
        self._distributed.barrier()

    def _checkpoint(self, finished: WeightsInfo | None) -> CheckpointData:
        optimizer, moments = optimizer_state(self._optimizer, self._schedule)
        updates = {
            "update": self.update,
            "learning_rate": self.learning_rate,
            **self._guard.state(),
            **optimizer,
        }
        if self._objective is not None:
            updates["terms"] = self._objective.terms.state(self._distributed)
        progress, sums = self._state.progress.state(self._distributed)
        values = {
            "updates": updates,
            "progress": progress,
            **self._state.values(finished),
            "num_ranks": self._distributed.world_size,
            "device": self._device.type,
            "journal": self._run_logger.state(),
        }
        return CheckpointData.from_sections(
            values,
            model=self._model.state_dict(),
            optimizer=moments,
            average={} if self._average is None else self._average.state(),
            sums=sums,
            generators=generator_states(self._context),
        )

    def _restore(self, checkpoint: CheckpointData) -> WeightsInfo | None:
        """Continue from :meth:`_checkpoint`; returns the epoch that had just ended, if one had.

        With another number of ranks or on another device, random numbers differ.
        """
        values, updates = checkpoint.values, checkpoint.values["updates"]
        self._model.load_state_dict(checkpoint.section("model"))
        self.update, self.learning_rate = updates["update"], updates["learning_rate"]
        self._guard.restore(updates)
        moments = checkpoint.section("optimizer")
        restore_optimizer(self._optimizer, self._schedule, updates, moments)
        if self._objective is not None:
            self._objective.terms.restore(updates["terms"], self._distributed)
        if self._average is not None:
            self._average.restore(checkpoint.section("average"))
        device, distributed = self._device, self._distributed
        if (values["num_ranks"], values["device"]) == (distributed.world_size, device.type):
            restore_generators(checkpoint.section("generators"), self._context)
        else:
            torch.manual_seed(mixed_seed(torch.initial_seed(), self.update, distributed.rank))
        progress = EpochProgress.restore(
            values["progress"], checkpoint.section("sums"), device, distributed
        )
        return self._state.restore(values, progress)
