"""What preparing a corpus costs for each token and each review: time, disk, memory."""

from __future__ import annotations

import itertools
import math
import re
import statistics
import sys
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.corpus import synthetic_corpus, synthetic_lengths, texts
from benchmarks.measure import apart, timed

_ROUNDS = 3
_PROCESSES = 2
_LETTERS = "bcdfghjklmnpqrstvwxz"  # of the different pieces, four in each


class Constant(NamedTuple):
    """A measured quantity.

    Attributes:
        value: of it.
        unit: of the value.
        what: in words.
    """

    value: float
    unit: str
    what: str


def measure(folder: Path | None, num_reviews: int) -> dict[str, Constant]:
    """All of it, each in a process of its own, as what one gives back another finds."""
    found: dict[str, Constant] = {}
    for function in (_tokenizing, _two_processes, _memory, _on_disk, _counting, _planning):
        found |= apart(function, folder, num_reviews)
    return found


def _median_seconds(function: Callable[[], object]) -> float:
    return statistics.median(timed(function) for _ in range(_ROUNDS))


def _tokenizing(folder: Path | None, num_reviews: int) -> dict[str, Constant]:
    from sentiment.data.reviews import Reviews, reviews_fingerprint
    from sentiment.data.token_cache import cache_key
    from sentiment.data.tokenizer import Tokenizer, tokenize

    all_texts = texts(folder, num_reviews)
    whole, part = Tokenizer(), Tokenizer()
    tokenized = whole(all_texts)
    num_tokens = len(tokenized.tokens)
    factor = num_tokens / len(part(all_texts[: len(all_texts) // 4]).tokens)
    growth = math.log(whole.num_pieces / part.num_pieces) / math.log(factor)
    seconds = _median_seconds(lambda: tokenize(all_texts, num_processes=1))
    reviews = Reviews(all_texts, np.zeros(len(all_texts), dtype=np.int64), ("a", "b"), "none")

    def digest() -> None:
        reviews_fingerprint(reviews)
        cache_key(all_texts, lower_case=True)

    return {
        "tokens_per_review": Constant(num_tokens / len(all_texts), "tokens", "in a review"),
        "bytes_per_token": Constant(
            sum(len(text.encode()) for text in all_texts) / num_tokens,
            "bytes", "of text for a token",
        ),
        "tokenizing": Constant(num_tokens / seconds, "tokens/s", "tokenizing, one process"),
        "digesting": Constant(
            num_tokens / _median_seconds(digest),
            "tokens/s", "digests of the texts, for the receipt and for the cache, in each rank",
        ),
        "tokens": Constant(float(num_tokens), "tokens", "in these reviews"),
        "pieces": Constant(
            float(whole.num_pieces), "pieces", "different ones between white space in them"
        ),
        "pieces_growth": Constant(
            growth, "", "exponent by which these grow with tokens (Heaps' law)"
        ),
    }  # fmt: skip


def _two_processes(folder: Path | None, num_reviews: int) -> dict[str, Constant]:
    """By what more reviews take longer, so that the processes' start is left out."""
    from sentiment.data.tokenizer import tokenize

    all_texts = texts(folder, num_reviews)
    part = all_texts[: len(all_texts) // 4]
    counts = [len(tokenize(each, num_processes=1).tokens) for each in (part, all_texts)]
    seconds = [
        _median_seconds(lambda each=each: tokenize(each, num_processes=_PROCESSES))
        for each in (part, all_texts)
    ]
    speed = (counts[1] - counts[0]) / max(1e-9, seconds[1] - seconds[0])
    return {"tokenizing_by_two": Constant(speed, "tokens/s", "tokenizing, two processes")}


def _memory(folder: Path | None, num_reviews: int) -> dict[str, Constant]:
    """By what more reviews need more, so that what a process needs in any case is left out."""
    points = [apart(_peak, folder, num_reviews, times) for times in (2, 6)]
    (few, low, held), (many, high, _) = points
    text_memory = 2 * held / few
    return {
        "text_memory": Constant(text_memory, "bytes", "of memory for a token's text, once read"),
        "tokenizing_memory": Constant(
            (high - low) / (many - few) + text_memory,
            "bytes", "of memory for a token while tokenizing, its text included",
        ),
        "piece_memory": Constant(_piece_memory(), "bytes", "more for a different piece of text"),
    }  # fmt: skip


def _peak(folder: Path | None, num_reviews: int, times: int) -> tuple[int, int, int]:
    """Tokens of the reviews, given several times over; bytes held at most while they are cut; and
    bytes of the texts, which are in memory once.
    """
    from sentiment.data.tokenizer import tokenize

    all_texts = texts(folder, num_reviews)
    held = sum(map(sys.getsizeof, all_texts)) + sys.getsizeof(all_texts)
    Path("/proc/self/clear_refs").write_text("5")  # what reading them took is forgotten
    num_tokens = len(tokenize(times * all_texts, num_processes=1).tokens)
    return num_tokens, int(2**20 * _megabytes("VmHWM")), held


def _piece_memory() -> float:
    """Of a piece, its token and its place in the vocabulary's counts, each met once."""
    from sentiment.data.tokenizer import Tokenizer
    from sentiment.data.vocabulary import count_tokens

    all_texts = ["".join(each) for each in itertools.product(_LETTERS, repeat=4)]
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


def _megabytes(name: str) -> float:
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    found = re.search(rf"{name}:\s+(\d+) kB", status)
    return int(found[1]) / 1024 if found else float("nan")


def _on_disk(folder: Path | None, num_reviews: int) -> dict[str, Constant]:
    from sentiment.data.token_cache import tokenize_cached

    with tempfile.TemporaryDirectory() as name:
        tokenized = tokenize_cached(texts(folder, num_reviews), Path(name), num_processes=1)
        size = sum(path.stat().st_size for path in Path(name).rglob("*") if path.is_file())
    return {
        "disk": Constant(
            size / len(tokenized.tokens), "bytes", "on disk for a token, lexicon and all"
        )
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

    from sentiment.data.sampler import BucketSampler

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
    tables_bytes = sum(each.element_size() for each in tables) + sampler._lengths.itemsize
    assert len(kept) == -(-len(lengths) // 64)
    return {
        "planning": Constant(
            len(lengths) / seconds, "reviews/s", "putting an epoch's batches together, in each rank"
        ),
        "review_memory": Constant(
            held / len(lengths) + tables_bytes,
            "bytes", "of memory for a review while training, its tokens aside, in each rank",
        ),
    }  # fmt: skip
