"""What a corpus costs per token and per review: time, disk, memory."""

from __future__ import annotations

import itertools
import math
import statistics
import sys
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.corpus import synthetic_corpus, synthetic_lengths, texts
from benchmarks.measure import apart, own_megabytes, timed

_ROUNDS = 3
_PROCESSES = 2
_LETTERS = "bcdfghjklmnpqrstvwxz"  # for distinct pieces of four letters


class Constant(NamedTuple):
    """A measured quantity, described by ``what``."""

    value: float
    unit: str
    what: str


def measure(folder: Path | None, num_reviews: int) -> dict[str, Constant]:
    """All constants, each measured in a new process, with fresh memory."""
    constants: dict[str, Constant] = {}
    for function in (_tokenizing, _two_processes, _memory, _on_disk, _counting, _planning):
        constants |= apart(function, folder, num_reviews)
    return constants


def _median_seconds(function: Callable[[], object]) -> float:
    return statistics.median(timed(function) for _ in range(_ROUNDS))


def _tokenizing(folder: Path | None, num_reviews: int) -> dict[str, Constant]:
    from sentiment.data.reviews import Reviews, reviews_fingerprint
    from sentiment.data.tokenizer import Tokenizer, cache_key, tokenize

    all_texts = texts(folder, num_reviews)
    tokenizer, small = Tokenizer(), Tokenizer()
    tokenized = tokenizer(all_texts)
    num_tokens = len(tokenized.tokens)
    factor = num_tokens / len(small(all_texts[: len(all_texts) // 4]).tokens)
    growth = math.log(tokenizer.num_pieces / small.num_pieces) / math.log(factor)
    seconds = _median_seconds(lambda: tokenize(all_texts, num_processes=1))
    reviews = Reviews(all_texts, np.zeros(len(all_texts), dtype=np.int64), ("a", "b"), "none")

    def digest() -> None:
        reviews_fingerprint(reviews)
        cache_key(all_texts, lower_case=True)

    return {
        "tokens_per_review": Constant(num_tokens / len(all_texts), "tokens", "length of a review"),
        "bytes_per_token": Constant(
            sum(len(text.encode()) for text in all_texts) / num_tokens,
            "bytes", "text per token",
        ),
        "tokenizing": Constant(num_tokens / seconds, "tokens/s", "tokenizing, one process"),
        "digesting": Constant(
            num_tokens / _median_seconds(digest),
            "tokens/s", "hashing the texts, for provenance and cache, in each rank",
        ),
        "tokens": Constant(float(num_tokens), "tokens", "tokens of these reviews"),
        "pieces": Constant(
            float(tokenizer.num_pieces), "pieces", "distinct whitespace-separated pieces in them"
        ),
        "pieces_growth": Constant(
            growth, "", "exponent of their growth with tokens (Heaps' law)"
        ),
    }  # fmt: skip


def _two_processes(folder: Path | None, num_reviews: int) -> dict[str, Constant]:
    """From the additional time of more reviews, to exclude starting the processes."""
    from sentiment.data.tokenizer import tokenize

    all_texts = texts(folder, num_reviews)
    part = all_texts[: len(all_texts) // 4]
    counts = [len(tokenize(some_texts, num_processes=1).tokens) for some_texts in (part, all_texts)]
    seconds = [
        _median_seconds(
            lambda some_texts=some_texts: tokenize(some_texts, num_processes=_PROCESSES)
        )
        for some_texts in (part, all_texts)
    ]
    speed = (counts[1] - counts[0]) / max(1e-9, seconds[1] - seconds[0])
    return {"tokenizing_by_two": Constant(speed, "tokens/s", "tokenizing, two processes")}


def _memory(folder: Path | None, num_reviews: int) -> dict[str, Constant]:
    """From the additional memory of more reviews, to exclude what a process always needs."""
    points = [apart(_peak, folder, num_reviews, times) for times in (2, 6)]
    (few, low, held), (many, high, _) = points
    text_memory = 2 * held / few
    return {
        "text_memory": Constant(text_memory, "bytes", "memory per token for its text, once read"),
        "tokenizing_memory": Constant(
            (high - low) / (many - few) + text_memory,
            "bytes", "memory per token while tokenizing, its text included",
        ),
        "piece_memory": Constant(_piece_memory(), "bytes", "additional memory per distinct piece"),
    }  # fmt: skip


def _peak(folder: Path | None, num_reviews: int, times: int) -> tuple[int, int, int]:
    """Tokens of the repeated reviews; peak bytes while tokenizing; bytes of the texts."""
    from sentiment.data.tokenizer import tokenize

    all_texts = texts(folder, num_reviews)
    held = sum(map(sys.getsizeof, all_texts)) + sys.getsizeof(all_texts)
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak after reading them
    num_tokens = len(tokenize(times * all_texts, num_processes=1).tokens)
    return num_tokens, int(2**20 * own_megabytes("VmHWM")), held


def _piece_memory() -> float:
    """Bytes of a piece that occurs once, with its token and its count."""
    from sentiment.data.tokenizer import Tokenizer
    from sentiment.data.vocabulary import count_tokens

    all_texts = ["".join(letters) for letters in itertools.product(_LETTERS, repeat=4)]
    count = len(all_texts)
    tokenizer = Tokenizer()
    tokenizer(["first"])  # loads spaCy's rules
    tracemalloc.start()
    tokenized = tokenizer(all_texts)
    counts = count_tokens(tokenized)
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert count <= len(counts) <= count + 1
    return held / count


def _on_disk(folder: Path | None, num_reviews: int) -> dict[str, Constant]:
    from sentiment.data.tokenizer import tokenize_cached

    with tempfile.TemporaryDirectory() as name:
        tokenized = tokenize_cached(texts(folder, num_reviews), Path(name), num_processes=1)
        size = sum(path.stat().st_size for path in Path(name).rglob("*") if path.is_file())
    return {
        "disk": Constant(size / len(tokenized.tokens), "bytes", "disk per token, lexicon included")
    }


def _counting(folder: Path | None, num_reviews: int) -> dict[str, Constant]:
    from sentiment.data.tokenizer import TokenizedTexts
    from sentiment.data.vocabulary import count_tokens

    corpus = synthetic_corpus(10 * num_reviews)
    lexicon = [f"word{number}" for number in range(30_000)]
    offsets = np.append(corpus.starts.numpy(), len(corpus.tokens))
    tokenized = TokenizedTexts(corpus.tokens.numpy(), offsets, lexicon)
    seconds = _median_seconds(lambda: count_tokens(tokenized))
    return {
        "counting": Constant(
            len(tokenized.tokens) / seconds, "tokens/s", "counting tokens for the vocabulary"
        ),
    }


def _planning(folder: Path | None, num_reviews: int) -> dict[str, Constant]:
    import torch

    from sentiment.data.batches import BucketSampler

    lengths = torch.from_numpy(synthetic_lengths(20 * num_reviews).clip(max=400))
    sampler = BucketSampler(lengths, batch_size=64)
    epochs = iter(range(1, 100))

    def plan() -> list[list[torch.Tensor]]:
        sampler.set_epoch(next(epochs))
        return [[batch] for batch in sampler]  # as the trainer groups them

    seconds = _median_seconds(plan)
    tracemalloc.start()
    kept = plan()
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    corpus = synthetic_corpus(1_000)
    tables = (corpus.starts, corpus.lengths, corpus.full_lengths, corpus.labels)
    tables_bytes = sum(table.element_size() for table in tables) + sampler._lengths.itemsize
    assert len(kept) == -(-len(lengths) // 64)
    return {
        "planning": Constant(
            len(lengths) / seconds, "reviews/s", "building an epoch's batches, in each rank"
        ),
        "review_memory": Constant(
            held / len(lengths) + tables_bytes,
            "bytes", "memory per review while training, without its tokens, in each rank",
        ),
    }  # fmt: skip
