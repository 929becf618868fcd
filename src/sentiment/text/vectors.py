"""GloVe vectors: a text file or archive → the embedding matrix of a vocabulary, with its coverage.

The format is the one of https://nlp.stanford.edu/projects/glove: a line is a word and its values,
separated by single spaces. glove.840B has words with spaces in them (``. . .``), so the word is
all that stands before the last ``dimension`` fields. A word2vec header («400000 300») is skipped.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sentiment.text.archives import open_text

_NUM_LINES_BEFORE_VERDICT = 1_000  # a wrong dimension is named at once, not after 5 GB
_NUM_MISSED_NAMED = 20
_NUM_MALFORMED_NAMED = 10
_LARGEST_DEVIATION = 1e30  # GloVe's are below 1; what is drawn from it must be finite in float32


@dataclass(frozen=True)
class Coverage:
    """How much of a vocabulary, and of the training text, a vectors file covers.

    Attributes:
        num_types: vocabulary entries, without the special ones.
        types_found: those of them that have a vector.
        num_tokens: the training counts of the entries, summed.
        tokens_found: the same over those that have a vector.
        most_frequent_missed: at most 20 words without a vector, the most frequent first.
        num_malformed: lines that were left out: not a word and its values, or not finite.
        malformed_lines: the numbers of the first 10 of them, counted from 1.
    """

    num_types: int
    types_found: int
    num_tokens: int
    tokens_found: int
    most_frequent_missed: tuple[str, ...]
    num_malformed: int
    malformed_lines: tuple[int, ...]

    def summary(self) -> str:
        """One line for the terminal, and a second one if lines were left out."""
        types = self.types_found / max(self.num_types, 1)
        tokens = self.tokens_found / max(self.num_tokens, 1)
        missed = ", ".join(repr(word) for word in self.most_frequent_missed[:5]) or "none"
        text = (
            f"vectors: {self.types_found:,} of {self.num_types:,} words ({types:.1%}), "
            f"{tokens:.1%} of the training tokens; most frequent without one: {missed}"
        )
        if self.num_malformed:
            text += f"\n{_malformed_text(self.num_malformed, self.malformed_lines)}"
        return text

    def as_dict(self) -> dict[str, Any]:
        """The fields as JSON knows them: numbers, strings and lists."""
        fields = asdict(self).items()
        return {key: list(value) if isinstance(value, tuple) else value for key, value in fields}


def load_vectors(
    path: Path,
    words: Sequence[str],
    counts: Sequence[int],
    *,
    dimension: int,
    generator: torch.Generator,
    num_special: int = 2,
) -> tuple[torch.Tensor, Coverage]:
    """Read the vectors of a vocabulary from `.txt`, `.gz` or `.zip`; nothing goes to the disk.

    Where a word stands twice in the file, its first line wins. Words without a vector start from
    a normal distribution with the standard deviation of the vectors found.

    Args:
        path: the file. In a zip of several texts, the one with ``.{dimension}d.`` in its name.
        words: the vocabulary in id order: first the special words, the very first the padding.
        counts: how often each of ``words`` stands in the training split.
        dimension: values a word, ``model.embedding_size``.
        generator: draws the words without a vector, so that the matrix repeats.
        num_special: how many of ``words`` are special: looked up too, but not in the coverage.

    Returns:
        The matrix (len(words), dimension) float32, row 0 zero, and the coverage.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is empty, damaged, of another dimension, or holds none of the words.
    """
    if len(words) != len(counts) or num_special < 1:
        raise ValueError(f"{len(words)} words, {len(counts)} counts, {num_special} special words")
    matrix = torch.zeros(len(words), dimension)
    rows = matrix.numpy()  # the same memory
    # Row 0 stays zero even if the file has a vector for «<pad>». A lone surrogate is in no file,
    # for it is not UTF-8; it must not stop the reading either.
    wanted = {words[row].encode("utf-8", "surrogatepass"): row for row in range(1, len(words))}
    survey = _Survey(path, dimension)
    with open_text(path, name_part=f".{dimension}d.") as lines:
        for row, values in _wanted_rows(lines, wanted, survey):
            rows[row] = values
    missed = list(wanted.values())  # ascending: the reader only took entries out
    coverage = _coverage(words, counts, missed, num_special, survey)
    survey.check(coverage)
    deviation = _deviation(rows, num_found=len(words) - 1 - len(missed))
    matrix[missed] = torch.randn(len(missed), dimension, generator=generator) * deviation
    return matrix, coverage


def _coverage(
    words: Sequence[str],
    counts: Sequence[int],
    missed: Sequence[int],
    num_special: int,
    survey: _Survey,
) -> Coverage:
    """Count what was found; ``missed`` are rows, ascending."""
    missed = [row for row in missed if row >= num_special]
    by_count = sorted(missed, key=lambda row: -counts[row])
    num_types, num_tokens = len(words) - num_special, sum(counts[num_special:])
    return Coverage(
        num_types=num_types,
        types_found=num_types - len(missed),
        num_tokens=num_tokens,
        tokens_found=num_tokens - sum(counts[row] for row in missed),
        most_frequent_missed=tuple(words[row] for row in by_count[:_NUM_MISSED_NAMED]),
        num_malformed=survey.num_malformed,
        malformed_lines=tuple(survey.malformed_lines),
    )


def _deviation(rows: npt.NDArray[np.float32], num_found: int) -> float:
    """The standard deviation over the values of the rows found; the others are still zero."""
    num_values = num_found * rows.shape[1]
    mean = rows.sum(dtype=np.float64) / num_values
    mean_square = np.einsum("ij,ij->", rows, rows, dtype=np.float64) / num_values
    return min(math.sqrt(max(mean_square - mean**2, 0.0)), _LARGEST_DEVIATION)


@dataclass
class _Survey:
    """What the reader has met in one file."""

    path: Path
    dimension: int
    num_lines: int = 0  # without empty ones and a header
    num_malformed: int = 0
    malformed_lines: list[int] = field(default_factory=list)
    other_dimensions: Counter[int] = field(default_factory=Counter)

    def note_malformed(self, line_number: int, num_values: int = 0) -> None:
        self.num_malformed += 1
        if len(self.malformed_lines) < _NUM_MALFORMED_NAMED:
            self.malformed_lines.append(line_number)
        if num_values:
            self.other_dimensions[num_values] += 1

    def check_dimension(self) -> None:
        """Raise ValueError if more than half of the lines agree on another dimension."""
        for other, count in self.other_dimensions.most_common(1):
            if 2 * count > self.num_lines:
                raise ValueError(
                    f"{self.path} holds {other}-dimensional vectors, but model.embedding_size is "
                    f"{self.dimension}: set --model.embedding_size {other} or give a "
                    f"{self.dimension}-dimensional file"
                )

    def check(self, coverage: Coverage) -> None:
        """Raise ValueError if the file as a whole was of no use."""
        if self.num_lines == 0:
            raise ValueError(f"{self.path} holds no vectors: it is empty")
        self.check_dimension()
        if not coverage.types_found:
            malformed = _malformed_text(self.num_malformed, self.malformed_lines)
            raise ValueError(
                f"none of the {coverage.num_types:,} words of the vocabulary is among the "
                f"{self.num_lines:,} lines of {self.path} ({malformed}): give a file of lines "
                f"«word value value …» in the language of the reviews, in lower case if they are"
            )


def _malformed_text(num_malformed: int, line_numbers: Sequence[int]) -> str:
    if not num_malformed:
        return "no malformed lines"
    named = ", ".join(map(str, line_numbers))
    named += ", …" if num_malformed > len(line_numbers) else ""
    return f"malformed lines left out: {num_malformed:,} ({named})"


def _wanted_rows(
    lines: Iterable[bytes], wanted: dict[bytes, int], survey: _Survey
) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
    """Yield (row, values) of each word of ``wanted`` that is met, and take the word out of it."""
    dimension = survey.dimension
    for line_number, line in enumerate(lines, start=1):
        if not line or (line_number == 1 and dimension > 1 and _is_header(line)):
            continue
        survey.num_lines += 1
        if survey.num_lines == _NUM_LINES_BEFORE_VERDICT:
            survey.check_dimension()
        word, num_values = _split_word(line, dimension)
        if word is None:
            survey.note_malformed(line_number, num_values)
        elif (row := wanted.get(word)) is not None:
            values = _parse(line[len(word) + 1 :])
            if values is None:
                survey.note_malformed(line_number)
            else:
                del wanted[word]
                yield row, values


def _is_header(line: bytes) -> bool:
    fields = line.split(b" ", 2)
    return len(fields) == 2 and all(field.isdigit() for field in fields)


def _split_word(line: bytes, dimension: int) -> tuple[bytes | None, int]:
    """Return the word of a line, or None; and how many values it has, 0 where that says nothing."""
    num_spaces = line.count(b" ")
    if num_spaces < dimension:
        return None, num_spaces
    word = line.split(b" ", 1)[0]
    if num_spaces > dimension:
        word = line.rsplit(b" ", dimension)[0]
        # A number right before the values is a value too many, not the end of a word.
        if _parse(word.rsplit(b" ", 1)[1]) is not None:
            return None, num_spaces
    try:
        word.decode("utf-8")
    except UnicodeDecodeError:
        return None, 0
    return word, dimension


def _parse(values: bytes) -> npt.NDArray[np.float32] | None:
    """Return the numbers (num_values,), or None if one is no number, or not finite."""
    try:
        with np.errstate(over="ignore"):  # 1e39 is infinite in float32, and so refused below
            numbers = np.array(list(map(float, values.split(b" "))), dtype=np.float32)
    except ValueError:
        return None
    return numbers if np.isfinite(numbers).all() else None
