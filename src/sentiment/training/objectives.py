"""The combined objective: labels, entropy, perturbations, distillation, over micro-batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from sentiment.config.config import Config
from sentiment.data.batches import Batch, EncodedCorpus, EndlessBatches
from sentiment.data.sampler import shard
from sentiment.model import SentimentClassifier
from sentiment.runtime.device import autocast, mixed_seed
from sentiment.runtime.distributed import DistributedContext, share_weights, sum_gradients
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


class TermSums:
    """Sums of the terms over reviews, unweighted, and the reviews they are of.

    Args:
        names: of the terms.
        device: where they are added up.
    """

    def __init__(self, names: tuple[str, ...], device: torch.device) -> None:
        precision = torch.float32 if device.type == "mps" else torch.float64  # MPS has no fp64
        self._names = names
        self._update = torch.zeros(len(names), 2, dtype=precision, device=device)
        self._sums = torch.zeros_like(self._update)  # (terms, 2), a sum and a count

    def begin_update(self) -> None:
        """An update begins: what was noted for the one before and not kept is forgotten."""
        self._update.zero_()

    def note(self, name: str, losses: torch.Tensor) -> None:
        """Add a term of some reviews, (batch,), to those of the update."""
        place = self._names.index(name)
        self._update[place, 0] += losses.detach().sum()
        self._update[place, 1] += len(losses)

    def keep_update(self) -> None:
        """The update is carried out: it counts."""
        self._sums += self._update

    def take_means(self, distributed: DistributedContext) -> dict[str, float]:
        """Mean of each term over the reviews of all ranks, and begin anew; all must ask at once."""
        sums = distributed.all_reduce_sum(self._sums).tolist()
        self._sums.zero_()
        named = zip(self._names, sums, strict=True)
        return {name: total / max(1, count) for name, (total, count) in named}

    def state(self, distributed: DistributedContext) -> list[list[float]]:
        """Values over all ranks that :meth:`restore` takes; all must ask at once."""
        return distributed.all_reduce_sum(self._sums).tolist()

    def restore(self, values: list[list[float]], distributed: DistributedContext) -> None:
        """Take up the state of the same training; the first rank takes the sums of all."""
        self._sums.zero_()
        if distributed.is_main:
            self._sums.copy_(torch.tensor(values, dtype=self._sums.dtype))


_PORTION_SEED = 1  # beside the run's own, which orders labelled reviews


@dataclass(frozen=True)
class MicroBatch:
    """A rank's share of one batch of an update.

    Attributes:
        batch: its reviews.
        is_labelled: whether they have labels.
        update: the update's number, from 0.
        num_labelled: reviews of the update that have labels, over all ranks.
        num_all: these and the others.
        soft_labels: (batch, classes) what teachers say of its reviews, on the device, or None.
    """

    batch: Batch
    is_labelled: bool
    update: int
    num_labelled: int
    num_all: int
    soft_labels: torch.Tensor | None = None

    @property
    def num_unlabelled(self) -> int:
        """Reviews of the update that have none, over all ranks."""
        return self.num_all - self.num_labelled


class MicroBatches:
    """Deals out batches, and beside each batch with labels one without.

    Args:
        unlabelled: reviews without labels, on the device; None for none.
        soft_labels: (num_unlabelled, classes) what teachers say of them, there too, or None.
        config: the run's settings.
        world: the ranks.
    """

    def __init__(
        self,
        unlabelled: EncodedCorpus | None,
        soft_labels: torch.Tensor | None,
        config: Config,
        distributed: DistributedContext,
    ) -> None:
        self._unlabelled = unlabelled
        self._soft_labels = soft_labels
        self._distributed = distributed
        self._batches_per_update = config.training.accumulation_steps
        self._batches: EndlessBatches | None = None
        if unlabelled is not None:
            objectives, training = config.objectives, config.training
            self._batches = EndlessBatches(
                unlabelled.lengths,
                batch_size=objectives.unlabelled_batch_size or training.batch_size,
                unit=training.batch_unit,
                seed=mixed_seed(config.seed, _PORTION_SEED),
            )

    def of_update(
        self, update: int, corpus: EncodedCorpus, group: list[torch.Tensor]
    ) -> Iterator[MicroBatch]:
        """This rank's portions; one of no review is left out.

        Args:
            update: its number, from 0, which decides what reviews without labels it takes.
            corpus: the reviews with labels, on the device.
            group: indices of each batch's reviews in it, over all ranks, longest first.
        """
        batches = [(corpus, indices, True) for indices in group]
        num_labelled = num_all = sum(map(len, group))
        if self._unlabelled is not None and self._batches is not None:
            first = update * self._batches_per_update
            others = [self._batches.batch(first + number) for number in range(len(group))]
            batches += [(self._unlabelled, indices, False) for indices in others]
            num_all += sum(map(len, others))
        for source, indices, is_labelled in batches:
            own = shard(indices, self._distributed.rank, self._distributed.world_size)
            if len(own):
                said = None if is_labelled else self._said_of(own)
                yield MicroBatch(
                    source.batch(own), is_labelled, update, num_labelled, num_all, said
                )

    def _said_of(self, indices: torch.Tensor) -> torch.Tensor | None:
        if self._soft_labels is None:
            return None
        return self._soft_labels[indices.to(self._soft_labels.device, non_blocking=True)]


_NUMBER_OF_SEED = 2  # beside the run's own, which orders labelled reviews


@dataclass(frozen=True)
class _Here:
    """What is found of reviews at their words as they are.

    Attributes:
        logits: (batch, classes).
        loss: () the terms there.
        gradient, of_logits: of a loss by the words and by the logits, None where nobody needs them.
        unlikely: (batch, time, embedding) where labels grow unlikely, None likewise.
    """

    logits: torch.Tensor
    loss: torch.Tensor
    gradient: torch.Tensor | None = None
    of_logits: torch.Tensor | None = None
    unlikely: torch.Tensor | None = None


class CombinedObjective:
    """Adds up the gradients of all terms, portion by portion of an update.

    Args:
        model: the classifier, on ``device``.
        unlabelled: reviews without labels, on ``device``; None learns from those with labels alone.
        soft_labels: (num_unlabelled, classes) what teachers say of them, there too, or None.
        config: the run's settings.
        device: where to compute.
        precision: arithmetic of the matrix products.
        world: the ranks; all must make the same calls.

    Attributes:
        portions: what an update learns from.
        sums: the terms since the last point of the curves.
    """

    def __init__(
        self,
        model: SentimentClassifier,
        unlabelled: EncodedCorpus | None,
        soft_labels: torch.Tensor | None,
        config: Config,
        *,
        device: torch.device,
        precision: torch.dtype,
        distributed: DistributedContext,
    ) -> None:
        self._model = model
        self._objectives = objectives = config.objectives
        self._distillation = distillation = config.distillation
        self._device = device
        self._precision = precision
        self._distributed = distributed
        self._seed = mixed_seed(config.seed, _NUMBER_OF_SEED)
        self._losses = nn.CrossEntropyLoss(
            reduction="none", label_smoothing=config.training.label_smoothing
        )
        self._is_binary = model.output.out_features == 2
        self._iterations = objectives.power_iterations or (0 if self._is_binary else 1)
        assert (soft_labels is not None) == distillation.is_wanted
        self.portions = MicroBatches(unlabelled, soft_labels, config, distributed)
        weights = {
            "adversarial": objectives.adversarial,
            "virtual_adversarial": objectives.virtual_adversarial,
            "entropy": objectives.entropy,
            "distillation": distillation.weight if distillation.is_wanted else 0.0,
        }
        self.sums = TermSums(tuple(name for name, each in weights.items() if each > 0), device)
        share_weights(model, distributed)

    def add_gradients(self, portion: MicroBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """Add the gradients of all terms of some reviews.

        Returns:
            (batch, classes) logits at the words as they are, and () this part of the weighted loss.
        """
        batch = portion.batch
        with autocast(self._device, self._precision):
            embedded = self._model.embed(batch.tokens)  # (batch, time, embedding)
        # All passes start from one leaf, in which their gradients add up, to go through embedding
        # and dropout together.
        words = embedded.detach().requires_grad_()
        passes = FixedDropoutForward(self._model, batch.lengths, self._device, self._precision)
        here = self._learn_here(portion, passes, words)
        loss = here.loss
        # All moves first: the gradient that they are found in is part of the sum, which grows.
        for name, move in self._find_moves(portion, passes, words, here).items():
            loss = loss + self._learn_there(name, portion, passes, words + move, here)
        if embedded.requires_grad and words.grad is not None:
            embedded.backward(words.grad)
        return here.logits, loss

    def exchange(self) -> None:
        """Give all ranks the sum of their gradients, when those of all portions are added."""
        sum_gradients(self._model, self._distributed)

    def _learn_here(
        self, portion: MicroBatch, passes: FixedDropoutForward, words: torch.Tensor
    ) -> _Here:
        """The first pass: the terms at the words as they are."""
        objectives, labels = self._objectives, portion.batch.labels
        soft_labels = portion.soft_labels
        has_terms = portion.is_labelled or objectives.entropy > 0 or soft_labels is not None
        is_differentiated = has_terms or self._iterations == 0
        with torch.set_grad_enabled(is_differentiated):
            logits = passes.classify(words)  # (batch, classes)
        loss = torch.zeros((), device=self._device)
        if not is_differentiated:
            return _Here(logits, loss)
        if not has_terms:
            gap = logits[:, 0] - logits[:, 1]
            of_gap = torch.tensor([1.0, -1.0], device=self._device).expand_as(logits)
            (gradient,) = torch.autograd.grad(gap.sum(), words)
            return _Here(logits.detach(), loss, gradient, of_gap)
        unlikely = None
        if portion.is_labelled:
            loss = loss + self._losses(logits, labels).sum() / portion.num_labelled
            if objectives.adversarial > 0 and not self._is_binary:
                surprise = nn.functional.cross_entropy(logits, labels, reduction="sum")
                (unlikely,) = torch.autograd.grad(surprise, words, retain_graph=True)
        if objectives.entropy > 0:
            entropies = entropy(logits)
            self.sums.note("entropy", entropies)
            loss = loss + objectives.entropy * entropies.sum() / portion.num_all
        if soft_labels is not None:
            loss = loss + self._distill(soft_labels, logits) / portion.num_unlabelled
        logits.retain_grad()
        loss.backward()
        return _Here(logits.detach(), loss.detach(), words.grad, logits.grad, unlikely)

    def _distill(self, soft_labels: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """() what is weighted of the term of the teachers, added up over reviews."""
        losses = soft_cross_entropy(soft_labels, logits, self._distillation.temperature)
        self.sums.note("distillation", losses)
        return self._distillation.weight * losses.sum()

    def _find_moves(
        self, portion: MicroBatch, passes: FixedDropoutForward, words: torch.Tensor, here: _Here
    ) -> dict[str, torch.Tensor]:
        """Where the words are moved to, (batch, time, embedding), by the term that is for."""
        batch, objectives = portion.batch, self._objectives
        found: dict[str, torch.Tensor] = {}
        if portion.is_labelled and objectives.adversarial > 0:
            unlikely = here.unlikely
            found["adversarial"] = _away_from(batch.labels, here) if unlikely is None else unlikely
        if objectives.virtual_adversarial > 0 and self._iterations == 0:
            # Of the two ways along the eigenvector, the one on which confidence is lost leads
            # further: there is little left of it to gain.
            found["virtual_adversarial"] = _away_from(here.logits.argmax(dim=1), here)
        elif objectives.virtual_adversarial > 0:
            seeds = review_seeds(batch.indices, self._seed, portion.update, portion.is_labelled)
            start = random_directions(seeds, batch.lengths, words.shape[2], self._device)
            found["virtual_adversarial"] = power_method(
                passes.classify, here.logits, words, batch.lengths, start,
                iterations=self._iterations, step=objectives.finite_difference,
            )  # fmt: skip
        norm = objectives.perturbation_norm
        return {name: scale_reviews(each, batch.lengths, norm) for name, each in found.items()}

    def _learn_there(
        self,
        name: str,
        portion: MicroBatch,
        passes: FixedDropoutForward,
        words: torch.Tensor,
        here: _Here,
    ) -> torch.Tensor:
        """A pass at moved words, for the term of that name; returns its part of the loss."""
        logits = passes.classify(words)
        if name == "adversarial":
            losses = self._losses(logits, portion.batch.labels)  # (batch,)
            weight = self._objectives.adversarial / portion.num_labelled
        else:
            losses = divergence(here.logits, logits)
            weight = self._objectives.virtual_adversarial / portion.num_all
        self.sums.note(name, losses)
        loss = weight * losses.sum()
        loss.backward()
        return loss.detach()


def build_mixture(
    model: SentimentClassifier,
    unlabelled: EncodedCorpus | None,
    config: Config,
    *,
    device: torch.device,
    precision: torch.dtype,
    distributed: DistributedContext,
    soft_labels: torch.Tensor | None = None,
) -> CombinedObjective | None:
    """The mixture that the settings ask for, None where they ask for the supervised loss alone."""
    if not (config.objectives.are_any or config.distillation.is_wanted):
        return None
    there = None if unlabelled is None else unlabelled.to(device)
    said = None if soft_labels is None else soft_labels.to(device)
    return CombinedObjective(
        model, there, said, config, device=device, precision=precision, distributed=distributed
    )


def _away_from(classes: torch.Tensor, here: _Here) -> torch.Tensor:
    assert here.gradient is not None and here.of_logits is not None
    return adversarial_direction(classes, here.gradient, here.of_logits)
