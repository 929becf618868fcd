"""The terms of the loss added up between two points of the curves."""

from __future__ import annotations

import torch

from sentiment.world import World


class TermSums:
    """Sums of the terms over reviews, unweighted, and the reviews they are of.

    Args:
        names: of the terms.
        device: where they are added up.
    """

    def __init__(self, names: tuple[str, ...], device: torch.device) -> None:
        precision = torch.float32 if device.type == "mps" else torch.float64  # MPS has no fp64
        self._names = names
        self._update = torch.zeros(len(names), 2, dtype=precision, device=device)
        self._sums = torch.zeros_like(self._update)  # (terms, 2), a sum and a count

    def begin_update(self) -> None:
        """An update begins: what was noted for the one before and not kept is forgotten."""
        self._update.zero_()

    def note(self, name: str, losses: torch.Tensor) -> None:
        """Add a term of some reviews, (batch,), to those of the update."""
        place = self._names.index(name)
        self._update[place, 0] += losses.detach().sum()
        self._update[place, 1] += len(losses)

    def keep_update(self) -> None:
        """The update is carried out: it counts."""
        self._sums += self._update

    def take_means(self, world: World) -> dict[str, float]:
        """Mean of each term over the reviews of all ranks, and begin anew; all must ask at once."""
        sums = world.sum(self._sums).tolist()
        self._sums.zero_()
        named = zip(self._names, sums, strict=True)
        return {name: total / max(1, count) for name, (total, count) in named}

    def state(self, world: World) -> list[list[float]]:
        """Values over all ranks that :meth:`restore` takes; all must ask at once."""
        return world.sum(self._sums).tolist()

    def restore(self, values: list[list[float]], world: World) -> None:
        """Take up the state of the same training; the first rank takes the sums of all."""
        self._sums.zero_()
        if world.is_first:
            self._sums.copy_(torch.tensor(values, dtype=self._sums.dtype))
