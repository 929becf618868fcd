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
