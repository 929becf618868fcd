"""Micro-batches of an update, and the objective that adds other terms to the labels' loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import nn

from sentiment.config.config import Config
from sentiment.data.batches import Batch, EncodedCorpus, EndlessBatches, shard
from sentiment.data.pipeline import TrainingData
from sentiment.model import SentimentClassifier
from sentiment.model.layers import to_device
from sentiment.runtime.device import autocast, get_rng_state, mixed_seed, set_rng_state
from sentiment.runtime.distributed import share_weights
from sentiment.training.context import TrainingContext
from sentiment.training.meters import TermMeter

# Mixed with the run's seed, which by itself orders the labelled reviews.
_UNLABELLED_SEED = 1
_DIRECTION_SEED = 2
# Of a micro-batch on a CPU, padded tokens times the bytes of a value: 8,000 tokens in fp32, 16,000
# in bf16. The recurrence's blocks of memory then stay below 32 MB. Larger ones malloc returns to
# the kernel, which clears every page before the next batch gets it.
_MAX_TOKEN_BYTES = 32_000


class LabelLoss:
    """Cross-entropy of each review with its label, times the weight of its class.

    With soft labels, the target of a review is a mixture: ``distillation.labelled`` of them, and
    for the rest its label. A review that is partly of a class has that part of the class's weight.

    The weight of a label applies to the whole of its smoothed cross-entropy, unlike torch's
    ``weight``, which moves the mass that smoothing spreads to the heavy classes. Dividing the sum
    by the number of reviews, not by their weights, lets a review count the same in every batch.
    """

    def __init__(self, config: Config, labels: torch.Tensor, class_names: Sequence[str]) -> None:
        training, self._share = config.training, config.distillation.labelled
        self._loss = nn.CrossEntropyLoss(reduction="none", label_smoothing=training.label_smoothing)
        self._weights: torch.Tensor | None = None  # (classes,)
        if training.class_weights is not None:
            weights = class_weights(training.class_weights, labels.cpu().numpy(), class_names)
            self._weights = torch.from_numpy(weights).float().to(labels.device)

    def __call__(
        self, logits: torch.Tensor, labels: torch.Tensor, soft_labels: torch.Tensor | None = None
    ) -> torch.Tensor:
        """(batch,) losses of (batch, classes) logits; soft labels are (batch, classes) too."""
        losses = self._loss(logits, labels)
        if self._weights is not None:
            losses = losses * self._weights[labels]
        if soft_labels is not None:
            if self._weights is not None:
                soft_labels = soft_labels * self._weights
            opinion = soft_cross_entropy(soft_labels, logits, temperature=1)
            losses = (1 - self._share) * losses + self._share * opinion
        return losses


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
    """A rank's share of one batch of an update, or on a CPU a part of it."""

    batch: Batch
    is_labelled: bool
    update: int  # from 0
    num_labelled: int  # labelled reviews of the whole update, over all ranks
    num_all: int  # labelled and unlabelled ones
    soft_labels: torch.Tensor | None = None  # (batch, classes) by other models, on the device
    is_placeholder: bool = False  # the rank has no share, and the review only keeps it in step


class MicroBatches:
    """Shards an update's batches over the ranks, with an unlabelled batch for each labelled one.

    ``uses_placeholders`` says whether a rank without a share gets a review of another rank, because
    gradients are exchanged in every backward pass; otherwise that batch is left out. A CPU takes
    long reviews in several micro-batches, whose gradients add up to the batch's.
    """

    def __init__(
        self, data: TrainingData, context: TrainingContext, *, uses_placeholders: bool = False
    ) -> None:
        config, device = context.config, context.device
        self._labelled = data.train.to(device)
        self._unlabelled = None if data.unlabelled is None else data.unlabelled.to(device)
        self._soft_labels = data.soft_labels.to(device)
        self._distributed = context.distributed
        self._max_tokens: int | None = None
        if device.type == "cpu":
            self._max_tokens = _MAX_TOKEN_BYTES // context.precision.itemsize
        self._uses_placeholders = uses_placeholders
        self._batches_per_update = config.training.accumulation_steps
        self._unlabelled_batches: EndlessBatches | None = None
        if self._unlabelled is not None:
            objectives, training = config.objectives, config.training
            self._unlabelled_batches = EndlessBatches(
                self._unlabelled.lengths,
                batch_size=objectives.unlabelled_batch_size or training.batch_size,
                unit=training.batch_unit,
                seed=mixed_seed(config.seed, _UNLABELLED_SEED),
            )

    def of_update(self, update: int, batches: list[torch.Tensor]) -> tuple[list[MicroBatch], int]:
        """This rank's micro-batches of an update, counted from 0, and its tokens over all ranks.

        ``batches`` are rows of the labelled reviews over all ranks, longest review first.
        """
        sources = [(self._labelled, rows) for rows in batches]
        if self._unlabelled is not None and self._unlabelled_batches is not None:
            first = update * self._batches_per_update
            for number in range(first, first + len(batches)):
                sources.append((self._unlabelled, self._unlabelled_batches.batch(number)))
        num_labelled = sum(map(len, batches))
        num_all = sum(len(rows) for _, rows in sources)
        micro_batches = []
        for number, (corpus, rows) in enumerate(sources):
            is_labelled = number < len(batches)
            share = shard(rows, self._distributed.rank, self._distributed.world_size)
            is_placeholder = len(share) == 0
            if is_placeholder and not self._uses_placeholders:
                continue
            for part in self._split(rows[:1] if is_placeholder else share, corpus):
                batch = corpus.batch(part)
                soft_labels = self._soft_labels_of(corpus, part, batch, is_labelled=is_labelled)
                micro_batches.append(
                    MicroBatch(
                        batch, is_labelled, update, num_labelled, num_all, soft_labels,
                        is_placeholder,
                    )
                )  # fmt: skip
        return micro_batches, sum(int(corpus.lengths[rows].sum()) for corpus, rows in sources)

    def _split(self, rows: torch.Tensor, corpus: EncodedCorpus) -> Sequence[torch.Tensor]:
        """Parts of a batch (rows, longest review first) that are computed one after the other."""
        if self._max_tokens is None:
            return [rows]
        num_tokens = len(rows) * int(corpus.lengths[rows[0]])
        return rows.tensor_split(min(len(rows), -(-num_tokens // self._max_tokens)))

    def _soft_labels_of(
        self, corpus: EncodedCorpus, rows: torch.Tensor, batch: Batch, *, is_labelled: bool
    ) -> torch.Tensor | None:
        """(batch, classes) soft labels of a corpus' rows, on the device; None without teachers."""
        known = self._soft_labels
        soft_labels = known.labelled if is_labelled else known.unlabelled
        if soft_labels is None:
            return None
        reviews = corpus.reviews_of(rows)
        soft_labels = soft_labels[to_device(reviews, soft_labels.device)]
        if (reviews < 0).any():  # texts of no review, which have no label but their own
            own = to_device(torch.nonzero(reviews < 0)[:, 0], soft_labels.device)
            one_hot = nn.functional.one_hot(batch.labels[own], soft_labels.shape[1])
            soft_labels[own] = one_hot.to(soft_labels)
        return soft_labels


# Maps words (batch, time, embedding) to logits (batch, classes) in fp32.
Classify = Callable[[torch.Tensor], torch.Tensor]


def entropy(logits: torch.Tensor) -> torch.Tensor:
    """(batch,) entropy in nats (Grandvalet & Bengio 2005) of logits (batch, classes)."""
    log_probabilities = logits.log_softmax(dim=1)
    return -(log_probabilities.exp() * log_probabilities).sum(dim=1)


def soft_cross_entropy(
    soft_labels: torch.Tensor, logits: torch.Tensor, temperature: float
) -> torch.Tensor:
    """(batch,) cross-entropy in nats from soft labels (Hinton et al. 2015), at a temperature.

    Both arguments are (batch, classes); the soft labels are probabilities at the temperature. The
    gradient is divided by its square, so the loss is multiplied by that square (section 2).
    """
    log_probabilities = (logits / temperature).log_softmax(dim=1)
    return -(temperature**2) * (soft_labels * log_probabilities).sum(dim=1)


def divergence(reference: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """(batch,) KL(p(reference) || p(logits)) in nats, of logits; no gradient to the reference."""
    expected = reference.detach().log_softmax(dim=1)
    return (expected.exp() * (expected - logits.log_softmax(dim=1))).sum(dim=1)


def fixed_dropout(
    model: SentimentClassifier, lengths: torch.Tensor, device: torch.device, precision: torch.dtype
) -> Classify:
    """``model.classify`` for one batch, with the same dropout in every pass.

    Two passes then differ by the words alone.
    """
    generator = get_rng_state(device)

    def classify(words: torch.Tensor) -> torch.Tensor:
        set_rng_state(generator, device)
        with autocast(device, precision):
            return model.classify(words, lengths).float()

    return classify


def scale_reviews(directions: torch.Tensor, lengths: torch.Tensor, norm: float) -> torch.Tensor:
    """Scale each review's direction (time, embedding) to an L2 norm over all its words together.

    The result is in fp32, and 0 past each length and for a direction of 0.
    """
    steps = torch.arange(directions.shape[1], device=directions.device)
    padding = steps >= to_device(lengths, directions.device).unsqueeze(1)  # (batch, time)
    scaled = directions.detach().float().masked_fill(padding.unsqueeze(2), 0.0)
    # Gradients of a confident prediction are so small that their squares would be 0.
    largest = scaled.abs().amax(dim=(1, 2), keepdim=True)  # (batch, 1, 1)
    scaled = scaled / largest.clamp_min(torch.finfo(torch.float32).tiny)
    length = torch.linalg.vector_norm(scaled, dim=(1, 2), keepdim=True)  # at least 1, or 0
    return scaled * (norm / length.clamp_min(1.0))


def random_directions(
    seeds: list[int], lengths: torch.Tensor, size: int, device: torch.device
) -> torch.Tensor:
    """(batch, time, size) normal values that depend on each review's seed, not on its batch.

    They are 0 past each length.
    """
    # On a GPU itself, because drawing and copying take the host tens of milliseconds.
    draws_on = device if device.type == "cuda" else torch.device("cpu")
    generator = torch.Generator(draws_on)
    # Time is the first dimension in memory, as in embedded words.
    drawn = torch.zeros(int(lengths.max()), len(seeds), size, device=draws_on)
    for review, (seed, length) in enumerate(zip(seeds, lengths.tolist(), strict=True)):
        generator.manual_seed(seed)
        drawn[:length, review] = torch.randn(length, size, generator=generator, device=draws_on)
    return to_device(drawn, device).transpose(0, 1)


def review_seeds(indices: torch.Tensor, *numbers: int) -> list[int]:
    """A seed for each review, from its row in the corpus and further numbers."""
    return [mixed_seed(*numbers, index) for index in indices.tolist()]


def power_method(
    classify: Classify,
    reference: torch.Tensor,
    words: torch.Tensor,
    lengths: torch.Tensor,
    directions: torch.Tensor,
    *,
    iterations: int,
    step: float,
) -> torch.Tensor:
    """Approximate directions in which predictions change fastest (Miyato et al. 2017, sec. 3.2).

    Near the words, the divergence from their prediction grows with the square of the distance, and
    fastest along the first eigenvector of its Hessian. The power method multiplies random
    directions by the Hessian: the product is the gradient of the divergence after a small step of
    L2 norm ``step``. Words and directions are (batch, time, embedding); the result is not
    normalized.

    ``classify`` maps words to logits with the dropout that gave the reference: another one would
    hide the small changes.
    """
    for _ in range(iterations):
        move = scale_reviews(directions, lengths, step).requires_grad_()
        changes = divergence(reference, classify(words.detach() + move)).sum()
        (directions,) = torch.autograd.grad(changes, move)
    return directions


@dataclass(frozen=True)
class CleanForward:
    """Results of the pass over unperturbed words."""

    logits: torch.Tensor  # (batch, classes)
    loss: torch.Tensor  # () sum of the terms on the unperturbed words
    # Gradients of a loss with respect to words (batch, time, embedding) and logits, if needed.
    word_gradient: torch.Tensor | None = None
    logit_gradient: torch.Tensor | None = None
    # That of the labels' loss with respect to the words, if it cannot be derived from the above.
    label_gradient: torch.Tensor | None = None

    def away_from(self, classes: torch.Tensor) -> torch.Tensor:
        """The directions in which ``classes`` (batch,), each 0 or 1, lose probability fastest.

        Losses of two classes depend on the logits only through their difference l_0 - l_1. Their
        gradients with respect to a review's words are therefore multiples of one another, and any
        of them, (batch, time, embedding), gives the direction up to its sign, which the gradient of
        the same loss with respect to the logits, (batch, 2), tells. The result is not normalized.
        """
        assert self.word_gradient is not None and self.logit_gradient is not None
        sign = self.logit_gradient.gather(1, classes.unsqueeze(1)).sign()  # (batch, 1)
        return self.word_gradient * -sign.unsqueeze(2)


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
            "distillation": distillation.weight if distillation.has_teachers else 0.0,
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
        classify = fixed_dropout(self._model, batch.lengths, self._device, self._precision)
        clean = self.clean_pass(micro_batch, classify, words)
        loss = clean.loss
        # All perturbations first: each pass adds to the gradient that they derive from.
        for name, shift in self.perturbations(micro_batch, classify, words, clean).items():
            loss = loss + self._perturbed_pass(name, micro_batch, classify, words + shift, clean)
        if embedded.requires_grad and words.grad is not None:
            embedded.backward(words.grad)
        return clean.logits, loss

    def clean_pass(
        self, micro_batch: MicroBatch, classify: Classify, words: torch.Tensor
    ) -> CleanForward:
        """Forward and backward pass of the terms on the unperturbed words."""
        objectives, labels = self._objectives, micro_batch.batch.labels
        soft_labels = micro_batch.soft_labels
        has_terms = micro_batch.is_labelled or objectives.entropy > 0 or soft_labels is not None
        needs_gradient = has_terms or self._iterations == 0
        with torch.set_grad_enabled(needs_gradient):
            logits = classify(words)  # (batch, classes)
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
            loss = loss + self._loss(logits, labels, soft_labels).sum() / micro_batch.num_labelled
            if objectives.adversarial > 0 and not self._is_binary:
                unsmoothed = nn.functional.cross_entropy(logits, labels, reduction="sum")
                (label_gradient,) = torch.autograd.grad(unsmoothed, words, retain_graph=True)
        if objectives.entropy > 0:
            losses = entropy(logits)  # (batch,)
            self.terms.add("entropy", losses)
            loss = loss + objectives.entropy * losses.sum() / micro_batch.num_all
        if soft_labels is not None and not micro_batch.is_labelled:
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
        classify: Classify,
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
                classify, clean.logits, words, batch.lengths, start,
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
        classify: Classify,
        words: torch.Tensor,
        clean: CleanForward,
    ) -> torch.Tensor:
        """Forward and backward pass of one term over perturbed words; returns its loss, ()."""
        logits = classify(words)
        if name == "adversarial":
            labels, soft_labels = micro_batch.batch.labels, micro_batch.soft_labels
            losses = self._loss(logits, labels, soft_labels)  # (batch,)
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
    config = context.config
    if not (config.objectives.are_any or config.distillation.has_teachers):
        return None, MicroBatches(data, context, uses_placeholders=True)
    assert (data.soft_labels.unlabelled is not None) == config.distillation.has_teachers
    return CombinedObjective(model, label_loss, context), MicroBatches(data, context)
