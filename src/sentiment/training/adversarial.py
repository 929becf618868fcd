"""Perturbed embeddings, and the loss terms of adversarial and virtual adversarial training."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from sentiment.model import SentimentClassifier
from sentiment.model.layers import to_device
from sentiment.runtime.device import autocast, get_rng_state, set_rng_state


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


class FixedDropoutForward:
    """Forward passes of one batch through recurrence, pooling and output, with equal dropout.

    Two passes then differ by the words alone.
    """

    def __init__(
        self,
        model: SentimentClassifier,
        lengths: torch.Tensor,
        device: torch.device,
        precision: torch.dtype,
    ) -> None:
        self._model = model
        self._lengths = lengths
        self._device = device
        self._precision = precision
        self._generator = get_rng_state(device)

    def classify(self, words: torch.Tensor) -> torch.Tensor:
        """(batch, time, embedding) to (batch, classes) logits in fp32."""
        set_rng_state(self._generator, self._device)
        with autocast(self._device, self._precision):
            return self._model.classify(words, self._lengths).float()


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


def adversarial_direction(
    classes: torch.Tensor, word_gradient: torch.Tensor, logit_gradient: torch.Tensor
) -> torch.Tensor:
    """The directions in which ``classes`` (batch,), each 0 or 1, lose probability fastest.

    Losses of two classes depend on the logits only through their difference l_0 - l_1. Their
    gradients with respect to a review's words are therefore multiples of one another, and any of
    them, (batch, time, embedding), gives the direction up to its sign, which the gradient of the
    same loss with respect to the logits, (batch, 2), tells. The result is not normalized.
    """
    sign = logit_gradient.gather(1, classes.unsqueeze(1)).sign()  # (batch, 1)
    return word_gradient * -sign.unsqueeze(2)


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
    return [
        int(np.random.SeedSequence([*numbers, index]).generate_state(1)[0])
        for index in indices.tolist()
    ]


def power_method(
    classify: Callable[[torch.Tensor], torch.Tensor],
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
