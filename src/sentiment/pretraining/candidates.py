"""Sampled softmax: the right word is told from some others instead of from all.

The softmax over a vocabulary of 50,000 costs many times the recurrence below it. Of the wrong words
a few hundred, drawn anew for each update and shared by all of its positions, give nearly the same
gradient when each counts by the inverse of its chance to be drawn (Jean et al. 2015).
"""

from __future__ import annotations

import math

import torch
from torch import nn

from sentiment.runtime import mixed_seed

_SMOOTHING = 0.75  # exponent of the counts: rare words are drawn more often than they occur
IMPOSSIBLE = -1e4  # a logit of no weight, within every precision's range


class Candidates:
    """Draws words, none of them twice.

    Args:
        counts: (vocabulary,) how often each word occurs; one that never does is never drawn.
        num_candidates: words to draw; all there are, where these are fewer.
        seed: what is drawn for an update depends on it and the update's number alone.
    """

    def __init__(self, counts: torch.Tensor, num_candidates: int, seed: int) -> None:
        weights = counts.double() ** _SMOOTHING
        self._weights = weights / weights.sum()
        self._size = min(num_candidates, int((weights > 0).sum()))
        self._seed = seed
        chances = -torch.expm1(-self._weights * self._num_draws())
        self.log_chances = chances.clamp(min=1e-30).log().float()

    def _num_draws(self) -> float:
        """The draws, were each from all words again, that meet ``size`` words on average."""
        low, high = 1.0, 1e18
        for _ in range(200):
            middle = math.sqrt(low * high)
            is_enough = float(-torch.expm1(-self._weights * middle).sum()) >= self._size
            low, high = (low, middle) if is_enough else (middle, high)
        return high

    def draw(self, update: int) -> torch.Tensor:
        """(num_candidates,) different words on the CPU."""
        generator = torch.Generator().manual_seed(mixed_seed(self._seed, update))
        return torch.multinomial(self._weights, self._size, generator=generator)


def log_likelihood(
    hidden: torch.Tensor,
    targets: torch.Tensor,
    target_rows: tuple[torch.Tensor, torch.Tensor],
    candidates: torch.Tensor,
    candidate_rows: tuple[torch.Tensor, torch.Tensor],
    log_chances: torch.Tensor,
) -> torch.Tensor:
    """Log of the right words' shares among themselves and the candidates.

    Legend: num is the number of positions.

    Args:
        hidden: (num, embedding) what each word is predicted from.
        targets: (num,) the right words.
        target_rows: their embeddings (num, embedding) and biases (num,).
        candidates: (num_candidates,) the others, the same for all positions.
        candidate_rows: their embeddings (num_candidates, embedding) and biases (num_candidates,).
        log_chances: (vocabulary,) logs of each word's chance to be a candidate.

    Returns:
        (num,) in fp32.
    """
    rows, biases = target_rows
    right = (hidden.float() * rows).sum(dim=1) + biases  # (num,)
    rows, biases = candidate_rows
    biases = (biases - log_chances[candidates]).to(hidden.dtype)
    wrong = torch.addmm(biases, hidden, rows.to(hidden.dtype).t())  # (num, num_candidates)
    # A candidate that is a position's right word is none of its wrong ones.
    wrong = wrong.masked_fill(targets.unsqueeze(1) == candidates, IMPOSSIBLE)
    logits = torch.cat((right.unsqueeze(1), wrong.float()), dim=1)
    return -nn.functional.cross_entropy(logits, torch.zeros_like(targets), reduction="none")
