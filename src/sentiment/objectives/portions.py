"""What an update learns from: this rank's shares of its batches, with labels and without."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from sentiment.config import Config
from sentiment.objectives.endless_batches import EndlessBatches
from sentiment.runtime import mixed_seed
from sentiment.text.batches import Batch, EncodedCorpus
from sentiment.text.bucketing import deal
from sentiment.world import World

_NUMBER_OF_SEED = 1  # beside the run's own, which orders labelled reviews


@dataclass(frozen=True)
class Portion:
    """A rank's share of one batch of an update.

    Attributes:
        batch: its reviews.
        is_labelled: whether they have labels.
        update: the update's number, from 0.
        num_labelled: reviews of the update that have labels, over all ranks.
        num_all: these and the others.
        soft_labels: (batch, classes) what teachers say of its reviews, on the device, or None.
    """

    batch: Batch
    is_labelled: bool
    update: int
    num_labelled: int
    num_all: int
    soft_labels: torch.Tensor | None = None

    @property
    def num_unlabelled(self) -> int:
        """Reviews of the update that have none, over all ranks."""
        return self.num_all - self.num_labelled


class Portions:
    """Deals out batches, and beside each batch with labels one without.

    Args:
        unlabelled: reviews without labels, on the device; None for none.
        soft_labels: (num_unlabelled, classes) what teachers say of them, there too, or None.
        config: the run's settings.
        world: the ranks.
    """

    def __init__(
        self,
        unlabelled: EncodedCorpus | None,
        soft_labels: torch.Tensor | None,
        config: Config,
        world: World,
    ) -> None:
        self._unlabelled = unlabelled
        self._soft_labels = soft_labels
        self._world = world
        self._batches_per_update = config.training.accumulation_steps
        self._batches: EndlessBatches | None = None
        if unlabelled is not None:
            objectives, training = config.objectives, config.training
            self._batches = EndlessBatches(
                unlabelled.lengths,
                batch_size=objectives.unlabelled_batch_size or training.batch_size,
                unit=training.batch_unit,
                seed=mixed_seed(config.seed, _NUMBER_OF_SEED),
            )

    def of_update(
        self, update: int, corpus: EncodedCorpus, group: list[torch.Tensor]
    ) -> Iterator[Portion]:
        """This rank's portions; one of no review is left out.

        Args:
            update: its number, from 0, which decides what reviews without labels it takes.
            corpus: the reviews with labels, on the device.
            group: indices of each batch's reviews in it, over all ranks, longest first.
        """
        batches = [(corpus, indices, True) for indices in group]
        num_labelled = num_all = sum(map(len, group))
        if self._unlabelled is not None and self._batches is not None:
            first = update * self._batches_per_update
            others = [self._batches.batch(first + number) for number in range(len(group))]
            batches += [(self._unlabelled, indices, False) for indices in others]
            num_all += sum(map(len, others))
        for source, indices, is_labelled in batches:
            own = deal(indices, self._world.rank, self._world.size)
            if len(own):
                said = None if is_labelled else self._said_of(own)
                yield Portion(source.batch(own), is_labelled, update, num_labelled, num_all, said)

    def _said_of(self, indices: torch.Tensor) -> torch.Tensor | None:
        if self._soft_labels is None:
            return None
        return self._soft_labels[indices.to(self._soft_labels.device, non_blocking=True)]
