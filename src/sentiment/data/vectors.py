"""The embedding matrix of a vocabulary from word vectors as text or in word2vec's binary format."""

from __future__ import annotations

import itertools
import math
import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NoReturn, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from sentiment.data.vocabulary import SPECIALS
from sentiment.display.console import truncate
from sentiment.readers.opening import members, open_unpacked
from sentiment.runtime.errors import UserError
from sentiment.runtime.files import require_file

_NUM_LINES_BEFORE_CHECK = 1_000  # a wrong dimension is reported early, not after 5 GB
_NUM_MISSED_NAMED = 20
_NUM_MALFORMED_NAMED = 10
_MAX_DEVIATION = 1e30  # GloVe's is below 1; random vectors must be finite in float32


@dataclass(frozen=True)
class Coverage:
    """How much of a vocabulary and of the training text a vectors file covers."""

    num_types: int  # words in the vocabulary, without the special ones
    types_found: int  # of these, words that have a vector
    num_tokens: int  # occurrences of the words in the training split
    tokens_found: int  # occurrences of the words that have a vector
    most_frequent_missed: tuple[str, ...]  # at most 20 words without a vector
    num_malformed: int  # lines that were skipped: not a word and its values, or not finite
    malformed_lines: tuple[int, ...]  # numbers of the first 10 of these, from 1

    @property
    def token_share(self) -> float:
        return self.tokens_found / max(self.num_tokens, 1)

    def summary(self) -> str:
        """One line for the terminal, and a second one if lines were skipped."""
        types = self.types_found / max(self.num_types, 1)
        missed = ", ".join(repr(word) for word in self.most_frequent_missed[:5]) or "none"
        text = (
            f"vectors: {self.types_found:,} of {self.num_types:,} words ({types:.1%}), "
            f"{self.token_share:.1%} of the training tokens; most frequent without one: {missed}"
        )
        if self.num_malformed:
            text += f"\n{_malformed_text(self.num_malformed, self.malformed_lines)}"
        return text


def load_vectors(
    path: Path,
    words: Sequence[str],
    counts: Sequence[int],
    *,
    dimension: int,
    generator: torch.Generator,
) -> tuple[torch.Tensor, Coverage]:
    """Read the vectors of a vocabulary from a file, `.gz` or `.zip`, without unpacking to disk.

    The file is text, a word and its values on each line with single spaces or tabs between them and
    perhaps a header, or in word2vec's binary format. If a word occurs twice, its first line counts.
    Words without a vector are drawn from a normal distribution with the standard deviation of the
    others.

    ``words`` are in the order of ids, first the special ones, which are not part of the coverage.
    ``counts`` are occurrences in the training split. Of several texts in a zip, the one with
    ``.{dimension}d.`` in its name is read.

    Returns:
        The matrix (len(words), dimension) float32, with row 0 zero, and the coverage.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: it is empty, damaged, of another dimension, or holds none of the words.
    """
    assert len(words) == len(counts)
    matrix = torch.zeros(len(words), dimension)
    rows = matrix.numpy()  # the same memory
    # Row 0 stays zero even if the file has a vector for «<pad>». Words with lone surrogates, which
    # are not UTF-8, are in no file but must not raise an error either.
    wanted = {words[row].encode("utf-8", "surrogatepass"): row for row in range(1, len(words))}
    stats = _FileStats(path, dimension)
    blocks = read_blocks(path, name_part=f".{dimension}d.")
    start = next(blocks, b"")
    _refuse_other_formats(path, start)
    read_rows = _binary_rows if _is_word2vec(start) else _text_rows
    for row, values in read_rows(itertools.chain([start], blocks), wanted, stats):
        rows[row] = values
    missed = list(wanted.values())  # ascending: the reader has only removed entries
    coverage = _coverage(words, counts, missed, stats)
    stats.check(coverage)
    deviation = _deviation(rows, num_found=len(words) - 1 - len(missed))
    matrix[missed] = torch.randn(len(missed), dimension, generator=generator) * deviation
    return matrix, coverage


def _coverage(
    words: Sequence[str], counts: Sequence[int], missed: Sequence[int], stats: _FileStats
) -> Coverage:
    missed = [row for row in missed if row >= len(SPECIALS)]
    by_count = sorted(missed, key=lambda row: -counts[row])
    num_types, num_tokens = len(words) - len(SPECIALS), sum(counts[len(SPECIALS) :])
    return Coverage(
        num_types=num_types,
        types_found=num_types - len(missed),
        num_tokens=num_tokens,
        tokens_found=num_tokens - sum(counts[row] for row in missed),
        most_frequent_missed=tuple(words[row] for row in by_count[:_NUM_MISSED_NAMED]),
        num_malformed=stats.num_malformed,
        malformed_lines=tuple(stats.malformed_lines),
    )


def _deviation(rows: npt.NDArray[np.float32], num_found: int) -> float:
    """The standard deviation over the rows that have a vector; the others are still zero."""
    num_values = num_found * rows.shape[1]
    mean = rows.sum(dtype=np.float64) / num_values
    mean_square = np.einsum("ij,ij->", rows, rows, dtype=np.float64) / num_values
    return min(math.sqrt(max(mean_square - mean**2, 0.0)), _MAX_DEVIATION)


@dataclass
class _FileStats:
    """Counts of one file's lines."""

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
        """Refuse the file if more than half of the lines agree on another dimension."""
        for other, count in self.other_dimensions.most_common(1):
            if 2 * count > self.num_lines:
                self.refuse_dimension(other)

    def refuse_dimension(self, other: int) -> NoReturn:
        raise UserError(
            f"{self.path} holds {other}-dimensional vectors, but model.embedding_size is "
            f"{self.dimension}: set --model.embedding_size {other} or give a {self.dimension}-"
            "dimensional file"
        )

    def check(self, coverage: Coverage) -> None:
        """Refuse the file if it holds no usable vectors."""
        if self.num_lines == 0:
            raise UserError(f"{self.path} holds no vectors: it is empty")
        self.check_dimension()
        if not coverage.types_found:
            malformed = _malformed_text(self.num_malformed, self.malformed_lines)
            raise UserError(
                f"none of the {coverage.num_types:,} words of the vocabulary is among the "
                f"{self.num_lines:,} lines of {self.path} ({malformed}): give a file of lines "
                "«word value value …» in the language of the reviews, or change data.lower_case if "
                "its words are in another case"
            )


def _malformed_text(num_malformed: int, line_numbers: Sequence[int]) -> str:
    if not num_malformed:
        return "no malformed lines"
    listed = ", ".join(map(str, line_numbers)) + ", …" * (num_malformed > len(line_numbers))
    return f"malformed lines left out: {num_malformed:,} ({listed})"


_Rows: TypeAlias = Iterator[tuple[int, npt.NDArray[np.float32]]]


def _text_rows(blocks: Iterable[bytes], wanted: dict[bytes, int], stats: _FileStats) -> _Rows:
    """Yield (row, values) of the words in ``wanted``, and remove each word from it."""
    dimension = stats.dimension
    for line_number, line in enumerate(split_lines(blocks), start=1):
        if not line or (line_number == 1 and dimension > 1 and _is_header(line)):
            continue
        stats.num_lines += 1
        if stats.num_lines == _NUM_LINES_BEFORE_CHECK:
            stats.check_dimension()
        word, num_values = _split_word(line, dimension)
        if word is None:
            stats.note_malformed(line_number, num_values)
        elif (row := wanted.get(word)) is not None:
            values = _parse(line[len(word) + 1 :])
            if values is None:
                stats.note_malformed(line_number)
            else:
                del wanted[word]
                yield row, values


# The numbers of words and of values; then each word, a space, its values as float32 in
# little-endian order and, from word2vec itself, a line break.
_HEADER = re.compile(rb"([0-9]{1,10}) ([0-9]{1,5}) ?\n")


def _is_word2vec(start: bytes) -> bool:
    """Whether a file that begins like this is in word2vec's binary format, not text with a header:
    its first values, which take two characters at least as text, hold control characters or are
    not UTF-8.
    """
    header = _HEADER.match(start)
    if header is None:
        return False
    values = start[start.find(b" ", header.end()) + 1 :][: 2 * int(header[2])]
    text = values.decode("utf-8", "replace")
    return any((char < " " and char not in "\t\r\n") or char == "\ufffd" for char in text)


def _binary_rows(blocks: Iterable[bytes], wanted: dict[bytes, int], stats: _FileStats) -> _Rows:
    """As :func:`_text_rows`, of word2vec's binary format."""
    blocks = iter(blocks)
    buffer = next(blocks)
    header = _HEADER.match(buffer)
    assert header is not None
    num_rows, dimension, position = int(header[1]), int(header[2]), header.end()
    if dimension != stats.dimension:
        stats.refuse_dimension(dimension)
    size = 4 * dimension
    for number in range(1, num_rows + 1):
        while (space := buffer.find(b" ", position)) < 0 or len(buffer) <= space + size:
            block = next(blocks, b"")
            if not block or len(buffer) - position > MAX_LINE_BYTES:
                raise UserError(
                    f"{stats.path} is damaged or cut off in row {number:,} of {num_rows:,}: get it "
                    "again"
                )
            buffer, position = buffer[position:] + block, 0
        word = buffer[position:space].lstrip(b"\n")
        stats.num_lines += 1
        if (row := wanted.get(word)) is not None:
            values = np.frombuffer(buffer, "<f4", dimension, space + 1)
            if np.isfinite(values).all():
                del wanted[word]
                yield row, values
            else:
                stats.note_malformed(number)
        position = space + 1 + size
    if buffer[position:].strip(b"\n") or next(blocks, b""):
        raise UserError(
            f"{stats.path} is damaged: it continues after the {num_rows:,} rows that its first "
            "line announces: get it again"
        )


def _is_header(line: bytes) -> bool:
    fields = line.split(b" ", 2)
    return len(fields) == 2 and all(field.isdigit() for field in fields)


def _split_word(line: bytes, dimension: int) -> tuple[bytes | None, int]:
    """The word of a line or None, and its number of values, 0 if unclear."""
    num_spaces = line.count(b" ")
    if num_spaces < dimension:
        is_vector = num_spaces > 0 and _parse(line.split(b" ", 1)[1]) is not None
        return None, num_spaces if is_vector else 0
    word = line.split(b" ", 1)[0]
    if num_spaces > dimension:
        word = line.rsplit(b" ", dimension)[0]
        # A number before the values is one value too many, not the end of a word.
        if _parse(word.rsplit(b" ", 1)[1]) is not None:
            return None, num_spaces
    try:
        word.decode("utf-8")
    except UnicodeDecodeError:
        return None, 0
    return word, dimension


def _parse(values: bytes) -> npt.NDArray[np.float32] | None:
    """The numbers (num_values,), or None if one is not a finite number."""
    try:
        with np.errstate(over="ignore"):  # 1e39 overflows to infinity, which is refused below
            numbers = np.array(list(map(float, values.split(b" "))), dtype=np.float32)
    except ValueError:
        return None
    return numbers if np.isfinite(numbers).all() else None


MAX_LINE_BYTES = 1 << 20  # a word and 300 values take about 2,600
BLOCK_BYTES = 1 << 20
TOO_LONG = b"\n"  # replaces a line over MAX_LINE_BYTES; no other line can be this


def read_blocks(path: Path, *, name_part: str) -> Iterator[bytes]:
    """Yield the blocks of a plain file, or of one in a `.zip` or `.gz` unpacked.

    Of several texts in a zip, the one with ``name_part`` in its name is read.
    """
    if not path.exists() or path.is_dir():
        raise FileNotFoundError(
            f"there is no vectors file {path}: correct --vectors.path, or set it to null"
        )
    require_file(path)
    with open_unpacked(path, partial(_choose_member, name_part=name_part)) as file:
        while block := file.read(BLOCK_BYTES):
            yield block


# Files that are not text, by their first bytes: what they are, and what to do.
_OTHER_FORMATS = {
    b"\x93NUMPY": "is a NumPy array, which holds no words: give a text file with a word and its "
    "values on each line",
    b"\x80": "is a pickle, which may run any code and is not loaded: save the vectors as "
    "word2vec does (in gensim, save_word2vec_format)",
    b"\xba\x16\x4f\x2f": "is a fastText model: give the .vec file that belongs to it",
    b"PK\x03\x04": "is a zip archive: rename it so that its name ends in .zip",
    b"\x1f\x8b": "is compressed by gzip: rename it so that its name ends in .gz",
}


def _refuse_other_formats(path: Path, start: bytes) -> None:
    for magic, advice in _OTHER_FORMATS.items():
        if start.startswith(magic):
            raise UserError(f"{path} {advice}")


def split_lines(blocks: Iterable[bytes]) -> Iterator[bytes]:
    r"""Yield lines without their ends (``\n`` or ``\r\n``) and trailing spaces; tabs become spaces.

    A line over MAX_LINE_BYTES is replaced by ``TOO_LONG``, so that lines keep their numbers. Only a
    block and a line are in memory at a time.
    """
    rest, too_long = b"", False
    for block in blocks:
        *lines, rest = (rest + block).replace(b"\t", b" ").split(b"\n")
        for line in lines:
            yield TOO_LONG if too_long or len(line) > MAX_LINE_BYTES else line.rstrip(b" \r")
            too_long = False
        if len(rest) > MAX_LINE_BYTES:
            rest, too_long = b"", True
    if rest or too_long:
        yield TOO_LONG if too_long else rest.rstrip(b" \r")


_DIMENSION = re.compile(r"\.([1-9][0-9]{0,4})d\.")


def _choose_member(archive: zipfile.ZipFile, path: Path, *, name_part: str) -> str:
    """The text with ``name_part`` in its name, or the only text, or the only binary file."""
    names = members(archive)
    texts = [name for name in names if name.endswith((".txt", ".vec"))]
    texts = texts or [name for name in names if name.endswith(".bin")]
    fitting = [name for name in texts if name_part in name] or texts
    if len(fitting) == 1:
        return fitting[0]
    listed = ", ".join(repr(truncate(name, 60)) for name in texts[:10])
    advice = "unpack the one that you mean" if texts else "give one that does"
    found = {match[1] for name in texts if (match := _DIMENSION.search(name))}
    if len(found) > 1 and name_part[1:-2] not in found:
        sizes = " or ".join(sorted(found, key=int))
        advice = f"set --model.embedding_size to {sizes}, or {advice}"
    raise UserError(
        f"{path} holds {listed or 'no .txt, .vec or .bin file'}, but not exactly one text with "
        f"{name_part!r} in its name: {advice}"
    )
