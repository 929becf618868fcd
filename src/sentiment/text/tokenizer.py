"""Tokens by spaCy's English rules, at several times the speed of calling them on every review.

spaCy cuts a text at white space first and then applies its rules to each piece on its own, so a
text's tokens are the tokens of its pieces one after the other. A corpus repeats its pieces (IMDB's
5.8 million are 265,000 different ones): each is cut once, and the rest is counting and gathering
in numpy. The result is spaCy's to the token, which the tests check on real reviews.

Nothing is downloaded: ``spacy.blank("en")`` brings the rules and no model.
"""

from __future__ import annotations

import html
import itertools
import os
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np
from tqdm import tqdm

_LINE_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)
_SHARD_SIZE = 2_500  # reviews handed to a process at a time, some 700,000 tokens
# A new process spends as long on importing spaCy as another one takes for this many characters.
_CHARACTERS_THAT_PAY_A_PROCESS = 12_000_000


@dataclass(frozen=True)
class TokenizedTexts:
    """The tokens of several texts, end to end.

    Attributes:
        tokens: (num_tokens,) int32, indices into the lexicon.
        offsets: (num_texts + 1,) int64; text ``i`` is ``tokens[offsets[i]:offsets[i + 1]]``.
        lexicon: the distinct tokens, in the order of their first occurrence.
    """

    tokens: np.ndarray
    offsets: np.ndarray
    lexicon: list[str]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def words(self, index: int) -> list[str]:
        """The tokens of one text as strings."""
        span = self.tokens[self.offsets[index] : self.offsets[index + 1]]
        return [self.lexicon[token] for token in span]


class _Numbering(dict[str, int]):
    """Numbers strings in the order in which they are first asked for."""

    def __missing__(self, key: str) -> int:
        number = self[key] = len(self)
        return number


def clean(text: str) -> str:
    """Text without what HTML left in it: line breaks become spaces, entities their characters.

    Lone surrogates, which no encoding knows, become replacement characters.
    """
    if not text.isascii():
        text = text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    if "&" in text:
        text = html.unescape(text)
    return _LINE_BREAK.sub(" ", text) if "<" in text else text


class Tokenizer:
    """Cuts texts into tokens; remembers every piece it has cut, so later texts go faster.

    Args:
        lower_case: whether tokens are lower-cased.
    """

    def __init__(self, *, lower_case: bool = True) -> None:
        import spacy  # Takes two seconds: a start with cached tokens must not pay for it.

        self._rules = spacy.blank("en").tokenizer
        self._lower_case = lower_case
        self._pieces = _Numbering()
        self._lexicon = _Numbering()
        self._piece_tokens: list[int] = []  # tokens of all known pieces, end to end
        self._piece_lengths: list[int] = []

    def __call__(self, texts: Sequence[str]) -> TokenizedTexts:
        """Cut texts into tokens."""
        pieces_of_texts = [clean(text).split() for text in texts]
        num_pieces = [len(pieces) for pieces in pieces_of_texts]
        number = self._pieces.__getitem__
        pieces = np.fromiter(
            map(number, itertools.chain.from_iterable(pieces_of_texts)), np.int64, sum(num_pieces)
        )
        self._cut_new_pieces()
        tokens, offsets = self._gather(pieces, np.array(num_pieces, dtype=np.int64))
        return TokenizedTexts(tokens, offsets, list(self._lexicon))

    def _cut_new_pieces(self) -> None:
        for piece in itertools.islice(self._pieces, len(self._piece_lengths), None):
            words = [token.text for token in self._rules(piece)]
            if self._lower_case:
                words = [word.lower() for word in words]
            self._piece_tokens += map(self._lexicon.__getitem__, words)
            self._piece_lengths.append(len(words))

    def _gather(self, pieces: np.ndarray, num_pieces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Replace each piece by its tokens; (num_tokens,) tokens and (num_texts + 1,) offsets."""
        lengths = np.array(self._piece_lengths, dtype=np.int64)
        starts = np.cumsum(lengths) - lengths
        table = np.array(self._piece_tokens, dtype=np.int32)
        ends = np.concatenate(([0], np.cumsum(lengths[pieces])))  # (num_pieces_in_texts + 1,)
        first = np.repeat(starts[pieces] - ends[:-1], lengths[pieces])  # (num_tokens,)
        tokens = table[first + np.arange(ends[-1])]
        offsets = ends[np.concatenate(([0], np.cumsum(num_pieces)))]
        return tokens, offsets


def tokenize(
    texts: Sequence[str],
    *,
    lower_case: bool = True,
    num_processes: int | None = None,
    progress: bool = False,
) -> TokenizedTexts:
    """Cut texts into tokens, in several processes where that pays.

    Args:
        texts: the texts.
        lower_case: whether tokens are lower-cased.
        num_processes: processes to use; None takes one for a small corpus and up to as many as
            there are cores to run on for a large one.
        progress: whether to show a progress bar on a terminal.
    """
    shards = [texts[start : start + _SHARD_SIZE] for start in range(0, len(texts), _SHARD_SIZE)]
    if num_processes is None:
        worth = sum(map(len, texts)) // _CHARACTERS_THAT_PAY_A_PROCESS
        num_processes = max(1, min(worth + 1, _allowed_cores()))
    with tqdm(
        total=len(texts), desc="tokenizing", unit="review", disable=None if progress else True
    ) as bar:
        if num_processes == 1 or len(shards) <= 1:
            tokenizer = Tokenizer(lower_case=lower_case)
            return _join((tokenizer(shard) for shard in shards), bar)
        # Spawned, not forked: the parent may already run threads of torch's.
        with ProcessPoolExecutor(
            num_processes, get_context("spawn"), _start_worker, (lower_case,)
        ) as pool:
            return _join(pool.map(_tokenize_shard, shards), bar)


def _join(results: Iterable[TokenizedTexts], bar: tqdm) -> TokenizedTexts:
    """One corpus from shards, each with a lexicon of its own."""
    lexicon = _Numbering()
    tokens: list[np.ndarray] = [np.empty(0, dtype=np.int32)]
    lengths: list[np.ndarray] = [np.zeros(1, dtype=np.int64)]
    for shard in results:
        numbers = np.fromiter(map(lexicon.__getitem__, shard.lexicon), np.int32, len(shard.lexicon))
        tokens.append(numbers[shard.tokens])
        lengths.append(np.diff(shard.offsets))
        bar.update(len(shard))
    return TokenizedTexts(np.concatenate(tokens), np.cumsum(np.concatenate(lengths)), list(lexicon))


def _allowed_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


# A worker keeps its tokenizer between shards, and with it every piece already cut.
_worker: Tokenizer | None = None


def _start_worker(lower_case: bool) -> None:
    global _worker
    _worker = Tokenizer(lower_case=lower_case)


def _tokenize_shard(texts: Sequence[str]) -> TokenizedTexts:
    assert _worker is not None
    return _worker(texts)
