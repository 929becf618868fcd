"""Tokens on disk, so that a second run starts training at once.

The name of an entry is a digest of the texts, settings and versions that determine its tokens, so
entries are never stale. An entry is written to a temporary folder and renamed, so that two
processes may write it at once. Tokens are memory-mapped: a corpus may be larger than memory.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np

from sentiment.data.tokenizer import TOKENS_AT_ONCE, TokenizedTexts, tokenize
from sentiment.runtime.files import require_file

_FORMAT = "3"  # increase it whenever this module or the tokenizer changes what is stored
_FILES = ("tokens.npy", "offsets.npy", "lexicon.txt", "sha256")


def default_cache_dir() -> Path:
    """The user's cache folder for this program, following the XDG convention."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "sentiment"


def cache_key(texts: Sequence[str], *, lower_case: bool) -> str:
    """Digest of everything that determines the tokens of these texts."""
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

    A cache that cannot be written is ignored.
    """
    entry = cache_dir / "tokens" / cache_key(texts, lower_case=lower_case)
    cached = _read(entry, len(texts))
    if cached is not None:
        return cached
    tokenized = tokenize(
        texts, lower_case=lower_case, num_processes=num_processes, progress=progress
    )
    # With a full or read-only disk only the next run takes longer.
    with contextlib.suppress(OSError):
        _write(entry, tokenized)
        return _read(entry, len(texts)) or tokenized  # memory-mapped, which frees these
    return tokenized


def _read(entry: Path, num_texts: int) -> TokenizedTexts | None:
    try:
        for name in _FILES:
            require_file(entry / name)
        # Mode c (copy on write) because torch warns of read-only arrays.
        tokens = np.lib.format.open_memmap(entry / "tokens.npy", mode="c")
        offsets = np.lib.format.open_memmap(entry / "offsets.npy", mode="c")
        lexicon = (entry / "lexicon.txt").read_bytes().decode("utf-8")
        checksum = (entry / "sha256").read_bytes().decode("ascii")
    except Exception:  # a damaged header makes numpy raise almost any exception
        return None
    words = lexicon.split("\n")
    is_whole = (
        (tokens.dtype, tokens.ndim) == (np.dtype(np.int32), 1)
        and (offsets.dtype, offsets.shape) == (np.dtype(np.int64), (num_texts + 1,))
        and offsets[0] == 0
        and offsets[-1] == len(tokens)
        and bool((np.diff(offsets) >= 0).all())
        and words.pop() == ""
        and _are_indices(tokens, len(words))
        and checksum == _checksum(tokens, offsets, lexicon)
    )
    return TokenizedTexts(tokens, np.array(offsets), words) if is_whole else None


def _are_indices(tokens: np.ndarray, num_words: int) -> bool:
    """Whether tokens are indices into a lexicon, of which they use the last."""
    highest = -1
    for start in range(0, len(tokens), TOKENS_AT_ONCE):
        part = tokens[start : start + TOKENS_AT_ONCE]
        if part.min() < 0:
            return False
        highest = max(highest, int(part.max()))
    return highest == num_words - 1


def _checksum(tokens: np.ndarray, offsets: np.ndarray, lexicon: str) -> str:
    digest = hashlib.sha256(f"{len(tokens)} {len(offsets)} {lexicon}".encode())
    digest.update(offsets.tobytes())
    for start in range(0, len(tokens), TOKENS_AT_ONCE):
        digest.update(tokens[start : start + TOKENS_AT_ONCE].tobytes())
    return digest.hexdigest()


def _write(entry: Path, tokenized: TokenizedTexts) -> None:
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
