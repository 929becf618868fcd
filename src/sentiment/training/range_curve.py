"""The course of a learning-rate range test, and what it suggests."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_LEAST_FALL = 0.1  # share of the loss at the beginning: less may be noise


@dataclass(frozen=True)
class RangeTest:
    """What came of a range test; all sequences have one entry for each update made.

    Attributes:
        span: updates over which losses are averaged and slopes are taken.
        learning_rates: which the updates had, rising.
        losses: mean losses of their batches, without label smoothing.
        smoothed: the same, averaged exponentially.
        end: why it ended.
    """

    span: int
    learning_rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    end: str


@dataclass(frozen=True)
class Suggestions:
    """Learning rates that a range test suggests.

    Attributes:
        steepest: where the loss falls fastest: learning is at its quickest.
        minimum: where the loss is lowest, and about to rise.
    """

    steepest: float
    minimum: float

    @property
    def tenth_of_minimum(self) -> float:
        """A rate that keeps its distance from where the loss rises."""
        return self.minimum / 10


class SmoothedLoss:
    """An exponential average without the pull towards 0 of its start (Kingma & Ba 2015, sec. 3).

    Args:
        span: entries that it looks back on, about.
    """

    def __init__(self, span: int) -> None:
        self._decay = 1 - 1 / span
        self._average = 0.0
        self._number = 0

    def add(self, loss: float) -> float:
        """The average with one entry more."""
        self._number += 1
        self._average += (1 - self._decay) * (loss - self._average)
        return self._average / (1 - self._decay**self._number)


def suggest(test: RangeTest) -> Suggestions | None:
    """Learning rates to train with, or None where the loss did not fall.

    The steepest fall is that over the logarithm of the rate, to losses that were not reached
    before: after a sudden rise, coming down again is none. An average lags behind what it averages,
    by about a factor of two in the rate as a test comes, so both rates are rather high than low.
    """
    logarithms, losses = np.log10(test.learning_rates), np.array(test.smoothed)
    span, beginning = test.span, float(np.mean(test.losses[: test.span]))
    losses[:span] = np.maximum(losses[:span], beginning)  # those of too few may be low by chance
    lowest = int(losses.argmin())
    if lowest < span or losses[lowest] > (1 - _LEAST_FALL) * beginning:
        return None
    reached = np.minimum.accumulate(losses)
    middles = np.arange(span, lowest + 1)
    before, after = middles - span, np.minimum(middles + span, len(losses) - 1)
    slopes = (reached[before] - reached[after]) / (logarithms[after] - logarithms[before])
    steepest = int(middles[slopes.argmax()])
    return Suggestions(test.learning_rates[steepest], test.learning_rates[lowest])
