"""One attempt at fetching an address into a part file, going on from what an earlier one left.

``PART.json`` beside the part says which version of which address it is of. A part is continued
only if the server confirms that version (``Range`` with ``If-Range``, RFC 9110 section 13.1.5);
whatever else the server answers, the part starts over.

``requests``, because it always verifies certificates: it brings its own authorities (certifi,
which also serves where Python finds none, as on macOS) and makes its own TLS context. torchtext
0.6.0 replaces ``ssl._create_default_https_context`` by one that verifies nothing as soon as a
``Vectors`` is made; ``urllib.request`` would follow it without a word.
"""

from __future__ import annotations

import ipaddress
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import requests
import urllib3
from tqdm import tqdm

from sentiment.bounds import require_file

_BLOCK_BYTES = 1 << 16
_CONNECT_SECONDS = 10.0  # a server that is there answers this much sooner than it may pause
_PARTIAL, _RANGE_BEYOND_END = 206, 416
_STATUSES_OF_A_MOMENT = {408, 429, 500, 502, 503, 504}


class DownloadError(OSError):
    """A file could not be got, or is not what it must be; the message is for users."""


class Interrupted(Exception):
    """An attempt failed in a way in which another one may not."""


def check_address(url: str) -> None:
    """Raise ValueError for what is not verified HTTPS; plain HTTP may only go to this machine."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme == "https" and host:
        return
    if parts.scheme == "http" and (host == "localhost" or _is_loopback(host)):
        return
    raise ValueError(f"{url} is not fetched, for nothing proves whose it is: give an https:// one")


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
        yield from response.raw.stream(_BLOCK_BYTES, decode_content=False)
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
