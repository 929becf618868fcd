"""Perturbed embeddings, and the loss terms of adversarial and virtual adversarial training."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from sentiment.model import SentimentClassifier
from sentiment.runtime.device import autocast


def entropy(logits: torch.Tensor) -> torch.Tensor:
    """How undecided predictions are, in nats (Grandvalet & Bengio 2005).

    Args:
        logits: (batch, classes).

    Returns:
        (batch,) from 0 to log(classes).
    """
    log_probabilities = logits.log_softmax(dim=1)
    return -(log_probabilities.exp() * log_probabilities).sum(dim=1)


def soft_cross_entropy(
    soft_labels: torch.Tensor, logits: torch.Tensor, temperature: float
) -> torch.Tensor:
    """How far predictions are from labels that are probabilities, in nats (Hinton et al. 2015).

    Its gradient falls with the square of the temperature, which a factor makes up for (section 2).

    Args:
        soft_labels: (batch, classes) probabilities, of logits divided by the temperature.
        logits: (batch, classes).
        temperature: what these are divided by too.

    Returns:
        (batch,) the square of the temperature times the cross-entropy there.
    """
    log_probabilities = (logits / temperature).log_softmax(dim=1)
    return -(temperature**2) * (soft_labels * log_probabilities).sum(dim=1)


def divergence(reference: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """How far predictions are from those of reference, in nats: KL(p(reference) || p(logits)).

    Args:
        reference: (batch, classes) logits; no gradient flows there.
        logits: (batch, classes).

    Returns:
        (batch,) at least 0.
    """
    expected = reference.detach().log_softmax(dim=1)
    return (expected.exp() * (expected - logits.log_softmax(dim=1))).sum(dim=1)


class FixedDropoutForward:
    """Passes of one batch through recurrence, pooling and output.

    Dropout takes the same units and weights in all of them, so that what differs between two passes
    comes of the words alone. (cuDNN's dropout between layers is out of reach, and falls anew.)

    Args:
        model: the classifier.
        lengths: (batch,) of the reviews, on the CPU.
        device: where to compute.
        precision: arithmetic of the matrix products.
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
        self._drawn = _generator_state(device)

    def classify(self, words: torch.Tensor) -> torch.Tensor:
        """(batch, time, embedding) to (batch, classes) logits in fp32."""
        _set_generator(self._drawn, self._device)
        with autocast(self._device, self._precision):
            return self._model.classify(words, self._lengths).float()


def _generator_state(device: torch.device) -> torch.Tensor:
    if device.type == "cuda":
        return torch.cuda.get_rng_state(device)
    return torch.mps.get_rng_state() if device.type == "mps" else torch.get_rng_state()


def _set_generator(state: torch.Tensor, device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    elif device.type == "mps":
        torch.mps.set_rng_state(state)
    else:
        torch.set_rng_state(state)


def scale_reviews(directions: torch.Tensor, lengths: torch.Tensor, norm: float) -> torch.Tensor:
    """Give each review's direction a length, over all its words together.

    Args:
        directions: (batch, time, embedding), whatever it holds past each length.
        lengths: (batch,) on the CPU.
        norm: the L2 norm wanted.

    Returns:
        (batch, time, embedding) in fp32, 0 past each length, and for a review without a direction.
    """
    steps = torch.arange(directions.shape[1], device=directions.device)
    padding = steps >= lengths.to(directions.device).unsqueeze(1)  # (batch, time)
    found = directions.detach().float().masked_fill(padding.unsqueeze(2), 0.0)
    # Of a confident prediction gradients are so small that their squares would be 0.
    largest = found.abs().amax(dim=(1, 2), keepdim=True)  # (batch, 1, 1)
    found = found / largest.clamp_min(torch.finfo(torch.float32).tiny)
    length = torch.linalg.vector_norm(found, dim=(1, 2), keepdim=True)  # at least 1, or all is 0
    return found * (norm / length.clamp_min(1.0))


def adversarial_direction(
    classes: torch.Tensor, gradient: torch.Tensor, of_logits: torch.Tensor
) -> torch.Tensor:
    """Where one of two classes loses probability fastest, found in the gradient of any loss.

    Whatever is asked of two probabilities pulls the logits l_0 and l_1 along one line, as they
    count by their difference alone. So the gradients of all losses by a review's words are
    multiples of one another, and each is d(l_0 - l_1)/dwords but for a factor that the loss's
    gradient by the logits tells.

    Args:
        classes: (batch,) 0 or 1.
        gradient: (batch, time, embedding) of the loss by the words.
        of_logits: (batch, 2) of the same loss by the logits.

    Returns:
        (batch, time, embedding) directions of any length.
    """
    rises = of_logits.gather(1, classes.unsqueeze(1)).sign()  # (batch, 1), of the loss with l_class
    return gradient * -rises.unsqueeze(2)


def random_directions(
    seeds: list[int], lengths: torch.Tensor, size: int, device: torch.device
) -> torch.Tensor:
    """A direction for each review that its seed alone decides, whoever is beside it in the batch.

    Args:
        seeds: of each review.
        lengths: (batch,) on the CPU.
        size: values of a word.
        device: where they are needed.

    Returns:
        (batch, time, embedding) independent normal values, 0 past each length.
    """
    generator = torch.Generator()
    # Time stands first in memory, as it does in embedded words.
    drawn = torch.zeros(int(lengths.max()), len(seeds), size)
    for review, (seed, length) in enumerate(zip(seeds, lengths.tolist(), strict=True)):
        generator.manual_seed(seed)
        drawn[:length, review] = torch.randn(length, size, generator=generator)
    return drawn.to(device).transpose(0, 1)


def review_seeds(indices: torch.Tensor, *numbers: int) -> list[int]:
    """A seed for each review from its place in the corpus and some numbers more."""
    return [
        int(np.random.SeedSequence([*numbers, index]).generate_state(1)[0])
        for index in indices.tolist()
    ]


def power_method(
    classify: Callable[[torch.Tensor], torch.Tensor],
    reference: torch.Tensor,
    words: torch.Tensor,
    lengths: torch.Tensor,
    found: torch.Tensor,
    *,
    iterations: int,
    step: float,
) -> torch.Tensor:
    """Where predictions change fastest, near enough (Miyato et al. 2017, section 3.2).

    Near the words the divergence from the prediction there grows with the square of the distance,
    fastest along the first eigenvector of its Hessian. The power method multiplies a random vector
    by the Hessian, which is the gradient of the divergence a small step off along that vector.

    Args:
        classify: words (batch, time, embedding) to logits (batch, classes), by the network that
            gave the reference, its dropout included: a change of units would hide the small one
            that is looked for.
        reference: (batch, classes) logits at the words.
        words: (batch, time, embedding).
        lengths: (batch,) on the CPU.
        found: (batch, time, embedding) random directions to start from.
        iterations: multiplications, a forward and a backward pass each.
        step: how small: the L2 norm over a review.

    Returns:
        (batch, time, embedding) directions of any length.
    """
    for _ in range(iterations):
        move = scale_reviews(found, lengths, step).requires_grad_()
        changes = divergence(reference, classify(words.detach() + move)).sum()
        (found,) = torch.autograd.grad(changes, move)
    return found
