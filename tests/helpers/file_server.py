"""A server on this machine that serves one file, and cuts, stalls and lies when told to."""

from __future__ import annotations

import io
import os
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import sentiment
from sentiment.data.download import Patience

QUICK = Patience(num_attempts=3, wait_seconds=0.001, timeout_seconds=0.3)


def make_zip(seed: int) -> bytes:
    """A stored zip of some 400 kB, over several of the blocks that are read at once."""
    text = "".join(f"word{number} {seed * number}\n" for number in range(25_000))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("vectors.txt", text)
    return packed.getvalue()


CONTENT, OTHER_CONTENT = make_zip(1), make_zip(2)


class Handler(BaseHTTPRequestHandler):
    """Serves the server's content with ETag and ranges, but for the fault that is next in line."""

    server: FileServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:  # the name that http.server calls
        server = self.server
        server.requests.append(dict(self.headers))
        fault = server.faults.pop(0) if server.faults else ""
        if fault.isdecimal():
            self.answer(int(fault), b"an error page")
        elif fault.startswith(("http://", "https://")):
            self.answer(302, b"", {"Location": fault})
        elif fault == "web page":
            self.answer(200, b"<html>log in</html>", {"Content-Type": "text/html; charset=utf-8"})
        elif fault == "disguised page":
            self.answer(200, b"<html>log in</html>", server.headers)
        elif fault == "flip":
            content = bytearray(server.content)
            content[len(content) // 2] ^= 1
            self.answer(200, bytes(content), server.headers)
        elif fault == "long":
            self.answer(200, server.content, server.headers, announced=len(server.content) + 9)
        elif fault == "short":
            self.answer(200, server.content, server.headers, announced=len(server.content) - 9)
        elif fault == "unannounced":
            self.answer(200, server.content, server.headers, announced=-1)
        elif fault == "no ranges":
            self.answer(200, server.content, server.headers)
        elif fault == "changed":  # and the range is answered in spite of If-Range
            server.change()
            self.answer_range(server.content)
        elif fault == "elsewhere":  # a range, but not the one that was asked for
            self.answer_range(server.content, shift=1)
        else:
            self.answer_truly(fault)

    def answer_truly(self, fault: str) -> None:
        server = self.server
        condition = self.headers.get("If-Range")
        if self.headers.get("Range") and condition in (None, server.headers["ETag"]):
            self.answer_range(server.content, fault=fault)
        else:
            self.answer(200, server.content, server.headers, fault=fault)

    def answer_range(self, content: bytes, *, shift: int = 0, fault: str = "") -> None:
        asked = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-")
        start = max(int(asked) + shift, 0)
        if start >= len(content):
            self.answer(416, b"", {"Content-Range": f"bytes */{len(content)}"})
            return
        span = f"bytes {start}-{len(content) - 1}/{len(content)}"
        headers = {**self.server.headers, "Content-Range": span}
        self.answer(206, content[start:], headers, fault=fault)

    def answer(
        self,
        status: int,
        body: bytes,
        headers: dict[str, str] | None = None,
        *,
        announced: int | None = None,
        fault: str = "",
    ) -> None:
        """Answer; ``announced`` is a Content-Length to lie with, -1 for none."""
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if announced != -1:
            self.send_header("Content-Length", str(len(body) if announced is None else announced))
        self.end_headers()
        self.close_connection = True
        half = len(body) // 2
        self.wfile.write(body[:half])
        if fault == "cut":
            return
        if fault == "stall":
            self.server.released.wait(5)
        if fault == "slow":
            time.sleep(1.5)
        self.wfile.write(body[half:])

    def log_message(self, *args: object) -> None:
        pass


class FileServer(ThreadingHTTPServer):
    """A file at every path, a list of the requests that came, and of the faults to come."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.headers = {"ETag": '"first"', "Content-Type": "application/zip"}
        self.faults: list[str] = []
        self.requests: list[dict[str, str]] = []
        self.released = threading.Event()
        self.scheme = "http"
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def change(self) -> None:
        self.content = OTHER_CONTENT
        self.headers = {**self.headers, "ETag": '"second"'}

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.server_port}/vectors.zip"

    def handle_error(self, *args: object) -> None:
        pass  # a client that hangs up is what some tests are about

    def close(self) -> None:
        self.released.set()
        self.shutdown()
        self.server_close()


def part_of(target: Path) -> Path:
    return target.with_name(f"{target.name}.part")


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(sentiment.__file__).parents[1])}
