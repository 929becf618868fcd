"""A server on this machine that serves one file, and cuts, stalls and lies when told to."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

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
