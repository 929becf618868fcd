"""The same words classified again and again, each time by the same network."""

from __future__ import annotations

import torch

from sentiment.model import SentimentClassifier
from sentiment.runtime import autocast


class Passes:
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
