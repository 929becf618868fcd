"""Micro-batches of an update, and the objective that adds other terms to the labels' loss."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import nn

from sentiment.config.config import Config, TrainingConfig
from sentiment.data.batches import Batch, EncodedCorpus, EndlessBatches, shard
from sentiment.data.pipeline import TrainingData
from sentiment.model import SentimentClassifier
from sentiment.model.layers import to_device
from sentiment.runtime.device import autocast, mixed_seed
from sentiment.runtime.distributed import DistributedContext, share_weights
from sentiment.training.adversarial import (
    FixedDropoutForward,
    adversarial_direction,
    divergence,
    entropy,
    power_method,
    random_directions,
    review_seeds,
    scale_reviews,
    soft_cross_entropy,
)
from sentiment.training.context import TrainingContext
from sentiment.training.meters import TermMeter

# Mixed with the run's seed, which by itself orders the labelled reviews.
_UNLABELLED_SEED = 1
_DIRECTION_SEED = 2


class LabelLoss:
    """Cross-entropy of each review with its label, times the weight of its class.

    The weight of a label applies to the whole of its smoothed cross-entropy, unlike torch's
    ``weight``, which moves the mass that smoothing spreads to the heavy classes. Dividing the sum
    by the number of reviews, not by their weights, lets a review count the same in every batch.
    """

    def __init__(
        self, config: TrainingConfig, labels: torch.Tensor, class_names: Sequence[str]
    ) -> None:
        self._loss = nn.CrossEntropyLoss(reduction="none", label_smoothing=config.label_smoothing)
        self._weights: torch.Tensor | None = None  # (classes,)
        if config.class_weights is not None:
            weights = class_weights(config.class_weights, labels.cpu().numpy(), class_names)
            self._weights = torch.from_numpy(weights).float().to(labels.device)

    def __call__(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """(batch,) losses of (batch, classes) logits."""
        losses = self._loss(logits, labels)
        return losses if self._weights is None else losses * self._weights[labels]


def class_weights(
    setting: Literal["balanced"] | dict[str, float], labels: np.ndarray, class_names: Sequence[str]
) -> np.ndarray:
    """(num_classes,) weights with a mean of 1 over the labels (num_reviews,)."""
    counts = np.bincount(labels, minlength=len(class_names))
    if setting == "balanced":
        weights = 1 / np.maximum(counts, 1)
    else:
        weights = np.array([setting.get(name, 1.0) for name in class_names])
    return weights * counts.sum() / (weights * counts).sum()


@dataclass(frozen=True)
class MicroBatch:
    """A rank's share of one batch of an update."""

    batch: Batch
    is_labelled: bool
    update: int  # from 0
    num_labelled: int  # labelled reviews of the whole update, over all ranks
    num_all: int  # labelled and unlabelled ones
    soft_labels: torch.Tensor | None = None  # (batch, classes) by the teachers, on the device
    is_placeholder: bool = False  # the rank has no share, and the review only keeps it in step


class MicroBatches:
    """Shards an update's batches over the ranks, with an unlabelled batch for each labelled one.

    Args:
        labelled, unlabelled: reviews with and without labels, on the device.
        soft_labels: (num_unlabelled, classes) the teachers' probabilities, on the device.
        uses_placeholders: whether a rank without a share gets a review of another rank, because
            gradients are exchanged in every backward pass; otherwise that batch is left out.
    """

    def __init__(
        self,
        labelled: EncodedCorpus,
        unlabelled: EncodedCorpus | None,
        soft_labels: torch.Tensor | None,
        config: Config,
        distributed: DistributedContext,
        *,
        uses_placeholders: bool = False,
    ) -> None:
        self._labelled = labelled
        self._unlabelled = unlabelled
        self._soft_labels = soft_labels
        self._distributed = distributed
        self._uses_placeholders = uses_placeholders
        self._batches_per_update = config.training.accumulation_steps
        self._unlabelled_batches: EndlessBatches | None = None
        if unlabelled is not None:
            objectives, training = config.objectives, config.training
            self._unlabelled_batches = EndlessBatches(
                unlabelled.lengths,
                batch_size=objectives.unlabelled_batch_size or training.batch_size,
                unit=training.batch_unit,
                seed=mixed_seed(config.seed, _UNLABELLED_SEED),
            )

    def of_update(self, update: int, batches: list[torch.Tensor]) -> Iterator[MicroBatch]:
        """This rank's micro-batches of an update, counted from 0.

        ``batches`` are rows of the labelled reviews over all ranks, longest review first.
        """
        sources = self._sources(update, batches)
        num_labelled = sum(map(len, batches))
        num_all = sum(len(rows) for _, rows in sources)
        for number, (corpus, rows) in enumerate(sources):
            is_labelled = number < len(batches)
            share = shard(rows, self._distributed.rank, self._distributed.world_size)
            is_placeholder = len(share) == 0
            if is_placeholder and not self._uses_placeholders:
                continue
            share = rows[:1] if is_placeholder else share
            soft_labels = None
            if self._soft_labels is not None and not is_labelled:
                reviews = corpus.reviews_of(share)
                soft_labels = self._soft_labels[to_device(reviews, self._soft_labels.device)]
            yield MicroBatch(
                corpus.batch(share), is_labelled, update, num_labelled, num_all,
                soft_labels, is_placeholder,
            )  # fmt: skip

    def num_tokens(self, update: int, batches: list[torch.Tensor]) -> int:
        """Tokens of an update's batches, unlabelled ones included, over all ranks."""
        sources = self._sources(update, batches)
        return sum(int(corpus.lengths[rows].sum()) for corpus, rows in sources)

    def _sources(
        self, update: int, batches: list[torch.Tensor]
    ) -> list[tuple[EncodedCorpus, torch.Tensor]]:
        """Corpus and rows of each batch, first the labelled ones, then the unlabelled ones."""
        sources = [(self._labelled, rows) for rows in batches]
        if self._unlabelled is not None and self._unlabelled_batches is not None:
            first = update * self._batches_per_update
            for number in range(first, first + len(batches)):
                sources.append((self._unlabelled, self._unlabelled_batches.batch(number)))
        return sources


@dataclass(frozen=True)
class CleanForward:
    """Results of the pass over unperturbed words.

    Attributes:
        logits: (batch, classes).
        loss: () sum of the terms on the unperturbed words.
        word_gradient, logit_gradient: gradients of a loss with respect to words and logits, if
            needed.
        label_gradient: (batch, time, embedding) gradient of the labels' loss with respect to the
            words, if it cannot be derived from ``word_gradient``.
    """

    logits: torch.Tensor
    loss: torch.Tensor
    word_gradient: torch.Tensor | None = None
    logit_gradient: torch.Tensor | None = None
    label_gradient: torch.Tensor | None = None

    def away_from(self, classes: torch.Tensor) -> torch.Tensor:
        """(batch, time, embedding) directions in which the classes lose probability."""
        assert self.word_gradient is not None and self.logit_gradient is not None
        return adversarial_direction(classes, self.word_gradient, self.logit_gradient)


class CombinedObjective:
    """Accumulates the gradients of all terms, one micro-batch at a time.

    Terms: the labels' loss, adversarial and virtual adversarial training, entropy, distillation.
    """

    def __init__(
        self, model: SentimentClassifier, label_loss: LabelLoss, context: TrainingContext
    ) -> None:
        config = context.config
        self._model = model
        self._objectives = objectives = config.objectives
        self._distillation = distillation = config.distillation
        self._device = context.device
        self._precision = context.precision
        self._seed = mixed_seed(config.seed, _DIRECTION_SEED)
        self._loss = label_loss
        self._is_binary = model.output.out_features == 2
        self._iterations = objectives.power_iterations or (0 if self._is_binary else 1)
        weights = {
            "adversarial": objectives.adversarial,
            "virtual_adversarial": objectives.virtual_adversarial,
            "entropy": objectives.entropy,
            "distillation": distillation.weight if distillation.is_wanted else 0.0,
        }
        names = tuple(name for name, weight in weights.items() if weight > 0)
        self.terms = TermMeter(names, context.device)
        share_weights(model, context.distributed)

    def backward(self, micro_batch: MicroBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """Run all passes of a micro-batch, and add their gradients to the parameters'.

        Returns the logits (batch, classes) of the unperturbed words, and the micro-batch's part of
        the update's loss, ().
        """
        batch = micro_batch.batch
        with autocast(self._device, self._precision):
            embedded = self._model.embed(batch.tokens)  # (batch, time, embedding)
        # All passes start from one leaf, which sums their gradients: they then go through dropout
        # and embedding together.
        words = embedded.detach().requires_grad_()
        forward = FixedDropoutForward(self._model, batch.lengths, self._device, self._precision)
        clean = self.clean_pass(micro_batch, forward, words)
        loss = clean.loss
        # All perturbations first: each pass adds to the gradient that they derive from.
        for name, shift in self.perturbations(micro_batch, forward, words, clean).items():
            loss = loss + self._perturbed_pass(name, micro_batch, forward, words + shift, clean)
        if embedded.requires_grad and words.grad is not None:
            embedded.backward(words.grad)
        return clean.logits, loss

    def clean_pass(
        self, micro_batch: MicroBatch, forward: FixedDropoutForward, words: torch.Tensor
    ) -> CleanForward:
        """Forward and backward pass of the terms on the unperturbed words."""
        objectives, labels = self._objectives, micro_batch.batch.labels
        soft_labels = micro_batch.soft_labels
        has_terms = micro_batch.is_labelled or objectives.entropy > 0 or soft_labels is not None
        needs_gradient = has_terms or self._iterations == 0
        with torch.set_grad_enabled(needs_gradient):
            logits = forward.classify(words)  # (batch, classes)
        loss = torch.zeros((), device=self._device)
        if not needs_gradient:
            return CleanForward(logits, loss)
        if not has_terms:
            gap = logits[:, 0] - logits[:, 1]
            (word_gradient,) = torch.autograd.grad(gap.sum(), words)
            ones = torch.ones_like(gap)
            gap_gradient = torch.stack((ones, -ones), dim=1)  # (batch, 2)
            return CleanForward(logits.detach(), loss, word_gradient, gap_gradient)
        label_gradient = None
        if micro_batch.is_labelled:
            loss = loss + self._loss(logits, labels).sum() / micro_batch.num_labelled
            if objectives.adversarial > 0 and not self._is_binary:
                unsmoothed = nn.functional.cross_entropy(logits, labels, reduction="sum")
                (label_gradient,) = torch.autograd.grad(unsmoothed, words, retain_graph=True)
        if objectives.entropy > 0:
            losses = entropy(logits)  # (batch,)
            self.terms.add("entropy", losses)
            loss = loss + objectives.entropy * losses.sum() / micro_batch.num_all
        if soft_labels is not None:
            losses = soft_cross_entropy(soft_labels, logits, self._distillation.temperature)
            self.terms.add("distillation", losses)
            num_unlabelled = micro_batch.num_all - micro_batch.num_labelled
            loss = loss + self._distillation.weight * losses.sum() / num_unlabelled
        logits.retain_grad()
        loss.backward()
        return CleanForward(logits.detach(), loss.detach(), words.grad, logits.grad, label_gradient)

    def perturbations(
        self,
        micro_batch: MicroBatch,
        forward: FixedDropoutForward,
        words: torch.Tensor,
        clean: CleanForward,
    ) -> dict[str, torch.Tensor]:
        """Each term's perturbation of the words, (batch, time, embedding)."""
        batch, objectives = micro_batch.batch, self._objectives
        directions: dict[str, torch.Tensor] = {}
        if micro_batch.is_labelled and objectives.adversarial > 0:
            direction = clean.label_gradient
            if direction is None:
                direction = clean.away_from(batch.labels)
            directions["adversarial"] = direction
        if objectives.virtual_adversarial > 0 and self._iterations == 0:
            # Of the eigenvector's two signs, the one that loses confidence changes predictions
            # more: little confidence is left to gain.
            directions["virtual_adversarial"] = clean.away_from(clean.logits.argmax(dim=1))
        elif objectives.virtual_adversarial > 0:
            seeds = review_seeds(
                batch.indices, self._seed, micro_batch.update, micro_batch.is_labelled
            )
            start = random_directions(seeds, batch.lengths, words.shape[2], self._device)
            directions["virtual_adversarial"] = power_method(
                forward.classify, clean.logits, words, batch.lengths, start,
                iterations=self._iterations, step=objectives.finite_difference,
            )  # fmt: skip
        norm = objectives.perturbation_norm
        return {
            name: scale_reviews(direction, batch.lengths, norm)
            for name, direction in directions.items()
        }

    def _perturbed_pass(
        self,
        name: str,
        micro_batch: MicroBatch,
        forward: FixedDropoutForward,
        words: torch.Tensor,
        clean: CleanForward,
    ) -> torch.Tensor:
        """Forward and backward pass of one term over perturbed words; returns its loss, ()."""
        logits = forward.classify(words)
        if name == "adversarial":
            losses = self._loss(logits, micro_batch.batch.labels)  # (batch,)
            weight = self._objectives.adversarial / micro_batch.num_labelled
        else:
            losses = divergence(clean.logits, logits)
            weight = self._objectives.virtual_adversarial / micro_batch.num_all
        self.terms.add(name, losses)
        loss = weight * losses.sum()
        loss.backward()
        return loss.detach()


def build_objective(
    model: SentimentClassifier,
    data: TrainingData,
    label_loss: LabelLoss,
    context: TrainingContext,
) -> tuple[CombinedObjective | None, MicroBatches]:
    """The settings' objective, None for the labels' loss alone, and its micro-batches."""
    config, device, distributed = context.config, context.device, context.distributed
    labelled = data.train.to(device)
    if not (config.objectives.are_any or config.distillation.is_wanted):
        return None, MicroBatches(labelled, None, None, config, distributed, uses_placeholders=True)
    assert (data.soft_labels is not None) == config.distillation.is_wanted
    unlabelled = None if data.unlabelled is None else data.unlabelled.to(device)
    soft_labels = None if data.soft_labels is None else data.soft_labels.to(device)
    micro_batches = MicroBatches(labelled, unlabelled, soft_labels, config, distributed)
    return CombinedObjective(model, label_loss, context), micro_batches
