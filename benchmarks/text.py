"""From text to ids: tokenizing, the token cache, vocabulary look-ups, and GloVe vectors."""

from __future__ import annotations

import contextlib
import functools
import io
import tempfile
from pathlib import Path

from benchmarks.corpus import texts, write_vectors
from benchmarks.measure import Row, Worker, apart, faster, in_turns, own_megabytes, timed

_NUM_TEXTS = 10_000
_WORDS, _DIMENSION = 400_000, 300
_SECTION = "text"


@functools.cache
def _texts(folder: Path | None) -> list[str]:
    return texts(folder, _NUM_TEXTS)


@functools.cache
def _rules():  # type: ignore[no-untyped-def]
    import spacy

    return spacy.blank("en").tokenizer


def spacy_seconds(folder: Path | None) -> float:
    """spaCy's tokenizer called on every text, as tutorials do."""
    rules, all_texts = _rules(), _texts(folder)
    return timed(lambda: [[token.lower_ for token in rules(text)] for text in all_texts])


def tokenizer_seconds(folder: Path | None) -> float:
    """Our tokenizer in one process."""
    from sentiment.data.tokenizer import tokenize

    _rules()
    all_texts = _texts(folder)
    return timed(lambda: tokenize(all_texts, num_processes=1))


def second_start_seconds(folder: Path | None, cache: Path) -> float:
    """Reading tokens from the cache."""
    from sentiment.data.tokenizer import tokenize_cached

    return timed(lambda: tokenize_cached(_texts(folder), cache))


@functools.cache
def _tokenized(folder: Path | None):  # type: ignore[no-untyped-def]
    from sentiment.data.tokenizer import tokenize
    from sentiment.data.vocabulary import build_vocabulary, count_tokens

    tokenized = tokenize(_texts(folder), num_processes=1)
    words = [tokenized.words(index) for index in range(len(tokenized))]
    return tokenized, words, build_vocabulary(count_tokens(tokenized), max_size=30_000)


def numbering_seconds(folder: Path | None, one_by_one: bool) -> float:
    """Ids of all tokens: with numpy, or with a dictionary look-up for each token."""
    from sentiment.data.vocabulary import UNK_ID, number_lexicon

    tokenized, words, vocabulary = _tokenized(folder)
    if one_by_one:
        find = vocabulary.stoi.get
        return timed(lambda: [[find(word, UNK_ID) for word in review] for review in words])
    return timed(lambda: number_lexicon(vocabulary, tokenized.lexicon)[tokenized.tokens])


def _load(path: Path, ours: bool) -> tuple[float, float]:
    """Seconds and additional megabytes, for a new process."""
    if ours:
        import torch

        from sentiment.data.vectors import load_vectors

        words = [f"word{number}" for number in range(0, _WORDS, 8)]

        def load() -> object:
            return load_vectors(
                path, words, [1] * len(words), dimension=_DIMENSION, generator=torch.Generator()
            )
    else:
        from torchtext.vocab import Vectors

        def load() -> object:
            return Vectors(path.name, cache=str(path.parent))

    before = _peak_megabytes()
    with contextlib.redirect_stderr(io.StringIO()):  # torchtext shows a progress bar
        seconds = timed(load)
    return seconds, _peak_megabytes() - before


def _peak_megabytes() -> float:
    """Of this process; getrusage would report the parent's peak if that was higher."""
    return own_megabytes("VmHWM")


def rows(prepared: Worker, folder: Path | None) -> list[Row]:
    """Against spaCy, dictionary look-ups and torchtext."""
    with tempfile.TemporaryDirectory() as name:
        cache = Path(name)
        seconds = in_turns(
            {
                "spacy": lambda: prepared(spacy_seconds, folder),
                "ours": lambda: prepared(tokenizer_seconds, folder),
                "cached": lambda: prepared(second_start_seconds, folder, cache),
                "numbers": lambda: prepared(numbering_seconds, folder, False),
                "one by one": lambda: prepared(numbering_seconds, folder, True),
            },
            3,
        )
        results = [
            faster(_SECTION, "tokenizing 10,000 reviews in one process vs spaCy on every review",
                   seconds["spacy"], seconds["ours"], headline=True),
            faster(_SECTION, "reading their tokens from the cache vs tokenizing them",
                   seconds["ours"], seconds["cached"]),
            faster(_SECTION, "converting their tokens to ids vs a dictionary look-up per token",
                   seconds["one by one"], seconds["numbers"]),
        ]  # fmt: skip
        return results + _vectors_rows(cache)


def _vectors_rows(folder: Path) -> list[Row]:
    path = folder / "vectors.txt"
    write_vectors(path, count=_WORDS, dimension=_DIMENSION)
    taken = []
    for ours in (False, True):
        taken.append(apart(_load, path, ours))
    (their_seconds, their_memory), (our_seconds, our_memory) = taken
    name = f"loading {_WORDS // 8:,} of {_WORDS:,} GloVe vectors ({_DIMENSION} d)"
    memory = f"{their_memory:.0f} MB vs {our_memory:.0f} MB"
    loading = f"{name} vs torchtext, its cache file included"
    peak = f"{name}, peak memory of torchtext vs ours"
    return [
        faster(_SECTION, loading, [their_seconds], [our_seconds], headline=True),
        Row(_SECTION, peak, their_memory / our_memory, value=memory),
    ]
