"""A model to be looked at, not trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from sentiment.runtime import exact_fp32


@contextmanager
def at_rest(model: nn.Module) -> Iterator[None]:
    """A context without dropout and without gradients for the weights; left as it was found.

    Gradients flow to inputs only, in exact fp32.
    """
    was_training = {module: module.training for module in model.modules()}
    learned = [each for each in model.parameters() if each.requires_grad]
    model.eval().requires_grad_(False)
    try:
        with exact_fp32():
            yield
    finally:
        for module, mode in was_training.items():
            module.training = mode
        for parameter in learned:
            parameter.requires_grad_(True)
