"""Downloads that end well, the cache that they go to, and the archives that are known."""

from __future__ import annotations

import gzip
import hashlib
import logging
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
from helpers.file_server import CONTENT, QUICK, environment, part_of

from sentiment.config.sections import VectorsName
from sentiment.data import download as download_module
from sentiment.data.download import KNOWN_VECTORS, DownloadError, Patience, download, fetch_vectors


class TestWholeDownload:
    def test_file_is_there_and_nothing_else_is_left(self, server, target, capsys):
        assert download(server.url, target, patience=QUICK) == target
        assert target.read_bytes() == CONTENT
        assert {path.name for path in target.parent.iterdir()} <= {target.name, "vectors.zip.lock"}
        assert capsys.readouterr().err == ""  # no progress bar where there is no terminal

    def test_is_downloaded_once(self, server, target):
        download(server.url, target, patience=QUICK)
        download(server.url, target, patience=QUICK)
        assert len(server.requests) == 1

    def test_a_file_of_another_size_than_the_published_is_replaced(self, server, target):
        target.parent.mkdir()
        target.write_bytes(b"half of it, copied by hand")
        download(server.url, target, num_bytes=len(CONTENT), patience=QUICK)
        assert target.read_bytes() == CONTENT

    def test_redirection_is_followed(self, server, target):
        server.faults = [server.url]
        assert download(server.url, target, patience=QUICK).read_bytes() == CONTENT
        assert len(server.requests) == 2

    @pytest.mark.parametrize("fault", ["500", "503", "429"])
    def test_a_busy_server_is_asked_again(self, server, target, fault):
        server.faults = [fault]
        assert download(server.url, target, patience=QUICK).read_bytes() == CONTENT

    def test_waits_double(self, server, target, monkeypatch):
        waits: list[float] = []
        monkeypatch.setattr(download_module.time, "sleep", waits.append)
        server.faults = ["503"] * 4
        with pytest.raises(DownloadError, match="503 Service Unavailable, after 4 attempts"):
            download(server.url, target, patience=Patience(4, 0.5, 1.0))
        assert waits == [0.5, 1.0, 2.0]

    def test_gz_and_plain_text(self, server, tmp_path):
        server.content = gzip.compress(CONTENT)
        packed = download(server.url, tmp_path / "vectors.gz", patience=QUICK)
        assert gzip.decompress(packed.read_bytes()) == CONTENT
        server.content = b"good 1 2 3\n"
        plain = download(server.url, tmp_path / "vectors.txt", patience=QUICK)
        assert plain.read_bytes() == b"good 1 2 3\n"


class TestDisk:
    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
    def test_full(self, server, target, monkeypatch):
        monkeypatch.setattr(download_module, "discard_links", lambda part: None)
        target.parent.mkdir()
        part_of(target).symlink_to("/dev/full")
        with pytest.raises(OSError, match=r"cannot be written .*No space left.*data\.cache_dir"):
            download(server.url, target, patience=QUICK)
        assert len(server.requests) == 1  # another attempt would fill it no less
        assert not target.exists()

    def test_folder_that_cannot_be_written(self, server, tmp_path):
        (tmp_path / "cache").write_text("a file, where a folder should be")
        with pytest.raises(OSError, match=r"cannot be written .*data\.cache_dir") as caught:
            download(server.url, tmp_path / "cache" / "vectors.zip", patience=QUICK)
        assert not isinstance(caught.value, DownloadError)
        assert server.requests == []

    def test_file_that_is_there_needs_no_writing(self, tmp_path, monkeypatch):
        (tmp_path / "vectors.zip").write_bytes(CONTENT)
        monkeypatch.setattr(download_module, "FileLock", None)
        assert download("https://127.0.0.1:1/", tmp_path / "vectors.zip").exists()


class TestTwoProcesses:
    def test_one_downloads_and_both_have_it(self, server, target):
        server.faults = ["slow"]  # so that the second one comes in the middle
        code = (
            "import sys; from pathlib import Path; from sentiment.data.download import download; "
            "print(download(sys.argv[1], Path(sys.argv[2])))"
        )
        arguments = [sys.executable, "-c", code, server.url, str(target)]
        processes = [
            subprocess.Popen(arguments, env=environment(), stdout=subprocess.PIPE, text=True)
            for _ in range(2)
        ]
        for process in processes:
            assert process.communicate(timeout=30)[0].strip() == str(target)
        assert target.read_bytes() == CONTENT
        assert len(server.requests) == 1

    def test_waiting_is_said(self, server, target, caplog):
        server.faults = ["stall"]
        patience = Patience(1, 0, 5)
        threads = [
            threading.Thread(target=download, args=(server.url, target), kwargs={"patience": p})
            for p in (patience, patience)
        ]
        with caplog.at_level(logging.WARNING):
            for thread in threads:
                thread.start()
            deadline = time.monotonic() + 5
            while "waiting for it" not in caplog.text and time.monotonic() < deadline:
                time.sleep(0.01)
            server.released.set()
            for thread in threads:
                thread.join()
        assert "another process is downloading" in caplog.text
        assert target.read_bytes() == CONTENT
        assert len(server.requests) == 1


class TestKnownVectors:
    def test_are_those_that_the_settings_name(self):
        assert set(KNOWN_VECTORS) == set(get_args(VectorsName))
        for name, archive in KNOWN_VECTORS.items():
            assert archive.member == f"{name}.txt"
            assert name.endswith(f".{archive.dimension}d")
            assert archive.urls[0] == f"https://nlp.stanford.edu/data/{archive.file_name}"
            assert all(url.startswith("https://") for url in archive.urls)
            assert len(bytes.fromhex(archive.sha256)) == 32
        assert len({archive.file_name for archive in KNOWN_VECTORS.values()}) == 2

    @pytest.fixture
    def know(self, monkeypatch: pytest.MonkeyPatch):
        def know_vectors(*urls: str) -> None:
            archive = replace(
                KNOWN_VECTORS["glove.6B.50d"],
                urls=urls,
                num_bytes=len(CONTENT),
                sha256=hashlib.sha256(CONTENT).hexdigest(),
            )
            monkeypatch.setitem(KNOWN_VECTORS, "glove.6B.50d", archive)

        return know_vectors

    def test_are_fetched_once(self, server, tmp_path, know):
        know(server.url)
        for _ in range(2):
            path = fetch_vectors("glove.6B.50d", tmp_path, patience=QUICK)
            assert path == tmp_path / "glove.6B.zip"
            assert path.read_bytes() == CONTENT
        assert len(server.requests) == 1

    def test_come_from_the_second_address_if_the_first_fails(self, server, tmp_path, know):
        know("http://127.0.0.1:1/vectors.zip", server.url)
        path = fetch_vectors("glove.6B.50d", tmp_path, patience=QUICK)
        assert path.read_bytes() == CONTENT

    def test_go_on_from_the_address_that_they_were_begun_at(self, server, tmp_path, know):
        know(f"{server.url}?1", f"{server.url}?2")
        server.faults = ["404", "cut"]
        once = replace(QUICK, num_attempts=1)
        with pytest.raises(DownloadError):
            fetch_vectors("glove.6B.50d", tmp_path, patience=once)
        server.requests.clear()
        fetch_vectors("glove.6B.50d", tmp_path, patience=once)
        assert [request.get("Range") for request in server.requests] == [
            f"bytes={len(CONTENT) // 2}-"
        ]

    def test_without_a_network_the_message_says_what_to_do(self, tmp_path, know):
        know("http://127.0.0.1:1/vectors.zip")
        with pytest.raises(DownloadError) as caught:
            fetch_vectors("glove.6B.50d", tmp_path, patience=QUICK)
        message = str(caught.value)
        assert "the vectors glove.6B.50d could not be downloaded" in message
        assert "Connection refused" in message
        assert "download http://127.0.0.1:1/vectors.zip yourself" in message
        assert "--vectors.path FILE, or pass --vectors.name null" in message
        assert "\n" not in message

    def test_unknown_name(self, tmp_path):
        with pytest.raises(ValueError, match=r"no vectors 'glove\.6B\.42d': choose .*6B\.50d"):
            fetch_vectors("glove.6B.42d", tmp_path)
