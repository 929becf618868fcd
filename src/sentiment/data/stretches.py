"""Stretches of neighbouring rows, which are held out together, in files sorted by class too."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

_WINDOW = 101  # rows around a row whose median class is that of its part
_MAX_EXCEPTIONS = 0.05  # share of rows with another class than their part, in a sorted file
_MAX_PARTS = 20  # of a sorted file: where classes change more often, neighbours have all of them
_NAME = re.compile(r"\b[^\W\d_a-z]\w{3,}")  # in alphabets other than ASCII's, any word
_PLACE = 40  # rows within which all texts of a part that hold a name lie
_MAX_GAP = 10  # times the mean distance of neighbouring places
_MAX_STRAY = 0.1  # share of the places that may lie beyond such a gap, and are chance


def number_stretches(
    texts: Sequence[str], labels: np.ndarray, rows: np.ndarray, length: int
) -> np.ndarray:
    """(num_texts,) the number of each text's stretch of ``length`` neighbouring rows.

    ``labels`` and ``rows`` (num_texts,) are each text's class and row in its file, increasing. If
    the file holds one class after the other, each in the same order of films, as IMDB's does, then
    the texts of all classes about a film are neighbours here: a stretch of one class alone would
    leave the film's other texts in training, where its names stand for another class.
    """
    parts = find_parts(labels)
    places = order_films([texts[part] for part in parts])
    if places is None:
        return rows // length
    ranks = np.empty(len(places), dtype=np.int64)
    ranks[np.argsort(places, kind="stable")] = np.arange(len(places))
    return ranks // length


def describe_stretches(
    labels: np.ndarray, rows: np.ndarray, stretches: np.ndarray, length: int
) -> str | None:
    """Whether films were recognized in a file that is sorted by class; None for other files.

    ``stretches`` (num_texts,) are those of :func:`number_stretches`; texts may be in any order.
    """
    order = np.argsort(rows)
    if len(find_parts(labels[order])) == 1:
        return None
    _, numbers = np.unique(stretches[order], return_inverse=True)
    places = np.arange(len(order))
    first, last = np.full(len(order), len(order)), np.zeros(len(order), dtype=np.int64)
    np.minimum.at(first, numbers, places)
    np.maximum.at(last, numbers, places)
    if (last - first >= length).any():
        return "films recognized by rare names, their reviews of all classes are in one stretch"
    return "no films recognized that have reviews of several classes (see data.validation)"


def find_parts(labels: np.ndarray) -> list[slice]:
    """The parts of a file that is sorted by class; a single one for any other file.

    A few rows of other classes, such as corrected labels, do not end a part.
    """
    from scipy.ndimage import median_filter

    whole = [slice(0, len(labels))]
    if len(labels) == 0:
        return whole
    classes = median_filter(labels, size=_WINDOW)
    borders = np.flatnonzero(np.diff(classes)) + 1
    if len(borders) >= _MAX_PARTS or (classes != labels).mean() > _MAX_EXCEPTIONS:
        return whole
    ends = [0, *borders.tolist(), len(labels)]
    return [slice(*each) for each in pairwise(ends)]


def order_films(parts: Sequence[Sequence[str]]) -> np.ndarray | None:
    """(num_texts,) the place of each text of all parts in a common order of films.

    Texts of a part whose films have the order of a later part get the places of these films there.
    None if there is no such part.
    """
    if len(parts) == 1:
        return None
    names = [find_names(part) for part in parts]
    places: list[np.ndarray] = []  # of the parts from the last to the first
    starts: dict[int, int] = {}  # place of the first text of each part that has an order of its own
    for number in reversed(range(len(parts))):
        own = np.arange(len(parts[number]), dtype=np.float64)
        for other, start in starts.items():
            if (pairs := align(names[number], names[other])) is not None:
                places.append(start + np.interp(own, *pairs))
                break
        else:
            starts[number] = sum(len(parts[other]) for other in starts)
            places.append(starts[number] + own)
    return np.concatenate(places[::-1]) if len(starts) < len(parts) else None


def find_names(texts: Sequence[str]) -> dict[str, float]:
    """Rare names and their places: the median number, from 0, of the texts that hold the name.

    A name is rare if at least two texts hold it, and only neighbouring ones.
    """
    texts_of: dict[str, list[int]] = defaultdict(list)
    for index, text in enumerate(texts):
        for name in set(_NAME.findall(text)):
            found = texts_of[name]
            if len(found) <= _PLACE + 1:  # more cannot all be neighbours
                found.append(index)
    return {
        name: float(np.median(found))
        for name, found in texts_of.items()
        if len(found) > 1 and found[-1] - found[0] <= _PLACE
    }


def align(
    first: Mapping[str, float], second: Mapping[str, float]
) -> tuple[np.ndarray, np.ndarray] | None:
    """Places in two parts that are about the same films, from the places of their rare names.

    Both (num_pairs,), increasing. Some names that occur in both parts do so by chance, or are those
    of actors of several films: the longest sequence of places that increases in both parts leaves
    most of them out. None if it is no longer than chance explains.
    """
    pairs = sorted((first[name], second[name]) for name in first.keys() & second.keys())
    chain = [pairs[index] for index in _longest_increasing([place for _, place in pairs])]
    places = np.array(sorted(set(chain)))  # several names of one film are found at one place
    # Among places in random order, the longest sequence has about two square roots of their number.
    if len(places) <= 10 + 3 * len(set(pairs)) ** 0.5:
        return None
    gaps = np.diff(places, axis=0)
    for index in np.flatnonzero((gaps > _MAX_GAP * gaps.mean(axis=0)).any(axis=1)):
        if len(places) - (index + 1) <= _MAX_STRAY * len(places):
            places = places[: index + 1]
            break
    # Both parts begin with the same films.
    first_places, second_places = np.vstack(([0.0, 0.0], places)).T
    return first_places, second_places


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
