"""Downloads of vectors: whole or absent, resumed, from trusted servers alone."""

from __future__ import annotations

import hashlib
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sentiment.config.sections import VectorsName
from sentiment.data import download
from sentiment.data.download import KNOWN_VECTORS, DownloadError, fetch_vectors

NAME = "glove.6B.50d"
CONTENT = b"".join(b"word%d\n" % number for number in range(40_000))  # several blocks
OTHER_CONTENT = CONTENT[::-1]
HALF = 2 << 16  # where it is cut: a multiple of the blocks that are written


class Handler(BaseHTTPRequestHandler):
    """Serves the server's content and ranges of it, with the next one of the server's faults."""

    server: FileServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:  # the name that http.server calls
        server = self.server
        server.ranges.append(self.headers.get("Range"))
        fault = server.faults.pop(0) if server.faults else ""
        start = int((self.headers.get("Range") or "bytes=0-")[len("bytes=") : -1])
        content = OTHER_CONTENT if fault == "other content" else server.content
        if fault.isdecimal():
            self.answer(int(fault), b"an error page")
        elif fault.startswith(("http://", "https://")):
            self.answer(302, b"", Location=fault)
        elif fault == "web page":
            self.answer(200, b"<html>log in</html>")
        elif fault == "endless":
            self.answer(200, content * 3, length=None)
        elif start and fault != "no ranges":
            start += fault == "wrong range"
            span = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self.answer(206, content[start:], fault, **{"Content-Range": span})
        else:
            self.answer(200, content, fault)

    def answer(
        self, status: int, body: bytes, fault: str = "", length: int | None = 0, **headers: str
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if length is not None:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.close_connection = True
        self.wfile.write(body[:HALF])
        if fault == "cut":
            return
        if fault == "stall":
            self.server.released.wait(5)
        self.wfile.write(body[HALF:])

    def log_message(self, *args: object) -> None:
        pass


class FileServer(ThreadingHTTPServer):
    """A file at every path, the ranges that were requested, and the faults to come."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.faults: list[str] = []
        self.ranges: list[str | None] = []
        self.released = threading.Event()
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/vectors.zip"

    def handle_error(self, *args: object) -> None:
        pass  # clients that hang up are part of some tests

    def close(self) -> None:
        self.released.set()
        self.shutdown()
        self.server_close()


def part_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """A server of the archive of glove.6B.50d on this machine; attempts follow one another fast."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setattr(download, "_WAIT_SECONDS", (0.001,) * 3)
    monkeypatch.setattr(download, "_TIMEOUT_SECONDS", (1.0, 0.3))
    server = FileServer()
    archive = replace(
        KNOWN_VECTORS[NAME],
        urls=(server.url,),
        num_bytes=len(CONTENT),
        sha256=hashlib.sha256(CONTENT).hexdigest(),
    )
    monkeypatch.setitem(KNOWN_VECTORS, NAME, archive)
    yield server
    server.close()


@pytest.fixture
def set_urls(monkeypatch):
    return lambda *urls: monkeypatch.setitem(
        KNOWN_VECTORS, NAME, replace(KNOWN_VECTORS[NAME], urls=urls)
    )


def fetch(folder: Path) -> bytes:
    return fetch_vectors(NAME, folder).read_bytes()


def leave_half(server: FileServer, folder: Path) -> Path:
    """Have a download end in the middle; return its part."""
    server.faults = ["cut", "404", "404", "404"]
    with pytest.raises(DownloadError):
        fetch(folder)
    server.ranges.clear()
    part = part_of(folder / "glove.6B.zip")
    assert part.read_bytes() == CONTENT[:HALF]
    return part


def test_known_vectors_are_those_of_the_settings():
    assert set(KNOWN_VECTORS) == set(get_args(VectorsName))
    for archive in KNOWN_VECTORS.values():
        assert archive.urls[0] == f"https://nlp.stanford.edu/data/{archive.file_name}"
        assert all(url.startswith("https://") for url in archive.urls)
        assert len(bytes.fromhex(archive.sha256)) == 32
    assert len({archive.file_name for archive in KNOWN_VECTORS.values()}) == 2
    with pytest.raises(ValueError, match=r"no vectors 'glove\.6B\.42d': choose .*6B\.50d"):
        fetch_vectors("glove.6B.42d", Path())


def test_vectors_are_downloaded_once(server, tmp_path, capsys):
    for _ in range(2):
        assert fetch_vectors(NAME, tmp_path) == tmp_path / "glove.6B.zip"
    assert fetch(tmp_path) == CONTENT
    assert {path.name for path in tmp_path.iterdir()} <= {"glove.6B.zip", "glove.6B.zip.lock"}
    assert server.ranges == [None]
    assert capsys.readouterr().err == ""  # no progress bar without a terminal


@pytest.mark.parametrize("fault", ["503", "404", "cut", "stall", "416", "web page"])
def test_faults_are_retried(server, tmp_path, fault):
    server.faults = [fault]
    assert fetch(tmp_path) == CONTENT
    assert server.ranges == [None, f"bytes={HALF}-" if fault in ("cut", "stall") else None]


@pytest.mark.parametrize(
    ("fault", "ranges"),
    [("", [HALF]), ("no ranges", [HALF]), ("wrong range", [HALF, None]), ("416", [HALF, None])],
)
def test_the_next_run_resumes_or_starts_over(server, tmp_path, fault, ranges):
    leave_half(server, tmp_path)
    server.faults = [fault]
    assert fetch(tmp_path) == CONTENT
    assert server.ranges == [offset and f"bytes={offset}-" for offset in ranges]


def test_a_complete_part_is_not_downloaded_again_but_a_file_of_another_size_is(server, tmp_path):
    leave_half(server, tmp_path).write_bytes(CONTENT)
    assert fetch(tmp_path) == CONTENT
    assert server.ranges == []
    (tmp_path / "glove.6B.zip").write_bytes(b"half of it, copied by hand")
    assert fetch(tmp_path) == CONTENT


@pytest.mark.parametrize(
    ("faults", "message"),
    [
        (["cut", "503", "503", "503"], "503 Service Unavailable, after 4 attempts"),
        (["other content"], "its SHA-256 is .* instead of"),
        (["endless"], "its SHA-256 is"),
        (["web page"] * 4, "it has 19 bytes instead of .*: it is not the published file"),
        (["http://127.0.0.1:1/"] * 4, "Connection refused"),
    ],
)
def test_broken_downloads_leave_no_file(server, tmp_path, faults, message):
    server.faults = [*faults]
    if faults == ["endless"]:
        server.content = b"x" + CONTENT[1:]
    with pytest.raises(DownloadError, match=message) as caught:
        fetch(tmp_path)
    assert server.url in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "glove.6B.zip").exists()
    part = part_of(tmp_path / "glove.6B.zip")
    assert not part.exists() or part.stat().st_size < len(CONTENT)
    server.content = CONTENT
    assert fetch(tmp_path) == CONTENT


@given(
    st.lists(
        st.sampled_from(
            ["cut", "no ranges", "other content", "wrong range", "endless", "503", "416", "404",
             "web page"]
        ),
        max_size=5,
    )
)  # fmt: skip
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_the_server_does_the_file_is_whole_or_absent(server, faults):
    server.faults = list(faults)
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(7):  # each uses up at least one fault, and the last may discard a part
            try:
                assert fetch(Path(folder)) == CONTENT
                return
            except DownloadError:
                assert not Path(folder, "glove.6B.zip").exists()
    raise AssertionError("no attempt succeeded")


def test_without_a_network_the_message_says_what_to_do(server, tmp_path, set_urls):
    set_urls("http://127.0.0.1:1/vectors.zip")
    with pytest.raises(DownloadError) as caught:
        fetch(tmp_path)
    message = str(caught.value)
    assert message.startswith("the vectors glove.6B.50d could not be downloaded (http://127")
    assert "Connection refused" in message
    assert f"download http://127.0.0.1:1/vectors.zip yourself and save it as {tmp_path}" in message
    assert "--vectors.path FILE, or pass --vectors.name null" in message
    assert "\n" not in message
    set_urls("http://127.0.0.1:1/vectors.zip", server.url)  # the second address follows the first
    assert fetch(tmp_path) == CONTENT


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_named_and_not_tried_again(server, tmp_path):
    part_of(tmp_path / "glove.6B.zip").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"cannot be written .*No space left.*data\.cache_dir"):
        fetch(tmp_path)
    assert len(server.ranges) == 1


def test_a_folder_that_cannot_be_written_is_named(server, tmp_path):
    (tmp_path / "cache").write_text("a file, where a folder should be")
    with pytest.raises(OSError, match=r"cannot be written .*data\.cache_dir") as caught:
        fetch(tmp_path / "cache")
    assert not isinstance(caught.value, DownloadError)
    assert server.ranges == []


def test_a_second_download_waits_for_the_first(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "_TIMEOUT_SECONDS", (1.0, 5.0))
    server.faults = ["stall"]
    threads = [threading.Thread(target=fetch, args=(tmp_path,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    threads[1].join(0.2)
    server.released.set()
    for thread in threads:
        thread.join()
    assert fetch(tmp_path) == CONTENT
    assert len(server.ranges) == 1


@pytest.mark.parametrize("url", ["http://nlp.stanford.edu/a.zip", "http://127.0.0.1@evil.org/a"])
def test_nothing_but_https_is_spoken(server, tmp_path, set_urls, url):
    set_urls(url)
    with pytest.raises(DownloadError, match="No connection adapters"):
        fetch(tmp_path)
