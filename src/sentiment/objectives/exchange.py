"""Weights that all ranks begin with, and gradients that they add up: once, when all is done.

``DistributedDataParallel`` exchanges within the one backward pass that it expects. Here gradients
come from several, of which each needs what the one before has found.
"""

from __future__ import annotations

import torch
from torch import nn

from sentiment.world import World


@torch.no_grad()
def share_weights(model: nn.Module, world: World) -> None:
    """Give all ranks the first one's weights."""
    if world.is_alone:
        return
    for values in model.state_dict().values():
        values.copy_(world.of_first(values.cpu()))


def sum_gradients(model: nn.Module, world: World) -> None:
    """Give all ranks the sum of their gradients; a rank that has none adds zeros."""
    if world.is_alone:
        return
    trained = [each for each in model.parameters() if each.requires_grad]
    own = [torch.zeros_like(each) if each.grad is None else each.grad for each in trained]
    total = world.sum(torch.cat([each.flatten() for each in own]))
    for each, gradient in zip(trained, total.split([part.numel() for part in own]), strict=True):
        each.grad = gradient.view_as(each)
