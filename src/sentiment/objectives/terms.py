"""What is asked of predictions without their labels: one number for each review.

Legend: classes is the number of classes; logits are in fp32.
"""

from __future__ import annotations

import torch


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
