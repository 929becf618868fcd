"""The published GloVe archives, fetched into a cache: verified, resumable, never half a file.

A file gets its name only when it is whole. Bytes go to ``NAME.part``, are checked there and then
renamed. ``NAME.part.json`` says which version of the file the part is of, so that the next run
can go on from it, and ``NAME.lock`` keeps two processes from writing the same part.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from sentiment.text.archives import damage
from sentiment.text.transfer import (
    DownloadError,
    Interrupted,
    address_of,
    announced_size,
    check_address,
    discard,
    discard_links,
    transfer,
)

logger = logging.getLogger(__name__)

_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Archive:
    """A published archive of vectors.

    Attributes:
        file_name: its name in the cache.
        urls: where it is, the first to be tried first.
        num_bytes: its size.
        sha256: its checksum.
        member: the file in it that holds these vectors.
        dimension: values a word.
    """

    file_name: str
    urls: tuple[str, ...]
    num_bytes: int
    sha256: str
    member: str
    dimension: int


@dataclass(frozen=True)
class Patience:
    """How long to try: waits double from attempt to attempt, a timeout is one without a byte."""

    num_attempts: int = 4
    wait_seconds: float = 1.0
    timeout_seconds: float = 30.0


_PATIENCE = Patience()


def _known(stem: str, num_bytes: int, sha256: str, dimensions: tuple[int, ...]) -> list[Archive]:
    # The addresses are those of https://github.com/stanfordnlp/GloVe. Stanford publishes no
    # checksums; these are the ones that torchtext pinned for the first address after 0.6.0
    # (https://github.com/pytorch/text, torchtext/experimental/checksums_glove.json).
    urls = (
        f"https://nlp.stanford.edu/data/{stem}.zip",
        f"https://huggingface.co/stanfordnlp/glove/resolve/main/{stem}.zip",
    )
    corpus = stem.removesuffix(".300d")
    return [
        Archive(f"{stem}.zip", urls, num_bytes, sha256, f"{corpus}.{dimension}d.txt", dimension)
        for dimension in dimensions
    ]


KNOWN_VECTORS: dict[str, Archive] = {
    archive.member.removesuffix(".txt"): archive
    for archive in [
        *_known(
            "glove.6B",
            862_182_613,
            "617afb2fe6cbd085c235baf7a465b96f4112bd7f7ccb2b2cbd649fed9cbcf2fb",
            (50, 100, 200, 300),
        ),
        *_known(
            "glove.840B.300d",
            2_176_768_927,
            "c06db255e65095393609f19a4cfca20bf3a71e20cc53e892aafa490347e3849f",
            (300,),
        ),
    ]
}
"""The vectors that can be had by name, ``glove.6B.100d`` for instance."""


def fetch_vectors(name: str, cache_dir: Path, *, patience: Patience = _PATIENCE) -> Path:
    """Return the archive that holds ``KNOWN_VECTORS[name]``, downloading it the first time.

    Raises ValueError for an unknown name; DownloadError, which says what to do instead, if the
    archive cannot be got from any of its addresses; OSError if the cache cannot be written.
    """
    if name not in KNOWN_VECTORS:
        raise ValueError(f"there are no vectors {name!r}: choose one of {', '.join(KNOWN_VECTORS)}")
    archive = KNOWN_VECTORS[name]
    destination = cache_dir / archive.file_name
    begun_at = address_of(_part(destination))
    reasons = []
    for url in sorted(archive.urls, key=lambda url: url != begun_at):  # else in their order
        try:
            return download(
                url,
                destination,
                sha256=archive.sha256,
                num_bytes=archive.num_bytes,
                patience=patience,
            )
        except DownloadError as error:
            reasons.append(str(error))
    raise DownloadError(
        f"the vectors {name} could not be downloaded ({'; '.join(reasons)}): download "
        f"{archive.urls[0]} yourself and pass --vectors.path FILE, or pass --vectors.name null to "
        f"start from random vectors"
    )


def download(
    url: str,
    destination: Path,
    *,
    sha256: str | None = None,
    num_bytes: int | None = None,
    patience: Patience = _PATIENCE,
) -> Path:
    """Fetch ``url`` to ``destination`` unless it is there; only a whole file ever gets that name.

    What has come stays beside it when attempts run out, and the next call goes on from there.

    Args:
        url: ``https://``, or ``http://`` on this machine.
        destination: a ``.zip`` or ``.gz`` is read through if there is no checksum to compare.
        sha256: the checksum that the file must have, in hexadecimal.
        num_bytes: the size that it must have.
        patience: how often to try, with which waits.

    Raises:
        ValueError: the address is not one to trust.
        DownloadError: the file could not be got, or is not what it must be.
        OSError: the disk is full, the folder cannot be written.
    """
    check_address(url)
    if _is_there(destination, num_bytes):
        return destination
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        with _locked(destination):
            if not _is_there(destination, num_bytes):  # not finished by another process meanwhile
                part = _part(destination)
                discard_links(part)
                _fill(part, url, num_bytes, patience)
                _verify(part, url, destination.suffix.lower(), sha256, num_bytes)
                os.replace(part, destination)
                discard(part)
    except DownloadError:
        raise
    except OSError as error:
        raise OSError(
            f"{destination} cannot be written ({error}): free space there, or choose another "
            f"folder with --data.cache_dir"
        ) from error
    return destination


def _is_there(destination: Path, num_bytes: int | None) -> bool:
    """A file of another size than the published one was put there by something else."""
    return destination.is_file() and num_bytes in (None, destination.stat().st_size)


def _part(destination: Path) -> Path:
    return destination.with_name(f"{destination.name}.part")


@contextmanager
def _locked(destination: Path) -> Iterator[None]:
    """Hold the lock on a download; the system frees it when a process ends, however it ends."""
    path = Path(f"{destination}.lock")
    if path.is_symlink():  # which would be followed, and the file that it names emptied
        path.unlink()
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        logger.warning("another process is downloading %s: waiting for it", destination)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _fill(part: Path, url: str, num_bytes: int | None, patience: Patience) -> None:
    """Fetch the part, again and again while that may help."""
    for attempt in range(1, patience.num_attempts + 1):
        try:
            transfer(url, part, timeout_seconds=patience.timeout_seconds, num_bytes=num_bytes)
            return
        except Interrupted as error:
            reason = str(error)
        if attempt < patience.num_attempts:
            wait = patience.wait_seconds * 2 ** (attempt - 1)
            logger.warning("downloading %s: %s; again in %g s", url, reason, wait)
            time.sleep(wait)
    raise DownloadError(f"{url}: {reason}, after {patience.num_attempts} attempts")


def _verify(part: Path, url: str, suffix: str, sha256: str | None, num_bytes: int | None) -> None:
    """Raise DownloadError, and remove the part, unless it can be shown to be whole."""
    size = part.stat().st_size
    fault: str | None = None
    if num_bytes is not None and size != num_bytes:
        fault = f"{size:,} bytes came, {num_bytes:,} were published"
    elif sha256 is not None:
        found = _sha256(part)
        fault = None if found == sha256 else f"its SHA-256 is {found} instead of {sha256}"
    elif suffix in (".zip", ".gz"):
        fault = damage(part, suffix=suffix)
    elif announced_size(part) is None:
        fault = "the server gave no length, so nothing shows that all of it came"
    if fault:
        discard(part)
        raise DownloadError(f"what came from {url} is not the file: {fault}")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
