"""The validation split held out of the training reviews: stratified, seeded, no copy on both sides.

A review that stands twice in the training split would be trained on and validated on if its copies
came apart, so copies move together.
"""

from __future__ import annotations

from collections.abc import Sequence
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


def choose_held_out(
    texts: Sequence[str],
    labels: np.ndarray,
    *,
    class_names: Sequence[str],
    share: float,
    seed: int,
    origin: str,
) -> np.ndarray:
    """Choose the reviews to hold out for validation.

    Of each class, ``share`` of its reviews, rounded, is held out, at least one, and at least one
    stays. Copies of one review (:func:`copy_key`) go together, whatever their labels; where groups
    of copies do not add up to the share, fewer are held out.

    Args:
        texts: the training reviews.
        labels: (num_reviews,) int64, index into ``class_names``.
        share: of each class, between 0 and 1.
        seed: the choice is the same for equal reviews, share and seed on every platform.
        origin: where the reviews come from, for the message.

    Returns:
        (num_reviews,) bool, true where a review is held out.

    Raises:
        ValueError: a class has too few different reviews to stand on both sides.
    """
    groups, counts = _count_groups(texts, labels, num_classes=len(class_names))
    num_different = np.count_nonzero(counts, axis=0)  # (num_classes,)
    too_few = num_different == 1
    if not too_few.any():
        held_groups = _choose_groups(counts, share, seed)
        num_held = np.count_nonzero(counts[held_groups], axis=0)
        too_few = (num_different > 0) & ((num_held == 0) | (num_held == num_different))
        if not too_few.any():
            return held_groups[groups]
    label = int(np.flatnonzero(too_few)[0])
    raise ValueError(
        f"{origin}: class {class_names[label]!r} has {num_different[label]} different reviews "
        f"among {int(counts[:, label].sum())}, too few to hold some out for validation: add "
        "reviews of that class, or give a validation split of your own"
    )


def _count_groups(
    texts: Sequence[str], labels: np.ndarray, *, num_classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the group of copies of each review, and the reviews of each class in each group.

    Their shapes are (num_reviews,) and (num_groups, num_classes); groups are numbered in the order
    in which they first occur.
    """
    group_by_key: dict[bytes, int] = {}
    groups = np.array(
        [group_by_key.setdefault(copy_key(text), len(group_by_key)) for text in texts],
        dtype=np.int64,
    )
    num_cells = len(group_by_key) * num_classes
    cells = np.bincount(groups * num_classes + labels, minlength=num_cells)
    return groups, cells.reshape(-1, num_classes)


def _choose_groups(counts: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Return (num_groups,) bool: in random order, each group that its classes have room for.

    ``counts`` is (num_groups, num_classes): the reviews of each class in each group of copies.
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
    for label in np.flatnonzero(quotas):
        if not counts[held, label].any():  # each of its groups is larger than its quota
            candidates = order[counts[order, label] > 0]
            held[candidates[counts[candidates].sum(axis=1).argmin()]] = True
    return held
