"""IMDB from the hub: one split's file at a time, from the cache without a network.

The hub is a small server that answers as the real one does and records the requests. The clients
read its address when they are imported, so each case runs in a process of its own.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.processes import Processes
from helpers.trainings import ended

COMMIT = "e" * 40
FILES = "/datasets/stanfordnlp/imdb/resolve/"


def print_loaded(what: str) -> int:
    """Print texts, labels and class names as JSON, or an error's type and message."""
    from sentiment.config.config import DataConfig
    from sentiment.data.reviews import load_split, load_training_splits

    assert "datasets" not in sys.modules and "huggingface_hub" not in sys.modules
    data = DataConfig(source="imdb", validation="random", validation_share=0.2)
    try:
        loaded = load_training_splits(data) if what == "training" else [load_split(data, what)]
    except Exception as error:
        print(json.dumps([type(error).__name__, str(error)]))
    else:
        print(json.dumps([[r.texts, r.labels.tolist(), list(r.class_names)] for r in loaded]))
    return 0


def parquet(split: str, labels: list[int]) -> bytes:
    sink = io.BytesIO()
    texts = [f"{split} review {number}" for number in range(len(labels))]
    pq.write_table(pa.table({"text": texts, "label": labels}), sink)
    return sink.getvalue()


STORED = {
    "plain_text/train-00000-of-00001.parquet": parquet("train", [0] * 10 + [1] * 10),
    "plain_text/test-00000-of-00001.parquet": parquet("test", [0, 1, 1]),
    "plain_text/unsupervised-00000-of-00001.parquet": parquet("unsupervised", [-1, -1]),
}


class Handler(BaseHTTPRequestHandler):
    """Answers for the repository's files."""

    protocol_version = "HTTP/1.1"
    server: Hub

    def do_GET(self) -> None:
        self.server.requests.append(self.path)
        path = self.path.split("?")[0]
        if (name := path.removeprefix(FILES).partition("/")[2]) in STORED:
            headers = {"ETag": f'"{digest(name)}"', "X-Repo-Commit": COMMIT}
            self.answer(STORED[name], headers=headers)
        else:
            self.answer(b"", status=404, headers={"X-Error-Code": "EntryNotFound"})

    do_HEAD = do_GET

    def answer(self, body: bytes, *, status: int = 200, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing: the test reads what was requested."""


class Hub(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[str] = []

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def splits_requested(self) -> set[str]:
        """Splits whose files were asked for, not only listed, since the last call."""
        requests, self.requests = self.requests, []
        names = [path for path in requests if path.startswith(FILES) and ".parquet" in path]
        return {Path(name).name.split("-")[0] for name in names}


def digest(name: str) -> str:
    return hashlib.sha1(STORED[name]).hexdigest()


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def load(what: str, endpoint: str, cache: Path, **settings: str) -> Any:
    """What a process of its own loads and prints."""
    unset = {
        name: ""
        for name in os.environ
        if name.startswith(("HF_", "HUGGINGFACE_")) or name.lower().endswith("_proxy")
    }
    environment = {**unset, "HF_ENDPOINT": endpoint, "HF_HOME": str(cache), **settings}
    out, _ = ended(Processes(print_loaded, what, environments=[environment]), 60)
    return json.loads(out)


def test_training_downloads_no_other_split(hub, tmp_path):
    train, validation = load("training", hub.endpoint, tmp_path)
    assert hub.splits_requested() == {"train"}
    assert (len(train[0]), len(validation[0])) == (16, 4)
    assert sorted(train[0] + validation[0]) == sorted(f"train review {n}" for n in range(20))
    assert train[2] == validation[2] == ["neg", "pos"]
    # Again without a network: from the cache, be it said or not that there is none.
    nowhere = "http://127.0.0.1:9"
    assert load("training", nowhere, tmp_path, HF_HUB_OFFLINE="1") == [train, validation]
    assert load("validation", nowhere, tmp_path) == [validation]
    (test,) = load("test", hub.endpoint, tmp_path)
    assert hub.splits_requested() == {"test"}
    assert test == [[f"test review {n}" for n in range(3)], [0, 1, 1], ["neg", "pos"]]
    (unlabelled,) = load("unsupervised", hub.endpoint, tmp_path)
    assert hub.splits_requested() == {"unsupervised"}
    assert unlabelled[:2] == [["unsupervised review 0", "unsupervised review 1"], [-1, -1]]


@pytest.mark.parametrize("offline", ["0", "1"])
def test_hub_out_of_reach(tmp_path, offline):
    start = time.monotonic()
    error, message = load("training", "http://127.0.0.1:9", tmp_path, HF_HUB_OFFLINE=offline)
    assert time.monotonic() - start < 15  # the clients' own retries take 23 s
    assert error == "FileNotFoundError"
    assert "IMDB's train split is not in the cache" in message
    assert "can't be reached or read" in message
    assert message.endswith("give a local copy with --data.path FOLDER")
    assert "\n" not in message
