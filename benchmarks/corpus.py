"""Corpora for the benchmarks: the reviews of a folder, or synthetic ones.

Synthetic lengths are log-normal with IMDB's median and mean; word frequencies follow Zipf's law.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np

from sentiment.data.batches import EncodedCorpus, encode
from sentiment.data.tokenizer import TokenizedTexts

_MEDIAN_LENGTH, _MEAN_LENGTH = 203, 272
_NUM_WORDS = 30_000


def synthetic_lengths(count: int, seed: int = 0) -> np.ndarray:
    """(count,) int64 numbers of tokens."""
    generator = np.random.default_rng(seed)
    spread = np.sqrt(2 * np.log(_MEAN_LENGTH / _MEDIAN_LENGTH))
    drawn = generator.lognormal(np.log(_MEDIAN_LENGTH), spread, count)
    return np.clip(np.rint(drawn), 10, 2_800).astype(np.int64)


def _zipf(generator: np.random.Generator, count: int, num_words: int) -> np.ndarray:
    return (num_words ** generator.random(count)).astype(
        np.int32
    )  # density proportional to 1 / rank


def synthetic_corpus(
    count: int, *, max_length: int = 400, path: Path | None = None
) -> EncodedCorpus:
    """An encoded corpus; with a path, its tokens are in a memory-mapped file."""
    lengths = synthetic_lengths(count)
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    generator = np.random.default_rng(1)
    if path is None:
        tokens = _zipf(generator, int(offsets[-1]), _NUM_WORDS)
    else:
        tokens = np.lib.format.open_memmap(path, "w+", np.int32, (int(offsets[-1]),))
        for start in range(0, len(tokens), 2**22):
            part = tokens[start : start + 2**22]
            part[:] = _zipf(generator, len(part), _NUM_WORDS)
        tokens.flush()
        tokens = np.load(path, mmap_mode="c")
    lexicon = [f"word{number}" for number in range(_NUM_WORDS)]
    ids = np.arange(2, _NUM_WORDS + 2, dtype=np.int32)
    labels = np.arange(count) % 2
    return encode(TokenizedTexts(tokens, offsets, lexicon), ids, labels, max_length=max_length)


def texts(folder: Path | None, count: int) -> list[str]:
    """Reviews as text."""
    if folder is not None:
        import pyarrow.parquet as pq

        table = pq.read_table(folder / "train.parquet", columns=["text"])
        return table.column("text").to_pylist()[:count]
    generator = np.random.default_rng(2)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = [
        "".join(generator.choice(letters, size)) for size in generator.integers(2, 12, 200_000)
    ]
    marks = ["", "", "", "", "", "", "", ",", ".", "'s"]
    results = []
    for length in synthetic_lengths(count).tolist():
        ranks, ends = _zipf(generator, length, len(words)), generator.integers(0, 10, length)
        results.append(" ".join(words[r - 1] + marks[e] for r, e in zip(ranks, ends, strict=True)))
    return results


def write_vectors(path: Path, *, count: int, dimension: int) -> None:
    """Write random vectors in GloVe's text format."""
    generator = np.random.default_rng(3)
    block = [
        " ".join(f"{value:.5f}" for value in row)
        for row in generator.normal(0, 0.4, (1000, dimension))
    ]
    with path.open("w", encoding="utf-8") as file:
        for number, values in zip(range(count), itertools.cycle(block), strict=False):
            file.write(f"word{number} {values}\n")
