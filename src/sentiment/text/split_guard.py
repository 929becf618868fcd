"""Copies of one review in two splits, which flatter whatever is measured on the second.

Here alone does training open the test split, and only to make digests of its reviews
(:func:`sentiment.text.holdout.copy_key`): no text and no label of it leaves this room. Its labels
are not read, and a test split that is not at hand is neither fetched nor missed.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sentiment.config import DataConfig
from sentiment.text.holdout import copy_key
from sentiment.text.review_files import FORMATS, read_files, read_text_folder
from sentiment.text.review_sources import is_on_hub, read_split, source_name

logger = logging.getLogger(__name__)

# Of a review that stands in both, the copy in the first can be left out.
_PAIRS = (("train", "validation"), ("train", "test"), ("validation", "test"))
_ADVICE = {
    "train": "give other reviews to train on",
    "validation": "give others, or none to hold reviews out of train",
}


@dataclass(frozen=True, eq=False)  # == of arrays is an array
class Shared:
    """The reviews of one split of which another holds a copy.

    Attributes:
        split: ``train`` or ``validation``.
        other: ``validation`` or ``test``.
        is_shared: (num_reviews,) bool, true where ``other`` holds a copy of a review of ``split``.
    """

    split: str
    other: str
    is_shared: np.ndarray


def find_shared(data: DataConfig, train: Sequence[str], validation: Sequence[str]) -> list[Shared]:
    """Compare texts to train on, texts to validate on, and the test split where it is at hand.

    Returns:
        One for each pair of splits that share a review.

    Raises:
        ValueError: all reviews of one split stand in another, as where a file was copied; or
            shared reviews are to be dropped, and the test split cannot be read.
    """
    keys = {
        "train": [copy_key(text) for text in train],
        "validation": [copy_key(text) for text in validation],
        "test": read_test_keys(data),
    }
    found = []
    for split, other in _PAIRS:
        known = set(keys[other])
        is_shared = np.array([key in known for key in keys[split]], dtype=bool)
        if is_shared.all():
            raise ValueError(
                f"{source_name(data)}: all {len(is_shared):,} reviews of {split} stand in {other} "
                f"too: {_ADVICE[split]} (--data.shared_reviews ignore trains all the same)"
            )
        if is_shared.any():
            found.append(Shared(split, other, is_shared))
    return found


def report(shared: Sequence[Shared], *, dropped: bool) -> None:
    """Log a line for each pair of splits: how many reviews they share, and what became of them."""
    outcome = "left out of" if dropped else "data.shared_reviews drop leaves them out of"
    for each in shared:
        count = int(np.count_nonzero(each.is_shared))
        reviews = f"{count:,} review{'s' * (count != 1)}"
        pair = (each.split, each.other)
        logger.warning("%s and %s share %s (%s %s)", *pair, reviews, outcome, each.split)


def read_test_keys(data: DataConfig) -> list[bytes]:
    """A digest for each review of the test split; none where it is not at hand."""
    try:
        return [copy_key(text) for text in _read_test_texts(data)]
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        reason = f"the test split can't be compared with the others: {error}"
        if data.shared_reviews == "drop":
            raise ValueError(f"{reason} (or set data.shared_reviews to report)") from error
        logger.warning("%s", reason)
        return []


def _read_test_texts(data: DataConfig) -> list[str]:
    if is_on_hub(data):
        # Imported here for start-up time; whoever read the training split has imported it.
        import huggingface_hub

        cached = huggingface_hub.try_to_load_from_cache(
            "stanfordnlp/imdb", "plain_text/test-00000-of-00001.parquet", repo_type="dataset"
        )
        if not isinstance(cached, str):
            return []
        return read_files([Path(cached)], with_labels=False).texts
    if data.path is None:
        return read_split(data, "test").texts
    # Not by read_split, which wants labels: whoever evaluates elsewhere may have none.
    folder = Path(data.path).expanduser()
    if (folder / "test").is_dir():
        return read_text_folder(folder / "test", with_labels=True).texts
    files = sorted(path for path in folder.iterdir() if path.suffix in FORMATS)
    files = [path for path in files if re.fullmatch(r"test(-\d+-of-\d+)?", path.stem)]
    return read_files(files, with_labels=False).texts if files else []
