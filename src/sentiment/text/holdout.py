"""The validation split held out of the training reviews: stratified, seeded, whole groups of them.

A model that has read some reviews of a film knows the names in the others: held out singly, they
tell how well it remembers, not how well it reads. So reviews can be held out by groups. No copy of
a held-out review is trained on either way: of single reviews, copies are a group and stay together;
of stretches and larger groups, copies that stand elsewhere are left out of training.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from string import ascii_lowercase, ascii_uppercase

import numpy as np

_LOWER_CASE = bytes.maketrans(ascii_uppercase.encode(), ascii_lowercase.encode())
_ASCII_SEPARATORS = bytes(code for code in range(128) if not chr(code).isalnum())


def copy_key(text: str) -> bytes:
    """Return 16 bytes that are equal for copies of one review.

    Copies are reviews that are equal after lower-casing and deleting ``<br />``, white space and
    everything else that is neither letter nor digit. Where nothing is left, as of ``:)``, the text
    itself counts.
    """
    rest = text.replace("<br />", "")
    if not rest.isascii():
        rest = rest.lower()
        for character in set(rest):  # few differ, and translate() below knows bytes alone
            if not character.isascii() and not character.isalnum():
                rest = rest.replace(character, "")
    folded = rest.encode().translate(_LOWER_CASE, _ASCII_SEPARATORS)
    # A digest, as keys are kept for whole corpora; 128 bits do not collide by chance.
    return blake2b(folded or text.strip().encode(errors="surrogatepass"), digest_size=16).digest()


@dataclass(frozen=True, eq=False)  # == of arrays is an array
class HoldOut:
    """Which of the training reviews train and which validate.

    Attributes:
        trains, validates: (num_reviews,) bool, never both true; neither is true of a copy of a
            held-out review that stands in another group.
    """

    trains: np.ndarray
    validates: np.ndarray


def hold_out(
    texts: Sequence[str],
    labels: np.ndarray,
    *,
    class_names: Sequence[str],
    share: float,
    seed: int,
    origin: str,
    groups: np.ndarray | None = None,
    num_folds: int | None = None,
    fold: int = 1,
) -> HoldOut:
    """Choose the reviews to hold out for validation, stratified by class.

    Of each class, ``share`` of its reviews is held out as nearly as whole groups allow, at least
    one group, and at least one stays. For equal reviews, groups and seed a share is the same on
    every platform; folds are scikit-learn's, and another version of it may divide otherwise.

    Args:
        texts: the training reviews.
        labels: (num_reviews,) int64, index into ``class_names``.
        class_names: of which some may have no review.
        share: of each class, between 0 and 1.
        seed: of the choice.
        origin: where the reviews come from, for the message.
        groups: (num_reviews,) int64, the group of each review; None takes each review and its
            copies (:func:`copy_key`) for a group.
        num_folds: holds out one of so many folds instead of a share.
        fold: which one, from 1.

    Raises:
        ValueError: a class is in too few groups to stand on both sides.
    """
    copies = number_keys(map(copy_key, texts))
    own = copies if groups is None else number_keys(groups.tolist())
    counts = _count(own, labels, num_classes=len(class_names))
    num_groups = np.count_nonzero(counts, axis=0)  # (num_classes,), those that hold the class
    kind = "different review" if groups is None else "group"
    too_few = num_groups == 1
    if num_folds is not None:
        too_few |= (num_groups > 0) & (num_groups < num_folds)
    if not too_few.any():
        if num_folds is None:
            held = _choose_groups(counts, share, seed, fills_up=groups is not None)
        else:
            held = _choose_fold(labels, own, num_folds, seed) == fold - 1
        validates = held[own]
        trains = ~validates & ~np.isin(copies, copies[validates])
        present = np.arange(len(class_names))[num_groups > 0]
        on_both_sides = [np.isin(present, labels[side]) for side in (trains, validates)]
        missing = present[~np.logical_and(*on_both_sides)]
        if len(missing) == 0:
            return HoldOut(trains, validates)
        too_few[missing] = True
    label = int(np.flatnonzero(too_few)[0])
    count = int(num_groups[label])
    into = "hold some out" if num_folds is None else f"make {num_folds} folds"
    raise ValueError(
        f"{origin}: class {class_names[label]!r} has {count} {kind}{'s' * (count != 1)} among "
        f"{int(counts[:, label].sum())} reviews, too few to {into} for validation: add reviews of "
        f"that class{_OTHER_WAYS[groups is None, num_folds is None]}"
    )


# By whether groups are single reviews, and whether a share is held out.
_OTHER_WAYS = {
    (True, True): ", or give a validation split of your own",
    (True, False): ", or lower the number of folds",
    (False, True): ", hold out smaller groups (data.stretch_length, data.group_column), or set "
    "data.validation to random",
    (False, False): ", hold out smaller groups (data.stretch_length, data.group_column), or lower "
    "the number of folds",
}


def number_keys(keys: Iterable[Hashable]) -> np.ndarray:
    """(num_keys,) int64: equal keys have equal numbers, in the order of their first occurrence."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)


def _count(groups: np.ndarray, labels: np.ndarray, *, num_classes: int) -> np.ndarray:
    """(num_groups, num_classes): the reviews of each class in each group."""
    num_groups = int(groups.max()) + 1
    cells = np.bincount(groups * num_classes + labels, minlength=num_groups * num_classes)
    return cells.reshape(-1, num_classes)


def _choose_fold(labels: np.ndarray, groups: np.ndarray, num_folds: int, seed: int) -> np.ndarray:
    """(num_groups,) the fold of each group, from 0: of like sizes and shares of the classes."""
    from sklearn.model_selection import StratifiedGroupKFold  # half a second that others spare

    folds = np.empty(int(groups.max()) + 1, dtype=np.int64)
    splitter = StratifiedGroupKFold(num_folds, shuffle=True, random_state=seed % 2**32)
    for number, (_, held) in enumerate(splitter.split(labels, labels, groups)):
        folds[groups[held]] = number
    return folds


def _choose_groups(counts: np.ndarray, share: float, seed: int, *, fills_up: bool) -> np.ndarray:
    """(num_groups,) bool: in random order, each group that its classes have room for.

    Args:
        counts: (num_groups, num_classes), the reviews of each class in each group.
        share: of each class.
        seed: of the order.
        fills_up: whether groups follow that overshoot, while that comes nearer to the share.
    """
    totals = counts.sum(axis=0)  # (num_classes,)
    quotas = np.minimum(np.maximum(np.rint(share * totals).astype(np.int64), 1), totals - 1)
    quotas = np.maximum(quotas, 0)
    # NumPy promises that the raw output of a bit generator never changes, and does not promise it
    # of Generator.permutation (https://numpy.org/neps/nep-0019-rng-policy.html).
    order = np.argsort(np.random.PCG64(seed).random_raw(len(counts)), kind="stable")
    held = np.zeros(len(counts), dtype=bool)
    room = quotas.copy()
    for group in order:
        if (counts[group] <= room).all():
            held[group] = True
            room -= counts[group]
            if not room.any():
                break
    while fills_up:
        missing = quotas - counts[held].sum(axis=0)
        gains = np.abs(missing).sum() - np.abs(missing - counts[order]).sum(axis=1)
        empties = (counts[order] > 0) & (counts[held].sum(axis=0) + counts[order] == totals)
        gains[held[order] | empties.any(axis=1)] = 0
        if gains.max() <= 0:
            break
        held[order[gains.argmax()]] = True
    for label in np.flatnonzero(quotas):
        if not counts[held, label].any():  # each of its groups is larger than its quota
            candidates = order[counts[order, label] > 0]
            held[candidates[counts[candidates].sum(axis=1).argmin()]] = True
    return held
