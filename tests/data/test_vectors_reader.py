"""The reader of vectors against a naive one, and within its time and memory."""

from __future__ import annotations

import gzip
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from helpers.vectors_files import load
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from sentiment.data import vectors as archives


def naive_reader(content: bytes, words: list[str], dimension: int) -> tuple[dict, list[int]]:
    """The vectors and the malformed lines, each line judged on its own, all of it in memory."""
    found: dict[str, list[float]] = {}
    malformed = []
    for number, raw in enumerate(content.split(b"\n"), start=1):
        fields = raw.replace(b"\t", b" ").rstrip(b" \r").split(b" ")
        if fields == [b""]:
            continue
        if number == 1 and len(fields) == 2 and all(field.isdigit() for field in fields):
            continue
        try:
            word = b" ".join(fields[:-dimension]).decode()
        except UnicodeDecodeError:
            malformed.append(number)
            continue
        extra = fields[1:-dimension]
        if len(fields) <= dimension or (extra and as_number(extra[-1]) is not None):
            malformed.append(number)
        elif word in words[1:] and word not in found:
            numbers = [as_number(field) for field in fields[-dimension:]]
            values = [value for value in numbers if value is not None]
            if len(values) == dimension:
                found[word] = values
            else:
                malformed.append(number)
    return found, malformed


def as_number(field: bytes) -> float | None:
    try:
        number = torch.tensor(float(field), dtype=torch.float32).item()
    except ValueError:
        return None
    return number if math.isfinite(number) else None


NUMBERS = st.one_of(
    st.floats(width=32, allow_nan=False, allow_infinity=False).map(repr),
    st.sampled_from(["1", "-.5", "2.50000", "1e-3", "nan", "inf", "x", "", "1e39", "1_0"]),
)
PIECES = st.sampled_from(["good", "bad", "film", "zzz", "<unk>", "<pad>", "good bad", ".", "é", ""])


@st.composite
def vectors_lines(draw: st.DrawFn) -> bytes:
    dimension = draw(st.sampled_from([2, 2, 2, 2, 1, 3]))
    fields = [draw(PIECES), *draw(st.lists(NUMBERS, min_size=dimension, max_size=dimension))]
    return " ".join(fields).encode() + draw(st.sampled_from([b"", b"", b" ", b"\r"]))


LINES_STRATEGY = st.lists(
    st.one_of(vectors_lines(), vectors_lines(), st.binary(max_size=12), st.just(b"12 2")),
    max_size=12,
)


@given(lines=LINES_STRATEGY, block_bytes=st.integers(1, 40))
@example(lines=[b"good 1 x", b"good 1 2", b"good 4 5", b"bad 1 1", b"bad 2"], block_bytes=40)
@example(lines=[b"good bad 1 2", b"good 4 5", b"bad good 7 8"], block_bytes=40)
@example(lines=[b"good 1 2", b"bad 3 4 ", b"film 5 6\r", b"", b"\xc3\xa9 7 8 \r"], block_bytes=40)
@settings(max_examples=250, deadline=None)
def test_equals_a_naive_reader(lines, block_bytes):
    content = b"\n".join(lines)
    assume(not content.startswith(tuple(archives._OTHER_FORMATS)))
    assume(not archives._is_word2vec(content))
    words = ["<pad>", "<unk>", "good", "bad", "film", "good bad", "é", "absent", "12"]
    counts = [0, 0, 8, 7, 6, 5, 4, 3, 2]
    found, malformed = naive_reader(content, words, dimension=2)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(archives, "BLOCK_BYTES", block_bytes)
        path = Path(folder) / "vectors.txt"
        path.write_bytes(content)
        try:
            matrix, coverage = load(path, words=words, counts=counts, dimension=2)
        except ValueError as error:
            if "-dimensional vectors" in str(error):
                num_lines = sum(bool(raw.rstrip(b" \r")) for raw in content.split(b"\n"))
                assert 2 * len(malformed) > num_lines - 1  # the first may be a header
            else:
                assert not set(found) - {"<unk>"}
            return
    for row, word in enumerate(words):
        if word in found:
            assert matrix[row].tolist() == found[word]
    missed = tuple(word for word in words[2:] if word not in found)
    assert coverage.most_frequent_missed == missed
    assert coverage.tokens_found == sum(counts) - sum(counts[words.index(w)] for w in missed)
    assert coverage.num_malformed == len(malformed)
    assert coverage.malformed_lines == tuple(malformed[:10])


MEASURED_READING = """
import json, re, sys, time
from pathlib import Path
import torch
from sentiment.data.vectors import load_vectors
words = ["<pad>", "<unk>", *(f"w{number}" for number in range(0, 400_000, 8))]
start = time.perf_counter()
matrix, coverage = load_vectors(
    Path(sys.argv[1]), words, [1] * len(words),
    dimension=int(sys.argv[2]), generator=torch.Generator().manual_seed(0),
)
seconds = time.perf_counter() - start
# Not getrusage: its peak includes what the parent held when it started this process.
status = Path("/proc/self/status").read_text()
peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1]) / 1024
print(json.dumps([seconds, peak, coverage.types_found]))
"""


def measure(path: Path, dimension: int) -> tuple[float, float, int]:
    """Read in a new process; return the seconds, its peak in MiB and the words found."""
    arguments = [sys.executable, "-c", MEASURED_READING, str(path), str(dimension)]
    environment = {**os.environ, "PYTHONPATH": str(Path(archives.__file__).parents[2])}
    result = subprocess.run(arguments, capture_output=True, text=True, env=environment, check=True)
    seconds, peak, found = json.loads(result.stdout)
    return seconds, peak, found


needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@needs_linux
def test_a_line_without_an_end_takes_no_memory(tmp_path):
    path = tmp_path / "vectors.txt.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(b"w0 1 2 3\n")
        for _ in range(200):
            file.write(b"1 " * (1 << 19))  # 200 MiB altogether
        file.write(b"\nw8 1 2 3\n")
    _, peak, found = measure(path, 3)
    assert found == 2
    assert peak < 400


@pytest.mark.long
@needs_linux
def test_a_gigabyte_within_its_time_and_memory(tmp_path):
    path = tmp_path / "big.300d.txt"
    numbers = torch.randn(997, 300, generator=torch.Generator().manual_seed(0)).tolist()
    rows = [" ".join(f"{number:.5f}" for number in row).encode() for row in numbers]
    with path.open("wb") as file:
        for number in range(400_000):
            file.write(b"w%d %b\n" % (number, rows[number % 997]))
    seconds, peak, found = measure(path, 300)
    print(f"{path.stat().st_size / 1e9:.2f} GB in {seconds:.1f} s, {peak:.0f} MiB at most")
    assert found == 50_000
    assert seconds < 15
    assert peak < 500
