"""Copies of reviews within and across splits, and copies with contradicting labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from sentiment.data.splits import is_in


@dataclass(frozen=True)
class Copies:
    """Copies, by :func:`sentiment.data.splits.dedup_key`."""

    within: dict[str, int]  # reviews of each split that repeat an earlier one
    across: dict[tuple[str, str], int]  # reviews of the first split that are in the second
    contradictions: list[list[int]]  # copies with different labels: indices of labelled reviews


def find_copies(
    keys: Mapping[str, Sequence[bytes]], labelled: Sequence[bytes], labels: np.ndarray
) -> Copies:
    """Compare splits by their keys; ``labelled`` are the keys of ``labels`` (num_labelled,)."""
    groups: dict[bytes, list[int]] = {}
    for index, key in enumerate(labelled):
        groups.setdefault(key, []).append(index)
    return Copies(
        within={split: len(own) - len(set(own)) for split, own in keys.items()},
        across={
            (first, second): int(is_in(keys[first], keys[second]).sum())
            for first, second in combinations(keys, 2)
        },
        contradictions=[copies for copies in groups.values() if len({*labels[copies]}) > 1],
    )
