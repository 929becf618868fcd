"""Word vectors by name: downloads that resume and are checked against published checksums."""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import requests
from filelock import FileLock

from sentiment.display.console import progress_bar
from sentiment.runtime.errors import UserError
from sentiment.runtime.files import file_sha256

logger = logging.getLogger(__name__)

_WAIT_SECONDS = (1.0, 2.0, 4.0)  # before each further attempt
_TIMEOUT_SECONDS = (10.0, 30.0)  # to connect, and between two packets
_BLOCK_BYTES = 1 << 16


@dataclass(frozen=True)
class Archive:
    """A published archive of vectors."""

    file_name: str  # in the cache
    urls: tuple[str, ...]  # in the order in which they are tried
    num_bytes: int
    sha256: str


def _stanford(stem: str, num_bytes: int, sha256: str) -> Archive:
    # The addresses are those of https://github.com/stanfordnlp/GloVe. Stanford publishes no
    # checksums; these are the ones that torchtext pinned for the first address after 0.6.0
    # (https://github.com/pytorch/text, torchtext/experimental/checksums_glove.json).
    urls = (
        f"https://nlp.stanford.edu/data/{stem}.zip",
        f"https://huggingface.co/stanfordnlp/glove/resolve/main/{stem}.zip",
    )
    return Archive(f"{stem}.zip", urls, num_bytes, sha256)


_GLOVE_6B = _stanford(
    "glove.6B", 862_182_613, "617afb2fe6cbd085c235baf7a465b96f4112bd7f7ccb2b2cbd649fed9cbcf2fb"
)
_GLOVE_840B = _stanford(
    "glove.840B.300d",
    2_176_768_927,
    "c06db255e65095393609f19a4cfca20bf3a71e20cc53e892aafa490347e3849f",
)
# The archives of the vectors that can be downloaded by name.
KNOWN_VECTORS = {f"glove.6B.{dimension}d": _GLOVE_6B for dimension in (50, 100, 200, 300)}
KNOWN_VECTORS["glove.840B.300d"] = _GLOVE_840B


class DownloadError(OSError):
    """A file could not be downloaded, or is not the published one."""


def fetch_vectors(name: str, cache_dir: Path) -> Path:
    """Return the archive that holds ``KNOWN_VECTORS[name]``; download it if the cache lacks it.

    Only a file with the published size and checksum gets the archive's name. An interrupted
    download stays in the cache as ``.part``, and the next call resumes it.

    Raises:
        UserError: the name is unknown.
        DownloadError: no address gives the archive.
        OSError: the cache cannot be written.
    """
    if name not in KNOWN_VECTORS:
        raise UserError(f"there are no vectors {name!r}: choose one of {', '.join(KNOWN_VECTORS)}")
    archive = KNOWN_VECTORS[name]
    path = cache_dir / archive.file_name
    if _is_complete(path, archive):
        return path
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            if not _is_complete(path, archive):  # another process may have just finished it
                _download(archive, path)
    except DownloadError as error:
        raise DownloadError(
            f"the vectors {name} could not be downloaded ({error}): download {archive.urls[0]} "
            f"yourself and save it as {path}, or pass --vectors.path FILE, or pass --vectors.name "
            "null to start from random vectors"
        ) from error
    except OSError as error:
        raise OSError(
            f"{path} cannot be written ({error}): free space there, or choose another folder with "
            "--data.cache_dir"
        ) from error
    return path


def cached_vectors(name: str, cache_dir: Path) -> Path | None:
    """The archive that holds ``KNOWN_VECTORS[name]``; None if it was not downloaded."""
    path = cache_dir / KNOWN_VECTORS[name].file_name
    return path if _is_complete(path, KNOWN_VECTORS[name]) else None


def _is_complete(path: Path, archive: Archive) -> bool:
    return path.is_file() and path.stat().st_size == archive.num_bytes


def _download(archive: Archive, path: Path) -> None:
    part = path.with_name(f"{path.name}.part")
    reasons = []
    for url in archive.urls:
        try:
            _download_with_retries(url, part, archive.num_bytes)
            digest = file_sha256(part)
            if digest != archive.sha256:
                part.unlink()
                raise DownloadError(f"its SHA-256 is {digest} instead of {archive.sha256}")
        except DownloadError as error:
            reasons.append(f"{url}: {error}")
        else:
            os.replace(part, path)
            return
    raise DownloadError("; ".join(reasons))


def _download_with_retries(url: str, part: Path, num_bytes: int) -> None:
    with requests.Session() as session:
        if urlsplit(url).hostname != "127.0.0.1":
            del session.adapters["http://"]  # only HTTPS, redirections included
        for wait in (*_WAIT_SECONDS, None):
            try:
                _resume(session, url, part, num_bytes)
                return
            except DownloadError as error:
                if wait is None:
                    raise DownloadError(
                        f"{error}, after {len(_WAIT_SECONDS) + 1} attempts"
                    ) from error
                logger.warning("downloading %s: %s; retrying in %g s", url, error, wait)
                time.sleep(wait)


def _resume(session: requests.Session, url: str, part: Path, num_bytes: int) -> None:
    """Append the missing bytes to ``part``; it has ``num_bytes`` when this returns."""
    offset = part.stat().st_size if part.exists() else 0
    if offset == num_bytes:
        return
    headers = {"Accept-Encoding": "identity"}  # the bytes as stored: sizes are compared
    if offset:
        headers["Range"] = f"bytes={offset}-"
    try:
        response = session.get(url, headers=headers, stream=True, timeout=_TIMEOUT_SECONDS)
    except OSError as error:  # all errors of requests, and a missing REQUESTS_CA_BUNDLE
        raise DownloadError(str(error)) from error
    with response:
        status, content_range = response.status_code, response.headers.get("Content-Range", "")
        if status == 416 or (status == 206 and not content_range.startswith(f"bytes {offset}-")):
            part.unlink(missing_ok=True)  # so that the next attempt requests the whole file
            raise DownloadError("the server does not have the rest of the file")
        if status not in (200, 206):
            raise DownloadError(f"the server answers {status} {response.reason}")
        offset = offset if status == 206 else 0
        length = response.headers.get("Content-Length", "")
        announced = int(length) if length.isdecimal() else num_bytes - offset
        if offset + announced != num_bytes:
            raise DownloadError(
                f"it has {offset + announced:,} bytes instead of {num_bytes:,}: it is not the "
                "published file"
            )
        _append(response, part, offset, num_bytes)
    if part.stat().st_size < num_bytes:
        raise DownloadError(f"only {part.stat().st_size:,} of {num_bytes:,} bytes arrived")


def _append(response: requests.Response, part: Path, offset: int, num_bytes: int) -> None:
    """Write the body to ``part`` from ``offset`` on, and never beyond ``num_bytes``."""
    blocks = response.iter_content(_BLOCK_BYTES)
    with (
        part.open("ab" if offset else "wb") as file,
        progress_bar(
            desc=part.stem, total=num_bytes, initial=offset, unit="B", unit_scale=True
        ) as progress,
    ):
        while file.tell() < num_bytes:
            try:
                block = next(blocks, b"")
            except requests.RequestException as error:
                raise DownloadError(str(error)) from error
            if not block:
                break
            progress.update(file.write(block[: num_bytes - file.tell()]))
        file.flush()
        os.fsync(file.fileno())
