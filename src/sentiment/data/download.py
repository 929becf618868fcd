"""Word vectors by name: downloads that resume, are bounded and are checked."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import requests
import urllib3
from filelock import FileLock, Timeout
from tqdm import tqdm

from sentiment.data.vectors import damage
from sentiment.runtime.errors import UserError
from sentiment.runtime.files import require_file

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

    Raises UserError for an unknown name; DownloadError, which says what to do instead, if the
    archive cannot be got from any of its addresses; OSError if the cache cannot be written.
    """
    if name not in KNOWN_VECTORS:
        raise UserError(f"there are no vectors {name!r}: choose one of {', '.join(KNOWN_VECTORS)}")
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
        UserError: the address is not one to trust.
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


_TRANSFER_BYTES = 1 << 16
_CONNECT_SECONDS = 10.0  # a server that is there answers this much sooner than it may pause
_PARTIAL, _RANGE_BEYOND_END = 206, 416
_STATUSES_OF_A_MOMENT = {408, 429, 500, 502, 503, 504}


class DownloadError(OSError):
    """A file could not be got, or is not what it must be; the message is for users."""


class Interrupted(Exception):
    """An attempt failed in a way in which another one may not."""


def check_address(url: str) -> None:
    """Raise UserError for what is not verified HTTPS; plain HTTP may only go to this machine."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme == "https" and host:
        return
    if parts.scheme == "http" and (host == "localhost" or _is_loopback(host)):
        return
    raise UserError(f"{url} is not fetched, for nothing proves whose it is: give an https:// one")


def transfer(url: str, part: Path, *, timeout_seconds: float, num_bytes: int | None = None) -> None:
    """Fetch ``url`` into ``part``, up to the length that the server announces.

    ``num_bytes`` is the size that the file must have, where it is known beforehand. What came of
    an attempt that was interrupted stays for the next one.

    Raises Interrupted if another attempt may help, DownloadError if not, OSError from the disk.
    """
    kept = _Version.of_part(part)
    if kept and (kept.url != url or not part.exists()):  # renamed, and then the notes stayed
        kept = None
    offset = part.stat().st_size if kept else 0
    if kept and offset == kept.num_bytes:
        return  # only the check and the renaming were interrupted
    with _Session() as session, _request(session, url, kept, offset, timeout_seconds) as response:
        version = _Version.of_response(url, response)
        continued = kept is not None and kept.is_continued_by(response, offset)
        if response.status_code != 200 and not continued:
            discard(part)
            raise Interrupted("the file on the server is another one now")
        if num_bytes is not None and version.num_bytes not in (None, num_bytes):
            raise DownloadError(
                f"{url} is {version.num_bytes:,} bytes long instead of {num_bytes:,}: it is not "
                f"the file that was published"
            )
        most = version.num_bytes if num_bytes is None else num_bytes
        _receive(response, part, version, offset if continued else 0, most)
    size = part.stat().st_size
    if version.num_bytes is not None and size != version.num_bytes:
        raise Interrupted(f"{size:,} bytes came instead of {version.num_bytes:,}")


def announced_size(part: Path) -> int | None:
    """The length that the server gave for the file that ``part`` becomes, None if it gave none."""
    version = _Version.of_part(part)
    return version.num_bytes if version else None


def address_of(part: Path) -> str | None:
    """The address that ``part`` is from, None if there is no part."""
    version = _Version.of_part(part)
    return version.url if version else None


def discard_links(part: Path) -> None:
    """Remove a part, or notes, that lead elsewhere: writing to them would overwrite what is there.

    A folder of a stranger's may hold links to any file, and pipes, which block whoever opens them.
    """
    for path in (part, _notes(part)):
        if path.is_symlink() or (path.exists() and not path.is_file()):
            path.unlink()


def discard(part: Path) -> None:
    """Remove a part with what was noted of it."""
    part.unlink(missing_ok=True)
    _notes(part).unlink(missing_ok=True)


@dataclass(frozen=True)
class _Version:
    """Which state of the file behind an address some bytes are of."""

    url: str
    validator: str | None  # a strong ETag or a date, as If-Range takes them
    num_bytes: int | None  # of the whole file

    @classmethod
    def of_response(cls, url: str, response: requests.Response) -> _Version:
        tag = response.headers.get("ETag", "")
        strong_tag = tag if tag and not tag.startswith("W/") else None
        length = response.headers.get("Content-Length", "")
        if response.status_code == _PARTIAL:
            length = response.headers.get("Content-Range", "").rpartition("/")[2]
        return cls(
            url=url,
            validator=strong_tag or response.headers.get("Last-Modified"),
            num_bytes=int(length) if length.isdecimal() and len(length) < 20 else None,
        )

    @classmethod
    def of_part(cls, part: Path) -> _Version | None:
        try:
            require_file(_notes(part))
            version = cls(**json.loads(_notes(part).read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError, RecursionError):
            return None  # absent, cut off, of another form
        is_ours = isinstance(version.url, str) and isinstance(version.validator, str | None)
        return version if is_ours and isinstance(version.num_bytes, int | None) else None

    def is_continued_by(self, response: requests.Response, offset: int) -> bool:
        version = _Version.of_response(self.url, response)
        starts = response.headers.get("Content-Range", "").startswith(f"bytes {offset}-")
        # The answer to If-Range may leave out the date that it confirms (RFC 9110, 15.3.7).
        same = version.validator in (None, self.validator) and version.num_bytes == self.num_bytes
        return response.status_code == _PARTIAL and starts and same


class _Session(requests.Session):
    """Follows no redirection to an address that would not be fetched itself."""

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        target = super().get_redirect_target(resp)
        if target is not None:
            target_url = urljoin(resp.url, target)
            try:
                check_address(target_url)
            except ValueError as error:
                raise DownloadError(f"{resp.url} redirects, and {error}") from error
            if urlsplit(resp.url).scheme == "https" != urlsplit(target_url).scheme:
                raise DownloadError(f"{resp.url} redirects to {target_url}, which is not https")
        return target


def _request(
    session: _Session, url: str, kept: _Version | None, offset: int, timeout_seconds: float
) -> requests.Response:
    """Ask for the file, or for its bytes from ``offset`` on; the answer's body is still unread."""
    headers = {"Accept-Encoding": "identity"}  # bytes as they are stored: sizes must compare
    if offset and kept and kept.validator:
        headers |= {"Range": f"bytes={offset}-", "If-Range": kept.validator}
    timeouts = (min(timeout_seconds, _CONNECT_SECONDS), timeout_seconds)
    try:
        response = session.get(url, headers=headers, stream=True, timeout=timeouts)
    except DownloadError:
        raise
    except requests.exceptions.SSLError as error:
        if "certificate verify failed" not in str(error):
            raise Interrupted(_cause(error)) from error
        raise DownloadError(f"{url} has no certificate to be trusted: {_cause(error)}") from error
    except (requests.ConnectionError, requests.Timeout) as error:
        raise Interrupted(_cause(error)) from error
    except OSError as error:  # requests' other errors, and its complaint of REQUESTS_CA_BUNDLE
        raise DownloadError(f"{url}: {error}") from error
    status = f"the server answers {response.status_code} {response.reason}"
    if response.status_code in _STATUSES_OF_A_MOMENT:
        raise Interrupted(status)
    if response.status_code not in (200, _PARTIAL, _RANGE_BEYOND_END):
        raise DownloadError(f"{url}: {status}")
    if response.headers.get("Content-Type", "").startswith("text/html"):
        raise DownloadError(
            f"{url}: a web page came instead of the file, as from a network that asks to log in"
        )
    return response


def _receive(
    response: requests.Response, part: Path, version: _Version, offset: int, most: int | None
) -> None:
    """Write the body to the part, from ``offset`` on, and see it to the disk.

    No more than a block beyond ``most`` bytes is written: a server may send without end.
    """
    num_bytes = offset
    with part.open("ab" if offset else "wb") as file:
        if not offset:  # the bytes of another version are gone by now
            _notes(part).write_text(json.dumps(asdict(version)), encoding="utf-8")
        with tqdm(
            desc=part.stem,
            total=version.num_bytes,
            initial=offset,
            unit="B",
            unit_scale=True,
            disable=None,  # shown where stderr is a terminal
        ) as progress:
            for block in _blocks(response):
                file.write(block)
                progress.update(len(block))
                num_bytes += len(block)
                if most is not None and num_bytes > most:
                    break
        file.flush()
        os.fsync(file.fileno())


def _blocks(response: requests.Response) -> Iterator[bytes]:
    """Yield the body; apart from the writing, so that the two kinds of OSError stay apart."""
    try:
        yield from response.raw.stream(_TRANSFER_BYTES, decode_content=False)
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise Interrupted(str(error)) from error


def _cause(error: Exception) -> str:
    """What is inside requests' wrapping, which names the pool of connections as well."""
    inner = error.args[0] if error.args else error
    return str(getattr(inner, "reason", None) or inner)


def _notes(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
