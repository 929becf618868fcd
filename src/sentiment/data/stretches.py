"""Stretches of neighbouring rows, which are held out together, in files sorted by class too."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

_NAME = re.compile(r"\b[A-Z]\w{3,}")
_MOST_TEXTS = 60  # that hold a rare name; IMDB has at most 30 reviews of a film in each class
_PLACE = 40  # rows within which all texts of one class that hold the name lie
_MAX_GAP = 10  # times the mean distance of neighbouring pairs; beyond, a pair is chance


def number_stretches(
    texts: Sequence[str], labels: np.ndarray, rows: np.ndarray, length: int
) -> np.ndarray:
    """(num_texts,) the number of each text's stretch of ``length`` neighbouring rows.

    ``labels`` and ``rows`` (num_texts,) are each text's class and row in its file, increasing. If
    the file holds one class after the other, each in the same order of films, as IMDB's does, then
    the texts of both classes about a film are neighbours here: a stretch of one class alone would
    leave the film's texts of the other class in training, where its names stand for the opposite.
    """
    pairs = align_classes(texts, labels)
    if pairs is None:
        return rows // length
    first, second = pairs
    num_first = int(np.argmax(labels != labels[0]))
    places = np.concatenate(
        (np.interp(np.arange(num_first), first, second), np.arange(len(labels) - num_first))
    )
    ranks = np.empty(len(places), dtype=np.int64)
    ranks[np.argsort(places, kind="stable")] = np.arange(len(places))
    return ranks // length


def align_classes(texts: Sequence[str], labels: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Places in the texts of the first and of the second class that are about the same films.

    Both (num_pairs,), increasing, in texts from the start of the class. A rare name whose texts are
    neighbours in each class pairs two places. Some pairs are chance, or actors of several films:
    the longest sequence of pairs that increases in both classes leaves most of them out. None if
    the texts are not sorted by two classes, or if that sequence is no longer than chance explains.
    """
    num_first = int(np.argmax(labels != labels[0])) if len(labels) else 0
    if num_first == 0 or (labels[num_first:] != labels[num_first]).any():
        return None
    texts_of: dict[str, list[int]] = defaultdict(list)
    for index, text in enumerate(texts):
        for name in set(_NAME.findall(text)):
            found = texts_of[name]
            if len(found) <= _MOST_TEXTS:  # one more says that the name is not rare
                found.append(index)
    pairs = []
    for found in texts_of.values():
        border = bisect_left(found, num_first)
        if len(found) > _MOST_TEXTS or min(border, len(found) - border) < 2:
            continue
        sides = found[:border], found[border:]
        if all(side[-1] - side[0] <= _PLACE for side in sides):
            first, second = (float(np.median(side)) for side in sides)
            pairs.append((first, second - num_first))
    pairs.sort()
    chain = [pairs[index] for index in _longest_increasing([second for _, second in pairs])]
    # Among pairs in random order, the longest sequence has about two square roots of their number.
    if len(chain) <= 10 + 3 * len(pairs) ** 0.5:
        return None
    first_places, second_places = np.array(chain).T
    gaps = np.diff(first_places)
    far = np.flatnonzero(gaps > _MAX_GAP * gaps.mean())
    end = int(far[0]) + 1 if len(far) else len(chain)
    # Both classes begin with the same films.
    return np.append(0.0, first_places[:end]), np.append(0.0, second_places[:end])


def _longest_increasing(values: Sequence[float]) -> list[int]:
    """Indices of the longest subsequence that does not decrease."""
    ends: list[float] = []  # the lowest last value of a subsequence of each length
    last: list[int] = []  # its index
    before: list[int] = []
    for index, value in enumerate(values):
        length = bisect_right(ends, value)
        before.append(last[length - 1] if length else -1)
        ends[length : length + 1] = [value]
        last[length : length + 1] = [index]
    chain = []
    index = last[-1] if last else -1
    while index >= 0:
        chain.append(index)
        index = before[index]
    return chain[::-1]
