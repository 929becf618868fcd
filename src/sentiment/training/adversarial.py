"""Perturbed embeddings, and the loss terms of adversarial and virtual adversarial training."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from sentiment.model import SentimentClassifier
from sentiment.runtime.device import autocast, get_rng_state, set_rng_state


def entropy(logits: torch.Tensor) -> torch.Tensor:
    """(batch,) entropy in nats (Grandvalet & Bengio 2005) of logits (batch, classes)."""
    log_probabilities = logits.log_softmax(dim=1)
    return -(log_probabilities.exp() * log_probabilities).sum(dim=1)


def soft_cross_entropy(
    soft_labels: torch.Tensor, logits: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Cross-entropy from soft labels, in nats (Hinton et al. 2015).

    The gradient falls with the square of the temperature; a factor makes up for it (section 2).

    Args:
        soft_labels: (batch, classes) probabilities at the temperature.
        logits: (batch, classes), which are divided by the temperature.

    Returns:
        (batch,) the squared temperature times the cross-entropy.
    """
    log_probabilities = (logits / temperature).log_softmax(dim=1)
    return -(temperature**2) * (soft_labels * log_probabilities).sum(dim=1)


def divergence(reference: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """(batch,) KL(p(reference) || p(logits)) in nats; no gradient flows to the reference.

    Both are logits, (batch, classes).
    """
    expected = reference.detach().log_softmax(dim=1)
    return (expected.exp() * (expected - logits.log_softmax(dim=1))).sum(dim=1)


class FixedDropoutForward:
    """Forward passes of one batch through recurrence, pooling and output, with equal dropout.

    What differs between two passes is then due to the words alone. (cuDNN's dropout between layers
    cannot be fixed.)

    Args:
        model: the classifier.
        lengths: (batch,) on the CPU.
        device, precision: of the computation.
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
    """Scale each review's direction to an L2 norm over all its words together.

    Args:
        directions: (batch, time, embedding); values past each length are ignored.
        lengths: (batch,) on the CPU.
        norm: the L2 norm.

    Returns:
        (batch, time, embedding) in fp32, 0 past each length and for a direction of 0.
    """
    steps = torch.arange(directions.shape[1], device=directions.device)
    padding = steps >= lengths.to(directions.device).unsqueeze(1)  # (batch, time)
    scaled = directions.detach().float().masked_fill(padding.unsqueeze(2), 0.0)
    # Gradients of a confident prediction are so small that their squares would be 0.
    largest = scaled.abs().amax(dim=(1, 2), keepdim=True)  # (batch, 1, 1)
    scaled = scaled / largest.clamp_min(torch.finfo(torch.float32).tiny)
    length = torch.linalg.vector_norm(scaled, dim=(1, 2), keepdim=True)  # at least 1, or 0
    return scaled * (norm / length.clamp_min(1.0))


def adversarial_direction(
    classes: torch.Tensor, word_gradient: torch.Tensor, logit_gradient: torch.Tensor
) -> torch.Tensor:
    """The direction in which one of two classes loses probability fastest.

    Losses of two classes depend on the logits by their difference l_0 - l_1 alone. Their gradients
    by a review's words are therefore multiples of one another, and any of them gives the direction
    but for its sign, which the gradient by the logits tells.

    Args:
        classes: (batch,) 0 or 1.
        word_gradient: (batch, time, embedding) gradient of any loss by the words.
        logit_gradient: (batch, 2) gradient of the same loss by the logits.

    Returns:
        (batch, time, embedding) directions of any length.
    """
    sign = logit_gradient.gather(1, classes.unsqueeze(1)).sign()  # (batch, 1)
    return word_gradient * -sign.unsqueeze(2)


def random_directions(
    seeds: list[int], lengths: torch.Tensor, size: int, device: torch.device
) -> torch.Tensor:
    """A random direction per review that depends on its seed alone, not on its batch.

    Args:
        seeds: one per review.
        lengths: (batch,) on the CPU.
        size: of the embedding.
        device: of the result.

    Returns:
        (batch, time, embedding) independent normal values, 0 past each length.
    """
    generator = torch.Generator()
    # Time is the first dimension in memory, as in embedded words.
    drawn = torch.zeros(int(lengths.max()), len(seeds), size)
    for review, (seed, length) in enumerate(zip(seeds, lengths.tolist(), strict=True)):
        generator.manual_seed(seed)
        drawn[:length, review] = torch.randn(length, size, generator=generator)
    return drawn.to(device).transpose(0, 1)


def review_seeds(indices: torch.Tensor, *numbers: int) -> list[int]:
    """A seed per review from its row in the corpus and further numbers."""
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
    fastest along the first eigenvector of its Hessian. The power method multiplies a random vector
    by the Hessian: the product is the gradient of the divergence a small step along that vector.

    Args:
        classify: words (batch, time, embedding) to logits (batch, classes), with the dropout that
            gave the reference: another one would hide the small changes.
        reference: (batch, classes) logits of the words.
        words: (batch, time, embedding).
        lengths: (batch,) on the CPU.
        directions: (batch, time, embedding) random directions to start from.
        iterations: multiplications, each with a forward and a backward pass.
        step: L2 norm of the small step over a review.

    Returns:
        (batch, time, embedding) directions of any length.
    """
    for _ in range(iterations):
        move = scale_reviews(directions, lengths, step).requires_grad_()
        changes = divergence(reference, classify(words.detach() + move)).sum()
        (directions,) = torch.autograd.grad(changes, move)
    return directions
