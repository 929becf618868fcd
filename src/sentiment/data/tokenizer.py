"""Texts to one flat array of tokens and a lexicon, by spaCy's rules; the cache of tokens."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import html
import itertools
import os
import re
import shutil
import sys
import tempfile
from array import array
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from sentiment.runtime.files import require_file

if TYPE_CHECKING:
    from spacy.tokenizer import Tokenizer as Rules


_LINE_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)
# Pieces (text between white space) that need no spaCy, apart from special cases (cannot, Mr.):
# letters, and one of these marks at their end, which is a token; a full stop only after a
# lower-case letter.
_PLAIN_PIECE = re.compile(r"([A-Za-z]+)([,!?;:)]|(?<=[a-z])\.)?")
# spaCy's time grows with the square of a piece's length: minutes for 100,000 punctuation marks. So
# pieces longer than this are split first; no language with white space has such words.
_MAX_PIECE_CHARACTERS = 1_000
# The rest of a longer piece is not tokenized any further: spaCy takes a second for 300,000 marks.
_MAX_TOKENIZED_CHARACTERS = 100_000
# A character reference with so many digits that html.unescape would fail to parse the integer.
_ENDLESS_NUMBER = re.compile(r"&#[0-9]{1000,};?")
_SHARD_SIZE = 2_500  # texts whose new pieces are tokenized together
# Importing spaCy in another process takes as long as tokenizing about this many characters.
_CHARACTERS_PER_PROCESS = 12_000_000

# Chunk size for loops over a corpus, whose tokens may be mapped from a file.
TOKENS_AT_ONCE = 4_000_000

CutPieces = tuple[list[str], list[int]]  # all tokens, and the number of tokens of each piece


@dataclass(frozen=True)
class TokenizedTexts:
    """The tokens of several texts as one flat array, which may be mapped from a file."""

    tokens: np.ndarray  # (num_tokens,) int32, indices into the lexicon
    offsets: np.ndarray  # (num_texts + 1,) int64; text i is tokens[offsets[i]:offsets[i + 1]]
    lexicon: list[str]  # the distinct tokens in the order of their first occurrence

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def words(self, index: int) -> list[str]:
        """The tokens of one text as strings."""
        span = self.tokens[self.offsets[index] : self.offsets[index + 1]]
        return [self.lexicon[token] for token in span]


class _Numbering(dict[str, int]):
    """Numbers strings in the order in which they are first looked up."""

    def __missing__(self, key: str) -> int:
        number = self[key] = len(self)
        return number


def clean(text: str) -> str:
    """Replace HTML line breaks by spaces and entities by their characters.

    Lone surrogates, which UTF-8 cannot encode, become replacement characters.
    """
    if not text.isascii():
        text = text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    if "&" in text:
        if "&#" in text:
            text = _ENDLESS_NUMBER.sub("\ufffd", text)
        text = html.unescape(text)
    return _LINE_BREAK.sub(" ", text) if "<" in text else text


class Tokenizer:
    """Tokenizes texts, and remembers the tokens of every piece between white space.

    For unbounded streams, call :meth:`forget` regularly. The processes of an ``executor`` tokenize
    pieces in parallel; without one, this process tokenizes them.
    """

    def __init__(self, *, lower_case: bool = True, executor: Executor | None = None) -> None:
        self._lower_case = lower_case
        self._executor = executor
        self._forget_pieces()

    def _forget_pieces(self) -> None:
        self._pieces = _Numbering()
        self._lexicon = _Numbering()
        self._piece_tokens = array("i")  # tokens of all known pieces
        self._piece_lengths = array("i")
        self.num_characters = 0  # of the remembered pieces

    @property
    def num_pieces(self) -> int:
        return len(self._pieces)

    def forget(self) -> None:
        """Free the memory of all pieces; the lexicon of later texts starts empty.

        spaCy also keeps every token that it has seen, so its rules are loaded again when needed.
        """
        self._forget_pieces()
        load_rules.cache_clear()

    def __call__(
        self, texts: Sequence[str], report: Callable[[int], object] = lambda count: None
    ) -> TokenizedTexts:
        """Tokenize texts; ``report`` is called with the number of texts of each shard."""
        num_known = len(self._pieces)
        shards: list[tuple[np.ndarray, np.ndarray]] = []
        results: list[Callable[[], CutPieces]] = []
        for start in range(0, len(texts), _SHARD_SIZE):
            shards.append(self._number_pieces(texts[start : start + _SHARD_SIZE]))
            new = list(itertools.islice(reversed(self._pieces), len(self._pieces) - num_known))
            new.reverse()
            num_known = len(self._pieces)
            self.num_characters += sum(map(len, new))
            results.append(self._start_cutting(new))
            report(len(shards[-1][1]))
        for result in results:
            words, lengths = result()
            self._piece_tokens.extend(map(self._lexicon.__getitem__, words))
            self._piece_lengths.extend(lengths)
        return self._gather(shards)

    def _number_pieces(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """The numbers of all texts' pieces, and how many pieces each text has."""
        pieces_of_texts = [clean(text).split() for text in texts]
        num_pieces = [len(pieces) for pieces in pieces_of_texts]
        all_pieces = itertools.chain.from_iterable(pieces_of_texts)
        numbers = map(self._pieces.__getitem__, all_pieces)
        return np.fromiter(numbers, np.int32, sum(num_pieces)), np.array(num_pieces, np.int64)

    def _start_cutting(self, pieces: list[str]) -> Callable[[], CutPieces]:
        if self._executor is not None:
            return self._executor.submit(cut_pieces, pieces, self._lower_case).result
        cut = cut_pieces(pieces, self._lower_case)
        return lambda: cut

    def _gather(self, shards: list[tuple[np.ndarray, np.ndarray]]) -> TokenizedTexts:
        lengths = np.array(self._piece_lengths, dtype=np.int64)
        starts = np.cumsum(lengths) - lengths
        table = np.array(self._piece_tokens, dtype=np.int32)
        tokens = [np.empty(0, dtype=np.int32)]
        text_lengths = [np.zeros(1, dtype=np.int64)]
        for pieces, num_pieces in shards:
            ends = np.concatenate(([0], np.cumsum(lengths[pieces])))  # (pieces in texts + 1,)
            first = np.repeat(starts[pieces] - ends[:-1], lengths[pieces])  # (tokens in texts,)
            tokens.append(table[first + np.arange(ends[-1])])
            text_lengths.append(np.diff(ends[np.concatenate(([0], np.cumsum(num_pieces)))]))
        offsets = np.cumsum(np.concatenate(text_lengths))
        return TokenizedTexts(np.concatenate(tokens), offsets, list(self._lexicon))


def tokenize(
    texts: Sequence[str],
    *,
    lower_case: bool = True,
    num_processes: int | None = None,
    progress: bool = False,
) -> TokenizedTexts:
    """Tokenize texts, in several processes if that is faster.

    Without ``num_processes``, the size of the corpus and the available cores determine it. With
    ``progress``, a terminal shows a progress bar.
    """
    if num_processes is None:
        import joblib  # not at the top: it creates a semaphore in every process that imports it

        worth = sum(map(len, texts)) // _CHARACTERS_PER_PROCESS
        num_processes = max(1, min(worth, joblib.cpu_count()))
    with tqdm(
        total=len(texts), desc="tokenizing", unit="review", disable=None if progress else True
    ) as bar:
        if num_processes == 1:
            return Tokenizer(lower_case=lower_case)(texts, bar.update)
        # Spawned, not forked: this process may already run torch's threads.
        with ProcessPoolExecutor(num_processes, get_context("spawn")) as executor:
            for _ in range(num_processes):
                executor.submit(cut_pieces, [], lower_case)  # imports spaCy meanwhile
            return Tokenizer(lower_case=lower_case, executor=executor)(texts, bar.update)


def cut_pieces(pieces: Sequence[str], lower_case: bool) -> CutPieces:
    """Tokenize pieces of text without white space."""
    rules = load_rules()
    special_cases = rules.rules
    words: list[str] = []
    lengths: list[int] = []
    for piece in pieces:
        plain = _PLAIN_PIECE.fullmatch(piece)
        if plain and piece not in special_cases and plain[1] not in special_cases:
            cut = [plain[1], plain[2]] if plain[2] else [plain[1]]
        else:
            starts = range(0, len(piece), _MAX_PIECE_CHARACTERS)
            parts = [piece[start : start + _MAX_PIECE_CHARACTERS] for start in starts]
            num_cut = _MAX_TOKENIZED_CHARACTERS // _MAX_PIECE_CHARACTERS
            cut = [token.text for part in parts[:num_cut] for token in rules(part)]
            cut += parts[num_cut:]
        words += cut
        lengths.append(len(cut))
    return [word.lower() for word in words] if lower_case else words, lengths


# Maximum length of a suffix, and of the characters before it that determine it.
_MAX_SUFFIX, _MAX_CONTEXT = 32, 8


@functools.cache
def load_rules() -> Rules:
    """spaCy's English tokenizer, with faster searches for prefixes and suffixes."""
    import spacy  # takes two seconds, which a start with cached tokens saves

    rules = spacy.blank("en").tokenizer
    rules.prefix_search = re.compile(rules.prefix_search.__self__.pattern).match  # it begins with ^
    rules.suffix_search = _SuffixSearch(rules.suffix_search)
    return rules


class _SuffixSearch:
    """spaCy's search for suffixes, restricted to the end of a piece.

    spaCy searches from the beginning of the piece for each suffix, a second for a thousand marks.
    Only a row of full stops can be longer than the end searched here; then the match begins near
    its start, and the whole piece is searched.
    """

    def __init__(self, search: Callable[[str], re.Match[str] | None]) -> None:
        self._search = search

    def __call__(self, piece: str) -> re.Match[str] | None:
        if len(piece) <= _MAX_SUFFIX:
            return self._search(piece)
        match = self._search(piece[-_MAX_SUFFIX:])
        return self._search(piece) if match and match.start() < _MAX_CONTEXT else match


_FORMAT = "3"  # of cache entries: increase it whenever this module changes what is stored
_FILES = ("tokens.npy", "offsets.npy", "lexicon.txt", "sha256")


def default_cache_dir() -> Path:
    """The user's cache folder for this program, following the XDG convention."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "sentiment"


def cache_key(texts: Sequence[str], *, lower_case: bool) -> str:
    """Digest of all that determines the tokens: texts, settings and versions."""
    # Python's version determines what is a letter, a lower-case letter, an HTML entity.
    versions = (_FORMAT, version("spacy"), sys.version_info[:2])
    digest = hashlib.sha256(f"{versions} {lower_case} {len(texts)}".encode())
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()[:32]


def tokenize_cached(
    texts: Sequence[str],
    cache_dir: Path,
    *,
    lower_case: bool = True,
    num_processes: int | None = None,
    progress: bool = False,
) -> TokenizedTexts:
    """Tokens of the texts from the cache; missing or damaged entries are written again.

    Tokens are memory-mapped: a corpus may be larger than memory. A cache that cannot be written is
    ignored.
    """
    entry = cache_dir / "tokens" / cache_key(texts, lower_case=lower_case)
    if (cached := _read_entry(entry, len(texts))) is not None:
        return cached
    tokenized = tokenize(
        texts, lower_case=lower_case, num_processes=num_processes, progress=progress
    )
    # With a full or read-only disk only the next run takes longer.
    with contextlib.suppress(OSError):
        _write_entry(entry, tokenized)
        return _read_entry(entry, len(texts)) or tokenized  # memory-mapped, which frees these
    return tokenized


def _read_entry(entry: Path, num_texts: int) -> TokenizedTexts | None:
    try:
        for name in _FILES:
            require_file(entry / name)
        # Mode c (copy-on-write) because torch warns of read-only arrays.
        tokens = np.lib.format.open_memmap(entry / "tokens.npy", mode="c")
        offsets = np.lib.format.open_memmap(entry / "offsets.npy", mode="c")
        lexicon = (entry / "lexicon.txt").read_bytes().decode("utf-8")
        checksum = (entry / "sha256").read_bytes().decode("ascii")
    except Exception:  # a damaged header makes numpy raise almost any exception
        return None
    words = lexicon.split("\n")
    is_complete = (
        (tokens.dtype, tokens.ndim) == (np.dtype(np.int32), 1)
        and (offsets.dtype, offsets.shape) == (np.dtype(np.int64), (num_texts + 1,))
        and offsets[0] == 0
        and offsets[-1] == len(tokens)
        and bool((np.diff(offsets) >= 0).all())
        and words.pop() == ""
        and tokens.min(initial=0) >= 0  # indices into the lexicon, of which they use the last
        and tokens.max(initial=-1) == len(words) - 1
        and checksum == _checksum(tokens, offsets, lexicon)
    )
    return TokenizedTexts(tokens, np.array(offsets), words) if is_complete else None


def _checksum(tokens: np.ndarray, offsets: np.ndarray, lexicon: str) -> str:
    digest = hashlib.sha256(f"{len(tokens)} {len(offsets)} {lexicon}".encode())
    digest.update(offsets.data)
    digest.update(tokens.data)
    return digest.hexdigest()


def _write_entry(entry: Path, tokenized: TokenizedTexts) -> None:
    """Write an entry to a temporary folder and rename it: two processes may write it at once."""
    entry.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".new-", dir=entry.parent))
    try:
        np.save(folder / "tokens.npy", tokenized.tokens)
        np.save(folder / "offsets.npy", tokenized.offsets)
        # Tokens contain no white space, so a line break can end them.
        lexicon = "".join(word + "\n" for word in tokenized.lexicon)
        (folder / "lexicon.txt").write_bytes(lexicon.encode("utf-8"))
        checksum = _checksum(tokenized.tokens, tokenized.offsets, lexicon)
        (folder / "sha256").write_bytes(checksum.encode("ascii"))
        if entry.is_symlink() or entry.is_file():
            entry.unlink()
        shutil.rmtree(entry, ignore_errors=True)  # a damaged entry
        os.replace(folder, entry)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
