"""Hold-outs, copies in other splits, rows to leave out, and similarity of neighbouring reviews."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from string import ascii_lowercase, ascii_uppercase

import numpy as np
from scipy import sparse

from sentiment.config.config import DataConfig
from sentiment.data.tokenizer import TokenizedTexts
from sentiment.readers.formats import open_source
from sentiment.readers.layouts import cached_imdb_file
from sentiment.readers.sources import is_imdb, read_split, source_name
from sentiment.runtime.errors import UserError

logger = logging.getLogger(__name__)

_LOWER_CASE = bytes.maketrans(ascii_uppercase.encode(), ascii_lowercase.encode())
_ASCII_SEPARATORS = bytes(code for code in range(128) if not chr(code).isalnum())


def dedup_key(text: str) -> bytes:
    """16 bytes that are equal for copies of one review.

    Copies are equal after lower-casing and removing ``<br />`` and everything that is neither
    letter nor digit. If nothing remains, as of ``:)``, the text itself counts.
    """
    rest = text.replace("<br />", "")
    if not rest.isascii():
        rest = rest.lower()
        for character in set(rest):  # few are distinct; translate() below handles ASCII only
            if not character.isascii() and not character.isalnum():
                rest = rest.replace(character, "")
    folded = rest.encode().translate(_LOWER_CASE, _ASCII_SEPARATORS)
    # A digest saves memory for whole corpora; 128 bits do not collide by chance.
    return blake2b(folded or text.strip().encode(errors="surrogatepass"), digest_size=16).digest()


def hold_out(
    texts: Sequence[str],
    labels: np.ndarray,
    data: DataConfig,
    *,
    class_names: Sequence[str],
    origin: str,
    groups: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Masks of the training and validation reviews, stratified by class; (num_reviews,) bool each.

    A copy of a held-out review in another group is in neither.

    From each class, ``data.validation_share`` of its reviews is held out as closely as whole groups
    allow: at least one group is held out and at least one remains. With ``data.num_folds``,
    ``data.fold`` is held out instead. A share is the same on every platform; folds are
    scikit-learn's and may differ between its versions.

    ``labels`` (num_reviews,) index ``class_names``, of which some may have no review. Without
    ``groups`` (num_reviews,), each review with its copies (:func:`dedup_key`) is a group. A class
    that occurs in too few groups to be in both parts raises ``UserError``, which names ``origin``.
    """
    num_folds, seed = data.num_folds, data.validation_seed
    copies = number_keys(map(dedup_key, texts))
    group_ids = copies if groups is None else number_keys(groups.tolist())
    counts = _count(group_ids, labels, num_classes=len(class_names))
    num_groups = np.count_nonzero(counts, axis=0)  # (num_classes,) groups that hold the class
    kind = "different review" if groups is None else "group"
    too_few, only_copies = num_groups == 1, False
    if num_folds is not None:
        too_few |= (num_groups > 0) & (num_groups < num_folds)
    if not too_few.any():
        if num_folds is None:
            held = _choose_groups(counts, data.validation_share, seed, fills_up=groups is not None)
        else:
            held = choose_folds(labels, group_ids, num_folds, seed) == data.fold - 1
        validates = held[group_ids]
        trains = ~validates & ~np.isin(copies, copies[validates])
        present = np.arange(len(class_names))[num_groups > 0]
        in_both = np.isin(present, labels[trains]) & np.isin(present, labels[validates])
        missing = present[~in_both]
        if len(missing) == 0:
            return trains, validates
        too_few[missing] = True
        only_copies = missing[0] in set(labels[~validates].tolist()) - set(labels[trains].tolist())
    label = int(np.flatnonzero(too_few)[0])
    count = int(num_groups[label])
    where = f"{origin}: class {class_names[label]!r} has {count} {kind}{'s' * (count != 1)} among "
    problem = _explain_too_few(data, count, groups)
    if only_copies:
        problem = (
            "too few to hold some out for validation, as the others are copies of these: leave "
            "copies out with data.exclude (sentiment audit lists them), or set data.validation to "
            "random"
        )
    raise UserError(f"{where}{int(counts[:, label].sum())} reviews, {problem}")


def _explain_too_few(data: DataConfig, count: int, groups: np.ndarray | None) -> str:
    """Why a class that ``count`` groups hold cannot be in both parts, and what to do."""
    into = "hold some out" if data.num_folds is None else f"make {data.num_folds} folds"
    more = "reviews of that class" if groups is None else "groups with that class"
    if data.num_folds is not None and count > 1:
        way = "make fewer folds"
    elif groups is None and data.num_folds is None:
        way = "give a validation split of your own"
    elif groups is None:
        way = "leave that class out with data.labels"
    elif data.hold_out == "stretches":
        way = "hold out shorter stretches (data.stretch_length), or set data.validation to random"
    else:
        way = (
            "name another data.group_column, or set data.validation to random and "
            "data.group_column to null"
        )
    return f"too few to {into} for validation: add {more}, or {way}"


def number_keys(keys: Iterable[Hashable]) -> np.ndarray:
    """(num_keys,) int64: distinct keys, numbered in the order of their first occurrence."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)


def _count(groups: np.ndarray, labels: np.ndarray, *, num_classes: int) -> np.ndarray:
    """(num_groups, num_classes) number of reviews of each class in each group."""
    num_groups = int(groups.max()) + 1
    cells = np.bincount(groups * num_classes + labels, minlength=num_groups * num_classes)
    return cells.reshape(-1, num_classes)


def choose_folds(labels: np.ndarray, groups: np.ndarray, num_folds: int, seed: int) -> np.ndarray:
    """(num_groups,) the fold of each group, from 0, stratified by class.

    ``groups`` (num_reviews,) are numbered from 0 without a gap.
    """
    from sklearn.model_selection import StratifiedGroupKFold  # its import takes half a second

    folds = np.empty(int(groups.max()) + 1, dtype=np.int64)
    splitter = StratifiedGroupKFold(num_folds, shuffle=True, random_state=seed % 2**32)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")
        for number, (_, held) in enumerate(splitter.split(labels, labels, groups)):
            folds[groups[held]] = number
    return folds


def _choose_groups(counts: np.ndarray, share: float, seed: int, *, fills_up: bool) -> np.ndarray:
    """(num_groups,) bool: take groups in random order while they fit into the quota of each class.

    ``fills_up`` adds groups that exceed a quota as long as this gets closer to the share.
    """
    totals = counts.sum(axis=0)  # (num_classes,)
    quotas = np.minimum(np.maximum(np.rint(share * totals).astype(np.int64), 1), totals - 1)
    quotas = np.maximum(quotas, 0)
    # NumPy guarantees a stable stream for bit generators only, not for Generator.permutation
    # (https://numpy.org/neps/nep-0019-rng-policy.html).
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
        if not counts[held, label].any():  # all its groups are larger than its quota
            candidates = order[counts[order, label] > 0]
            held[candidates[counts[candidates].sum(axis=1).argmin()]] = True
    return held


# If two splits share a review, the copy in the first can be dropped.
_PAIRS = (("train", "validation"), ("train", "test"), ("validation", "test"))
_ADVICE = {
    "train": "give other reviews to train on",
    "validation": "give others, or none to hold reviews out of train",
}


# For a split and a later one: whether the latter holds a copy of each review, (num_reviews,) bool.
Overlaps = dict[tuple[str, str], np.ndarray]


def find_overlaps(data: DataConfig, train: Sequence[str], validation: Sequence[str]) -> Overlaps:
    """The overlap of each pair of splits that share a review; the test split may be missing.

    Raises:
        UserError: one split contains all reviews of another, as if a file was copied; or shared
            reviews are to be dropped, but the test split cannot be read.
    """
    keys = {
        "train": [dedup_key(text) for text in train],
        "validation": [dedup_key(text) for text in validation],
        "test": read_test_keys(data),
    }
    overlaps = {}
    for split, other in _PAIRS:
        is_shared = is_in(keys[split], keys[other])
        if is_shared.all():
            raise UserError(
                f"{source_name(data)}: all {len(is_shared):,} reviews of {split} are in {other} "
                f"too: {_ADVICE[split]} (--data.shared_reviews ignore trains anyway)"
            )
        if is_shared.any():
            overlaps[split, other] = is_shared
    return overlaps


def is_in(keys: Sequence[bytes], others: Iterable[bytes]) -> np.ndarray:
    """(num_keys,) bool: whether each key occurs among the others."""
    known = set(others)
    return np.array([key in known for key in keys], dtype=bool)


def log_overlaps(overlaps: Overlaps, *, dropped: bool) -> None:
    outcome = "left out of" if dropped else "data.shared_reviews drop leaves them out of"
    for (split, other), is_shared in overlaps.items():
        count = int(np.count_nonzero(is_shared))
        reviews = f"{count:,} review{'s' * (count != 1)}"
        logger.warning("%s and %s share %s (%s %s)", split, other, reviews, outcome, split)


def read_test_keys(data: DataConfig) -> list[bytes]:
    """The :func:`dedup_key` of each test review; empty if there is no test split."""
    drops_shared = data.shared_reviews == "drop"
    if is_imdb(data) and cached_imdb_file("test") is None:
        if drops_shared:
            logger.warning(
                "data.shared_reviews drop cannot leave out copies of test reviews: IMDB's test "
                "split is not in the hub's cache; evaluating a run on it downloads it"
            )
        return []  # it is not downloaded for this
    try:
        # Without labels: a test split for use elsewhere may have none.
        texts = read_split(data, "test", with_labels=False).texts
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        reason = f"the test split can't be compared with the others: {error}"
        if drops_shared:
            raise UserError(f"{reason} (or set data.shared_reviews to report)") from error
        logger.warning("%s", reason)
        return []
    return [dedup_key(text) for text in texts if text]


# The list of rows to leave out of training and validation, which ``sentiment audit`` writes.
LIST_COLUMNS = ("split", "row", "digest")  # that name a row; others are for people
_LISTED_SPLITS = ("train", "validation")
_MEND_LIST = "make it with sentiment audit and these data settings, or set data.exclude to null"


def row_digest(text: str) -> str:
    """The digest by which a list of rows identifies a text, so that another text is refused."""
    return f"x{dedup_key(text).hex()[:16]}"  # with a letter in front, no spreadsheet rounds it


def read_exclusions(path: Path) -> dict[str, dict[int, str]]:
    """The digest of each listed row, by split and number of the row from 1.

    A file without the columns split, row and digest, or with invalid values, raises ``UserError``.
    """
    if not path.exists():
        raise FileNotFoundError(f"data.exclude is {path}, which does not exist: {_MEND_LIST}")
    listed: dict[str, dict[int, str]] = {split: {} for split in _LISTED_SPLITS}
    # These columns are ASCII, whatever encoding a spreadsheet has saved the texts in.
    options = DataConfig(text_column="digest", encoding="latin-1")
    for block in open_source(path, options, others=["split", "row"]).blocks(10_000):
        for index, problem in block.problems.items():
            raise UserError(f"{block.place(index)}: {problem}")
        columns = (block.values("split"), block.values("row"), block.texts)
        for index, (split, row, digest) in enumerate(zip(*columns, strict=True)):
            number = str(row).strip()
            if split not in listed or not number.isdecimal() or digest is None:
                raise UserError(
                    f"{block.place(index)}: split {split!r}, row {row!r} names no review of "
                    f"{' or '.join(_LISTED_SPLITS)} to leave out: delete the line"
                )
            listed[split][int(number)] = digest.strip()
    return listed


def excluded_rows(
    path: Path, split: str, listed: dict[int, str], rows: np.ndarray | None, texts: Sequence[str]
) -> np.ndarray:
    """(num_listed,) indices of the listed rows, from 0; ``UserError`` if one is not in the split.

    ``rows`` (num_reviews,) and ``texts`` are all reviews of the split; ``path`` is for messages.
    """
    assert rows is not None
    text_of = dict(zip((rows + 1).tolist(), texts, strict=True))
    if missing := sorted(listed.keys() - text_of.keys()):
        raise UserError(
            f"{path} lists rows that are not among the labelled reviews of {split} "
            f"({len(missing):,}, first row {missing[0]}): delete these lines, or {_MEND_LIST}"
        )
    for row, digest in listed.items():
        if row_digest(text_of[row]) != digest:
            raise UserError(
                f"{path} lists row {row} of {split} with a text other than that row's, so it was "
                f"made for other reviews: {_MEND_LIST}"
            )
    return np.array(sorted(listed), dtype=np.int64) - 1


_MAX_TEXTS = 50_000  # the first ones of a larger corpus suffice, and take seconds
_MAX_OCCURRENCES = 20  # a rare word occurs in at least two and at most this many texts
_ROUNDS = 5  # of random pairs, each with as many pairs as there are neighbours
_MIN_FACTOR = 3.0
_MIN_SHARED = 30  # rare words shared by all neighbours together; fewer may be chance


@dataclass(frozen=True)
class NeighbourSimilarity:
    """Mean number of rare words that two reviews of one class share."""

    of_neighbours: float  # mean over pairs of neighbouring rows
    of_random_pairs: float
    num_pairs: int  # of neighbours

    @property
    def factor(self) -> float:
        """How many times as many words neighbours share."""
        least = 1 / max(1, _ROUNDS * self.num_pairs)
        return self.of_neighbours / max(self.of_random_pairs, least)

    @property
    def is_suspicious(self) -> bool:
        """Whether neighbours share far more words than chance explains."""
        num_shared = self.of_neighbours * self.num_pairs
        return num_shared >= _MIN_SHARED and self.factor >= _MIN_FACTOR


def measure_similarity(tokenized: TokenizedTexts, labels: np.ndarray) -> NeighbourSimilarity:
    """Compare neighbouring texts, in the order of their rows, with random pairs of their class."""
    count = min(len(tokenized), _MAX_TEXTS)
    labels, offsets = labels[:count], np.asarray(tokenized.offsets[: count + 1])
    tokens = np.asarray(tokenized.tokens[: offsets[-1]])
    contains = sparse.csr_array(
        (np.ones(len(tokens), dtype=np.int32), tokens, offsets),
        shape=(count, len(tokenized.lexicon)),
        copy=True,  # sum_duplicates() changes the arrays
    )
    contains.sum_duplicates()
    contains.data[:] = 1
    occurrences = np.bincount(contains.indices, minlength=contains.shape[1])
    contains = contains[:, (occurrences >= 2) & (occurrences <= _MAX_OCCURRENCES)]
    rows = np.arange(count - 1)
    rows = rows[labels[:-1] == labels[1:]]
    if len(rows) == 0:
        return NeighbourSimilarity(0.0, 0.0, 0)
    generator = np.random.default_rng(0)
    random_means = [
        _mean_shared(contains, *_random_pairs(labels, len(rows), generator)) for _ in range(_ROUNDS)
    ]
    of_neighbours = _mean_shared(contains, rows, rows + 1)
    return NeighbourSimilarity(of_neighbours, float(np.mean(random_means)), len(rows))


def warn_of_similar_neighbours(tokenized: TokenizedTexts, labels: np.ndarray) -> None:
    """Warn if a random hold-out would put reviews of one film into both parts."""
    similarity = measure_similarity(tokenized, labels)
    if similarity.is_suspicious:
        logger.warning(
            "neighbouring reviews share %.0f times as many rare words as others of their class, "
            "as is typical of one film or author, so a random hold-out is optimistic: keep "
            "neighbours together with --data.validation stretches or, if a column names the film "
            "or author, hold out whole groups with --data.validation groups and "
            "--data.group_column",
            similarity.factor,
        )


def _random_pairs(
    labels: np.ndarray, count: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """About ``count`` pairs of different rows of one class, (num_pairs,) each."""
    first, second = generator.integers(len(labels), size=(2, count))
    members = {label: np.flatnonzero(labels == label) for label in np.unique(labels)}
    for label, rows in members.items():
        of_class = labels[first] == label
        second[of_class] = rows[second[of_class] % len(rows)]
    differ = np.abs(first - second) > 1
    return first[differ], second[differ]


def _mean_shared(contains: sparse.csr_array, first: np.ndarray, second: np.ndarray) -> float:
    if len(first) == 0:
        return 0.0
    return float(contains[first].multiply(contains[second]).sum()) / len(first)
