"""The list of rows to leave out of training and validation, which ``sentiment audit`` writes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sentiment.data.columns import FileOptions
from sentiment.data.formats import open_source
from sentiment.data.splits import dedup_key
from sentiment.runtime.errors import UserError

COLUMNS = ("split", "row", "digest")  # that name a row; others are for people
SPLITS = ("train", "validation")
_MEND = "make the list with sentiment audit and these data settings, or set data.exclude to null"


def row_digest(text: str) -> str:
    """The digest by which a list of rows identifies a text, so that another text is refused."""
    return f"x{dedup_key(text).hex()[:16]}"  # with a letter in front, no spreadsheet rounds it


def read_exclusions(path: Path) -> dict[str, dict[int, str]]:
    """The digest of each listed row, by split and number of the row from 1.

    A file without the columns split, row and digest, or with invalid values, raises ``UserError``.
    """
    if not path.exists():
        raise FileNotFoundError(f"data.exclude is {path}, which does not exist: {_MEND}")
    listed: dict[str, dict[int, str]] = {split: {} for split in SPLITS}
    # These columns are ASCII, whatever encoding a spreadsheet has saved the texts in.
    options = FileOptions(text_column=("digest",), encoding="latin-1")
    for block in open_source(path, options, others=["split", "row"]).blocks(10_000):
        for index, problem in block.problems.items():
            raise UserError(f"{block.place(index)}: {problem}")
        columns = (block.values("split"), block.values("row"), block.texts)
        for index, (split, row, digest) in enumerate(zip(*columns, strict=True)):
            number = str(row).strip()
            if split not in listed or not number.isdecimal() or digest is None:
                raise UserError(
                    f"{block.place(index)}: split {split!r}, row {row!r} names no review of "
                    f"{' or '.join(SPLITS)} to leave out: delete the line"
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
            f"({len(missing):,}, first row {missing[0]}): delete these lines, or {_MEND}"
        )
    for row, digest in listed.items():
        if row_digest(text_of[row]) != digest:
            raise UserError(
                f"{path} lists row {row} of {split} with a text other than that row's, so it was "
                f"made for other reviews: {_MEND}"
            )
    return np.array(sorted(listed), dtype=np.int64) - 1
