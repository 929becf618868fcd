"""A running average of the weights, which wander less than the weights themselves.

As :mod:`torch.optim.swa_utils` keeps it (Polyak & Juditsky 1992), but that it forgets the first
updates sooner: an average that still remembers where training began is none of trained weights.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.optim.swa_utils import AveragedModel

from sentiment.model import SentimentClassifier

_FULL_AFTER = 10  # after n updates no more is kept than (1 + n) / (_FULL_AFTER + n)


class WeightAverage:
    """Follows a model from update to update.

    Args:
        model: the classifier that is trained.
        decay: how much of the average an update keeps.
    """

    def __init__(self, model: SentimentClassifier, decay: float) -> None:
        self._model = model
        self._averaged = AveragedModel(model, multi_avg_fn=_moving_average(decay))

    @property
    def model(self) -> SentimentClassifier:
        """The classifier with the averaged weights."""
        module = self._averaged.module
        assert isinstance(module, SentimentClassifier)
        return module

    def update(self) -> None:
        """The model's weights have changed."""
        self._averaged.update_parameters(self._model)

    def state(self) -> dict[str, torch.Tensor]:
        """Tensors that :meth:`restore` takes."""
        return dict(self._averaged.state_dict())

    def restore(self, tensors: dict[str, torch.Tensor]) -> None:
        """Take up the state of the same training."""
        self._averaged.load_state_dict(tensors)


def _moving_average(decay: float) -> Callable[..., None]:
    @torch.no_grad()
    def average(
        averaged: list[torch.Tensor], current: list[torch.Tensor], num_averaged: torch.Tensor
    ) -> None:
        number = int(num_averaged)
        kept = min(decay, (1 + number) / (_FULL_AFTER + number))
        torch._foreach_lerp_(averaged, current, 1 - kept)

    return average
