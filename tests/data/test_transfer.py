"""Downloads that are cut, stalled, lied about or changed: resumed, started over or refused."""

from __future__ import annotations

import gzip
import hashlib
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.file_server import CONTENT, OTHER_CONTENT, QUICK, FileServer, part_of
from hypothesis import given, settings
from hypothesis import strategies as st

from sentiment.data.download import DownloadError, download

FAULTS = ["cut", "long", "short", "flip", "no ranges", "changed", "elsewhere"]
FAULTS += ["503", "416", "404", "web page", "unannounced"]


def leave_half(server: FileServer, target: Path) -> int:
    """Have a run end in the middle; return the bytes that it left."""
    server.faults = ["cut"]
    with pytest.raises(DownloadError):
        download(server.url, target, patience=replace(QUICK, num_attempts=1))
    server.requests.clear()
    assert not target.exists()
    assert 0 < part_of(target).stat().st_size < len(CONTENT)
    return part_of(target).stat().st_size


class TestResuming:
    def test_goes_on_where_it_was_cut(self, server, target):
        server.faults = ["cut"]
        assert download(server.url, target, patience=QUICK).read_bytes() == CONTENT
        assert server.requests[1]["Range"] == f"bytes={len(CONTENT) // 2}-"
        assert server.requests[1]["If-Range"] == '"first"'

    def test_the_next_run_goes_on(self, server, target):
        kept = leave_half(server, target)
        assert download(server.url, target, patience=QUICK).read_bytes() == CONTENT
        assert [request["Range"] for request in server.requests] == [f"bytes={kept}-"]

    def test_a_date_will_do_where_there_is_no_strong_etag(self, server, target):
        server.headers = {"ETag": 'W/"weak"', "Last-Modified": "Mon, 25 Aug 2014 00:00:00 GMT"}
        leave_half(server, target)
        download(server.url, target, patience=QUICK)
        assert server.requests[0]["If-Range"] == "Mon, 25 Aug 2014 00:00:00 GMT"
        assert target.read_bytes() == CONTENT

    def test_starts_over_where_nothing_tells_the_versions_apart(self, server, target):
        server.headers = {"ETag": 'W/"weak"'}
        leave_half(server, target)
        assert download(server.url, target, patience=QUICK).read_bytes() == CONTENT
        assert "Range" not in server.requests[0]

    @pytest.mark.parametrize(
        ("fault", "num_requests"), [("no ranges", 1), ("elsewhere", 2), ("416", 2)]
    )
    def test_starts_over_where_the_range_is_not_given(self, server, target, fault, num_requests):
        leave_half(server, target)
        server.faults = [fault]
        assert download(server.url, target, patience=QUICK).read_bytes() == CONTENT
        assert len(server.requests) == num_requests

    def test_starts_over_with_the_changed_file(self, server, target):
        leave_half(server, target)
        server.change()
        assert download(server.url, target, patience=QUICK).read_bytes() == OTHER_CONTENT

    def test_starts_over_if_a_range_of_the_changed_file_comes(self, server, target):
        leave_half(server, target)
        server.faults = ["changed"]
        assert download(server.url, target, patience=QUICK).read_bytes() == OTHER_CONTENT

    def test_starts_over_from_another_address(self, server, target):
        leave_half(server, target)
        assert download(f"{server.url}?2", target, patience=QUICK).read_bytes() == CONTENT
        assert "Range" not in server.requests[0]

    def test_starts_over_if_the_notes_are_broken(self, server, target):
        leave_half(server, target)
        part_of(target).with_name("vectors.zip.part.json").write_text('{"url"')
        assert download(server.url, target, patience=QUICK).read_bytes() == CONTENT

    def test_starts_over_if_only_the_notes_are_left(self, server, target):
        leave_half(server, target)
        part_of(target).unlink()
        assert download(server.url, target, patience=QUICK).read_bytes() == CONTENT
        assert "Range" not in server.requests[0]

    def test_a_part_that_only_lacks_its_check_is_not_fetched_again(self, server, target):
        kept = leave_half(server, target)
        with part_of(target).open("ab") as file:
            file.write(CONTENT[kept:])
        assert download(server.url, target, patience=QUICK).read_bytes() == CONTENT
        assert server.requests == []

    def test_a_part_that_is_spoiled_is_not_taken_for_whole(self, server, target):
        kept = leave_half(server, target)
        part_of(target).write_bytes(b"\x00" * kept)
        with pytest.raises(DownloadError, match="is not the file"):
            download(server.url, target, patience=QUICK)
        assert not target.exists()
        assert download(server.url, target, patience=QUICK).read_bytes() == CONTENT


class TestBrokenDownloads:
    """None leaves a file under the name, and the next try starts clean."""

    @pytest.mark.parametrize(
        ("fault", "message"),
        [
            ("cut", "after 3 attempts"),
            ("stall", "timed out"),
            ("long", "after 3 attempts"),
            ("short", "is not the file: it is damaged, cut off"),
            ("flip", "is not the file: the checksum of 'vectors.txt' in it is wrong"),
            ("web page", "a web page came instead"),
            ("disguised page", "is not the file: it is damaged, cut off"),
            ("404", "the server answers 404 Not Found"),
        ],
    )
    def test_zip(self, server, target, fault, message):
        server.faults = [fault] * 3
        start = time.perf_counter()
        with pytest.raises(DownloadError, match=message) as caught:
            download(server.url, target, patience=QUICK)
        assert server.url in str(caught.value)
        assert "\n" not in str(caught.value)
        assert time.perf_counter() - start < 3
        assert not target.exists()
        server.faults, server.requests = [], []
        assert download(server.url, target, patience=QUICK).read_bytes() == CONTENT

    def test_what_another_attempt_cannot_change_is_not_tried_again(self, server, target):
        server.faults = ["404", "404"]
        with pytest.raises(DownloadError, match="404"):
            download(server.url, target, patience=QUICK)
        assert len(server.requests) == 1

    def test_a_web_page_does_not_cost_what_has_come(self, server, target):
        kept = leave_half(server, target)
        server.faults = ["web page"]
        with pytest.raises(DownloadError, match="web page"):
            download(server.url, target, patience=QUICK)
        assert part_of(target).stat().st_size == kept

    def test_checksum(self, server, target):
        sha256 = hashlib.sha256(CONTENT).hexdigest()
        server.content = OTHER_CONTENT  # whole in itself
        with pytest.raises(DownloadError, match=f"its SHA-256 is .* instead of {sha256}"):
            download(server.url, target, sha256=sha256, patience=QUICK)
        assert not target.exists()
        server.content = CONTENT
        download(server.url, target, sha256=sha256, patience=QUICK)
        assert target.read_bytes() == CONTENT

    def test_published_size(self, server, target):
        with pytest.raises(DownloadError, match="bytes long instead of 1,000"):
            download(server.url, target, num_bytes=1_000, patience=QUICK)
        server.faults = ["unannounced"]
        with pytest.raises(DownloadError, match="bytes came, 1,000 were published"):
            download(server.url, target, num_bytes=1_000, patience=QUICK)
        assert not target.exists()

    @pytest.mark.parametrize("length", [0, 1, 50, 5_000, -1])
    def test_cut_off_gz_that_the_server_takes_for_whole(self, server, tmp_path, length):
        server.content = gzip.compress(CONTENT)[:length]
        with pytest.raises(DownloadError, match="damaged, cut off" if length else "it is empty"):
            download(server.url, tmp_path / "vectors.gz", patience=QUICK)
        assert not (tmp_path / "vectors.gz").exists()

    def test_text_without_a_length_or_a_checksum_could_be_half(self, server, tmp_path):
        server.content, server.faults = b"good 1 2 3\n", ["unannounced"]
        with pytest.raises(DownloadError, match="gave no length"):
            download(server.url, tmp_path / "vectors.txt", patience=QUICK)
        assert not (tmp_path / "vectors.txt").exists()

    @given(
        faults=st.lists(st.sampled_from(FAULTS), max_size=6),
        known=st.booleans(),
    )
    @settings(max_examples=30, deadline=None)
    def test_whatever_comes_the_file_is_whole_or_absent(self, faults, known):
        server = FileServer()
        server.faults = list(faults)
        sha256 = hashlib.sha256(CONTENT).hexdigest() if known else None
        try:
            with tempfile.TemporaryDirectory() as folder:
                target = Path(folder) / "vectors.zip"
                for _ in range(7):  # at least one fault is used up in each
                    try:
                        download(server.url, target, sha256=sha256, patience=QUICK)
                    except DownloadError:
                        assert not target.exists()
                    else:
                        assert target.read_bytes() in ((CONTENT, OTHER_CONTENT)[: 2 - known])
                        return
                assert known and "changed" in faults
        finally:
            server.close()
