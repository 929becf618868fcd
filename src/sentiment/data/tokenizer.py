"""Turns texts into one flat array of tokens and a lexicon by spaCy's rules; caches the tokens."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import html
import itertools
import os
import pkgutil
import re
import shutil
import sys
import tempfile
from array import array
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sentiment.display.console import progress_bar
from sentiment.runtime.errors import UserError
from sentiment.runtime.files import require_file

if TYPE_CHECKING:
    from spacy.tokenizer import Tokenizer as Rules


_LINE_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)
# Pieces (text between white space) that need no spaCy, apart from special cases (cannot, Mr.):
# letters, and one of these marks at their end, which is a token; a full stop only after a
# lower-case letter. This holds for English; abbreviations differ between languages.
_PLAIN_PIECE = re.compile(r"([A-Za-z]+)([,!?;:)]|(?<=[a-z])\.)?")
# spaCy's time grows with the square of a piece's length: minutes for 100,000 punctuation marks. So
# pieces longer than this are split first; no language with white space has such words.
_MAX_PIECE_CHARACTERS = 1_000
# The rest of a longer piece is not tokenized any further: spaCy takes a second for 300,000 marks.
_MAX_TOKENIZED_CHARACTERS = 100_000
# A character reference with so many digits that html.unescape would fail to parse the integer.
_ENDLESS_NUMBER = re.compile(r"&#[0-9]{1000,};?")
# Languages whose words are not found piece by piece, with the packages of their tokenizers: a text
# is one piece, with single spaces for white space.
_PACKAGES = {
    "ja": ("sudachipy", "sudachidict_core"),
    "ko": ("natto-py", "mecab-ko"),
    "th": ("pythainlp",),
    "vi": ("pyvi",),
}
_MAX_WHOLE_CHARACTERS = 10_000  # of such a piece; Sudachi reads 49,149 bytes
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


def split_pieces(text: str, language: str) -> list[str]:
    """The pieces of a text, each of which is tokenized on its own: those between white space, or
    the whole text in a language of :data:`_PACKAGES`.
    """
    pieces = clean(text).split()
    return [" ".join(pieces)] if pieces and language in _PACKAGES else pieces


class Tokenizer:
    """Tokenizes texts by the rules of a language, and remembers the tokens of every piece.

    For unbounded streams, call :meth:`forget` regularly. The processes of an ``executor`` tokenize
    pieces in parallel; without one, this process tokenizes them.
    """

    def __init__(
        self, *, lower_case: bool = True, language: str = "en", executor: Executor | None = None
    ) -> None:
        self._lower_case = lower_case
        self._language = language
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
        pieces_of_texts = [split_pieces(text, self._language) for text in texts]
        num_pieces = [len(pieces) for pieces in pieces_of_texts]
        all_pieces = itertools.chain.from_iterable(pieces_of_texts)
        numbers = map(self._pieces.__getitem__, all_pieces)
        return np.fromiter(numbers, np.int32, sum(num_pieces)), np.array(num_pieces, np.int64)

    def _start_cutting(self, pieces: list[str]) -> Callable[[], CutPieces]:
        if self._executor is not None:
            arguments = (pieces, self._lower_case, self._language)
            return self._executor.submit(cut_pieces, *arguments).result
        cut = cut_pieces(pieces, self._lower_case, self._language)
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
    language: str = "en",
    num_processes: int | None = None,
    progress: bool = False,
) -> TokenizedTexts:
    """Tokenize texts, in several processes if that is faster.

    Without ``num_processes``, the size of the corpus and the available cores determine it. With
    ``progress``, a progress bar is shown.
    """
    if num_processes is None:
        import joblib  # not at the top: it creates a semaphore in every process that imports it

        worth = sum(map(len, texts)) // _CHARACTERS_PER_PROCESS
        num_processes = max(1, min(worth, joblib.cpu_count()))
    with progress_bar(
        total=len(texts), desc="tokenizing", unit="review", is_hidden=not progress
    ) as bar:
        if num_processes == 1:
            return Tokenizer(lower_case=lower_case, language=language)(texts, bar.update)
        # Spawned, not forked: this process may already run torch's threads.
        with ProcessPoolExecutor(num_processes, get_context("spawn")) as executor:
            for _ in range(num_processes):
                executor.submit(cut_pieces, [], lower_case, language)  # imports spaCy meanwhile
            tokenizer = Tokenizer(lower_case=lower_case, language=language, executor=executor)
            return tokenizer(texts, bar.update)


def cut_pieces(pieces: Sequence[str], lower_case: bool, language: str) -> CutPieces:
    """Tokenize the pieces of text that :func:`split_pieces` returns."""
    rules = load_rules(language)
    special_cases = rules.rules if language == "en" else {}
    max_characters = _MAX_WHOLE_CHARACTERS if language in _PACKAGES else _MAX_PIECE_CHARACTERS
    words: list[str] = []
    lengths: list[int] = []
    for piece in pieces:
        plain = _PLAIN_PIECE.fullmatch(piece) if language == "en" else None
        if plain and piece not in special_cases and plain[1] not in special_cases:
            cut = [plain[1], plain[2]] if plain[2] else [plain[1]]
        else:
            starts = range(0, len(piece), max_characters)
            parts = [piece[start : start + max_characters] for start in starts]
            num_cut = _MAX_TOKENIZED_CHARACTERS // max_characters
            tokens = (token.text for part in parts[:num_cut] for token in rules(part))
            cut = [token for token in tokens if not token.isspace()] + parts[num_cut:]
        words += cut
        lengths.append(len(cut))
    return [word.lower() for word in words] if lower_case else words, lengths


# Maximum length of a suffix, and of the characters before it that determine it.
_MAX_SUFFIX, _MAX_CONTEXT = 32, 8


@functools.cache
def load_rules(language: str) -> Rules:
    """spaCy's tokenizer of a language, with faster searches for prefixes and suffixes.

    Raises UserError if spaCy has no such language, or its tokenizer needs a missing package.
    """
    import spacy  # takes two seconds, which a start with cached tokens saves
    import spacy.lang

    codes = [module.name for module in pkgutil.iter_modules(spacy.lang.__path__) if module.ispkg]
    if language not in codes:
        raise UserError(
            f"data.language is {language!r}, but must be one of {', '.join(codes)}; xx is for any "
            "other language with white space between words, zh reads characters"
        )
    try:
        rules = spacy.blank(language).tokenizer
    except ImportError as error:
        if language not in _PACKAGES:
            raise
        other = (
            "zh, which reads characters"
            if language in ("ja", "th")
            else "xx, which needs no package"
        )
        packages = " and ".join(_PACKAGES[language])
        raise UserError(
            f"data.language is {language!r}, whose tokenizer needs a package that is not "
            f"installed: install {packages}, or set data.language to {other}"
        ) from error
    if language == "zh" or language in _PACKAGES:
        return rules
    rules.prefix_search = re.compile(rules.prefix_search.__self__.pattern).match  # it begins with ^
    rules.suffix_search = functools.partial(_search_suffix, rules.suffix_search)
    return rules


def _search_suffix(
    search: Callable[[str], re.Match[str] | None], piece: str
) -> re.Match[str] | None:
    """spaCy's ``search`` for suffixes, restricted to the end of a piece.

    spaCy searches from the beginning of the piece for each suffix, a second for a thousand marks.
    Only a row of full stops can be longer than the end searched here; then the match begins near
    its start, and the whole piece is searched.
    """
    if len(piece) <= _MAX_SUFFIX:
        return search(piece)
    match = search(piece[-_MAX_SUFFIX:])
    return search(piece) if match and match.start() < _MAX_CONTEXT else match


_FORMAT = "3"  # of cache entries: increase it whenever this module changes what is stored
_FILES = ("tokens.npy", "offsets.npy", "lexicon.txt", "sha256")


def default_cache_dir() -> Path:
    """The user's cache folder for this program, following the XDG convention."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "sentiment"


def cache_key(texts: Sequence[str], *, lower_case: bool, language: str = "en") -> str:
    """Digest of everything that determines the tokens: texts, settings and versions."""
    # Python's version determines what is a letter, a lower-case letter, an HTML entity.
    versions = (_FORMAT, version("spacy"), sys.version_info[:2])
    settings = f"{versions} {lower_case} {len(texts)}"
    if language != "en":  # whose entries are older than the setting
        settings += f" {language}"
    for package in _PACKAGES.get(language, ()):
        with contextlib.suppress(PackageNotFoundError):
            settings += f" {package} {version(package)}"
    digest = hashlib.sha256(settings.encode())
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
    language: str = "en",
    num_processes: int | None = None,
    progress: bool = False,
) -> TokenizedTexts:
    """Tokens of the texts from the cache; missing or damaged entries are written again.

    Tokens are memory-mapped: a corpus may be larger than memory. A cache that cannot be written is
    ignored.
    """
    entry = cache_dir / "tokens" / cache_key(texts, lower_case=lower_case, language=language)
    if (cached := _read_entry(entry, len(texts))) is not None:
        return cached
    tokenized = tokenize(
        texts,
        lower_case=lower_case,
        language=language,
        num_processes=num_processes,
        progress=progress,
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
        # Tokens contain no white space but single spaces, so a line break can end them.
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
