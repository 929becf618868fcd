"""Predicting by several ranks: each takes its share of every block, and the first one writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from sentiment.predicting.added import Predictions
from sentiment.predicting.blocks import Block
from sentiment.predicting.progress import Progress
from sentiment.predictor import Prediction, Predictor
from sentiment.world import World


class SharedPredictor:
    """Classifies texts together with the other ranks, which must be given the same ones.

    Args:
        predictor: what classifies this rank's share.
        world: the ranks.
    """

    def __init__(self, predictor: Predictor, world: World) -> None:
        self._predictor = predictor
        self._world = world

    def predict(
        self, texts: Sequence[str], *, report: Callable[[int], object] = lambda count: None
    ) -> list[Prediction]:
        """As :meth:`sentiment.predictor.Predictor.predict`; every rank gets all predictions."""
        own = slice(self._world.rank, None, self._world.size)
        found = self._predictor.predict(texts[own])
        num_classes = len(self._predictor.class_names)
        table = torch.zeros(len(texts), num_classes + 2, dtype=torch.float64)
        if found:
            table[own] = torch.tensor(
                [[*each.probabilities, each.num_tokens, each.was_cut] for each in found],
                dtype=torch.float64,
            )
        rows = self._world.sum(table).tolist()  # where others have filled it, a rank has zeros
        report(len(texts))
        return [self._prediction(row) for row in rows]

    def _prediction(self, row: list[float]) -> Prediction:
        *probabilities, num_tokens, was_cut = row
        best = probabilities.index(max(probabilities))
        return Prediction(
            label=self._predictor.class_names[best],
            probability=probabilities[best],
            probabilities=tuple(probabilities),
            num_tokens=int(num_tokens),
            was_cut=bool(was_cut),
        )


class NoOutput:
    """Where the other ranks' predictions go: the first one writes them too."""

    def write(self, block: Block, predictions: Predictions) -> None:
        pass

    def commit(self) -> int:
        return 0

    def finish(self) -> None:
        pass


def progress_of_first(progress: Progress, world: World) -> Progress:
    """What the first rank has found done already, for all of them."""
    counts = [progress.num_rows, progress.num_bad, progress.position, progress.is_whole]
    counts = world.of_first(torch.tensor(counts, dtype=torch.int64)).tolist()
    return replace(
        progress,
        num_rows=counts[0],
        num_bad=counts[1],
        position=counts[2],
        is_whole=bool(counts[3]),
    )
