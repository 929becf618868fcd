"""The gradients of all terms of the loss, of reviews with labels and without.

    loss = L + w_a L_a + w_v L_v + w_e L_e + w_d L_d

L is the supervised loss. L_a is the same at words moved against their labels (Goodfellow et al.
2015), L_v the divergence from the prediction to that at words moved to where it changes most
(Miyato, Dai & Goodfellow 2017, who move words), L_e the entropy of the predictions (Grandvalet &
Bengio 2005); Sachan, Zaheer & Salakhutdinov (2019) learn from these four. L_d is the cross-entropy
of the predictions against what teachers say (Hinton, Vinyals & Dean 2015). L and L_a are means over
the reviews with labels, L_v and L_e over all reviews of an update, L_d over those without labels.

What an update costs is the passes through the recurrence. One forward and one backward pass of a
batch are what an update without the other terms takes. On top of them come

- L_a: one more. Where the words are moved to is found in the first backward pass; with more than
  two classes it is a backward pass more.
- L_v: one more, and as many for a batch without labels as for one with them, its first included.
  With more than two classes or ``power_iterations``, that many more for each batch.
- L_e: none for a batch with labels, one for a batch without, unless L_v has made it.
- L_d: one for a batch without labels, unless L_v or L_e has made it.

So L_a, L_e and L_d alone take twice as long as L, L_v four times, all together five times. Each
pass through the recurrence is differentiated at once and forgotten, so that memory holds one at a
time.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from sentiment.config import Config
from sentiment.model import SentimentClassifier
from sentiment.objectives.exchange import share_weights, sum_gradients
from sentiment.objectives.passes import Passes
from sentiment.objectives.perturbations import (
    away_from,
    power_method,
    random_directions,
    review_seeds,
    scale_reviews,
)
from sentiment.objectives.portions import Portion, Portions
from sentiment.objectives.term_sums import TermSums
from sentiment.objectives.terms import divergence, entropy, soft_cross_entropy
from sentiment.runtime import autocast, mixed_seed
from sentiment.text.batches import EncodedCorpus
from sentiment.world import World

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


class Mixture:
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
        world: World,
    ) -> None:
        self._model = model
        self._objectives = objectives = config.objectives
        self._distillation = distillation = config.distillation
        self._device = device
        self._precision = precision
        self._world = world
        self._seed = mixed_seed(config.seed, _NUMBER_OF_SEED)
        self._losses = nn.CrossEntropyLoss(
            reduction="none", label_smoothing=config.training.label_smoothing
        )
        self._is_binary = model.output.out_features == 2
        self._iterations = objectives.power_iterations or (0 if self._is_binary else 1)
        assert (soft_labels is not None) == distillation.is_wanted
        self.portions = Portions(unlabelled, soft_labels, config, world)
        weights = {
            "adversarial": objectives.adversarial,
            "virtual_adversarial": objectives.virtual_adversarial,
            "entropy": objectives.entropy,
            "distillation": distillation.weight if distillation.is_wanted else 0.0,
        }
        self.sums = TermSums(tuple(name for name, each in weights.items() if each > 0), device)
        share_weights(model, world)

    def add_gradients(self, portion: Portion) -> tuple[torch.Tensor, torch.Tensor]:
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
        passes = Passes(self._model, batch.lengths, self._device, self._precision)
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
        sum_gradients(self._model, self._world)

    def _learn_here(self, portion: Portion, passes: Passes, words: torch.Tensor) -> _Here:
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
        self, portion: Portion, passes: Passes, words: torch.Tensor, here: _Here
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
        self, name: str, portion: Portion, passes: Passes, words: torch.Tensor, here: _Here
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
    world: World,
    soft_labels: torch.Tensor | None = None,
) -> Mixture | None:
    """The mixture that the settings ask for, None where they ask for the supervised loss alone."""
    if not (config.objectives.are_any or config.distillation.is_wanted):
        return None
    there = None if unlabelled is None else unlabelled.to(device)
    said = None if soft_labels is None else soft_labels.to(device)
    return Mixture(model, there, said, config, device=device, precision=precision, world=world)


def _away_from(classes: torch.Tensor, here: _Here) -> torch.Tensor:
    assert here.gradient is not None and here.of_logits is not None
    return away_from(classes, here.gradient, here.of_logits)
