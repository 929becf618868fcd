"""Files of vectors: against a naive reader, in every format, and what refusals name, followed."""

import gzip
import json
import math
import os
import re
import struct
import subprocess
import sys
import tempfile
import zipfile
from functools import partial
from pathlib import Path

import pytest
import torch
from helpers.vectors_files import COUNTS, LINES, WORDS, load, pack_zip, word2vec, write_text
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from sentiment.data import vectors
from sentiment.runtime.errors import UserError


@pytest.fixture
def write(tmp_path: Path):
    """Writes a file of vectors: content, and its name."""
    return partial(write_text, tmp_path)


@pytest.fixture
def plain(write):
    return load(write(LINES, "plain.txt"))[0]


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


MALFORMED = [
    b"good 1", b"good 1 2 3", b"good 1 nan", b"good 1 -inf", b"good 1 1e39", b"good 1 three",
    b"good  3", b"good", b"\xff\xfe 1 2", b"\x00",
    b"good " + b"1" * (vectors.MAX_LINE_BYTES + 1) + b" 2",
]  # fmt: skip


@given(lines=LINES_STRATEGY, block_bytes=st.integers(1, 40))
@example(lines=[b"bad 4 5", *MALFORMED, b"film 7 8"], block_bytes=1 << 20)
@example(lines=[b"good 1 x", b"good 1 2", b"good 4 5", b"bad 1 1", b"bad 2"], block_bytes=40)
@example(lines=[b"good bad 1 2", b"good 4 5", b"bad good 7 8"], block_bytes=40)
@example(lines=[b"good 1 2", b"bad 3 4 ", b"film 5 6\r", b"", b"\xc3\xa9 7 8 \r"], block_bytes=40)
@settings(max_examples=250, deadline=None)
def test_equals_a_naive_reader(lines, block_bytes):
    content = b"\n".join(lines)
    assume(not content.startswith(tuple(vectors._OTHER_FORMATS)))
    assume(not vectors._is_word2vec(content))
    words = ["<pad>", "<unk>", "good", "bad", "film", "good bad", "é", "absent", "12"]
    counts = [0, 0, 8, 7, 6, 5, 4, 3, 2]
    found, malformed = naive_reader(content, words, dimension=2)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(vectors, "BLOCK_BYTES", block_bytes)
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
    assert (matrix.dtype, matrix.shape) == (torch.float32, (len(words), 2))
    assert matrix[0].tolist() == [0, 0]
    for row, word in enumerate(words):
        if word in found:
            assert matrix[row].tolist() == found[word]
    missed = tuple(word for word in words[2:] if word not in found)
    assert coverage.most_frequent_missed == missed
    assert coverage.num_types - coverage.types_found == len(missed)
    assert coverage.num_types == len(words) - 2, "without the special ones"
    assert coverage.tokens_found == sum(counts) - sum(counts[words.index(w)] for w in missed)
    assert coverage.num_malformed == len(malformed)
    assert coverage.malformed_lines == tuple(malformed[:10])


def test_missing_words_have_the_deviation_of_the_found_ones_and_repeat(write):
    words = [*WORDS, *(f"missing{number}" for number in range(20_000))]
    path, counts = write(LINES), [1] * len(words)
    matrix, _ = load(path, words=words, counts=counts)
    again, _ = load(path, words=words, counts=counts)
    found = matrix[2:5]
    assert torch.equal(matrix, again)
    assert matrix[6:].std().item() == pytest.approx(found.std(correction=0).item(), rel=0.02)
    assert abs(matrix[6:].mean().item()) < 0.05
    assert matrix[1].abs().min() > 0  # <unk> is drawn like the others
    assert len(matrix[5:].unique(dim=0)) == len(matrix[5:])


def test_words_that_are_no_text_are_missed(write):
    words = ["<pad>", "<unk>", "\x85", "\ud800"]
    matrix, coverage = load(write(["\x85 4 5 6"]), words=words, counts=[1] * 4)
    assert matrix[2].tolist() == [4, 5, 6]
    assert coverage.most_frequent_missed == ("\ud800",)


def test_a_first_word_of_one_value_is_no_header(write):
    one, _ = load(write(["400 3", "good 1"]), words=[*WORDS[:5], "400"], dimension=1)
    assert (one[2].item(), one[5].item()) == (1, 3)


def test_the_summary_counts_words_and_names_malformed_lines_and_frequent_words_missed(write):
    words = [*WORDS, *(f"missing{number}" for number in range(30))]
    malformed = [f"word{number}" for number in range(2_000)]
    counts = [*COUNTS, *range(1000, 1030)]
    _, coverage = load(write([*LINES, *malformed]), words=words, counts=counts)
    names = tuple(f"missing{number}" for number in range(29, 9, -1))
    assert coverage.most_frequent_missed == names, "twenty of them"
    assert coverage.num_malformed == 2_000
    share = 90 / sum(counts)
    first, second = coverage.summary().split("\n")
    assert f"3 of 34 words (8.8%), {share:.1%} of the training tokens" in first
    assert "'missing29', 'missing28'" in first
    assert second == "malformed lines left out: 2,000 (5, 6, 7, 8, 9, 10, 11, 12, 13, 14, …)"


def test_another_dimension_is_named_before_all_is_read(write):
    # The end of this file cannot be read: the verdict must have come before.
    packed = gzip.compress("".join(f"w{n} 1 2 3\n" for n in range(900_000)).encode())
    with pytest.raises(ValueError, match="holds 3-dimensional"):
        load(write(packed[:-8], "vectors.gz"), dimension=50)


def test_half_of_another_dimension_is_no_contradiction(write):
    _, coverage = load(write(["good 1 2 3", "bad 1 2"]))
    assert coverage.num_malformed == 1


def test_missing_file_and_folder(tmp_path):
    for path in (tmp_path / "absent.txt", tmp_path):
        with pytest.raises(FileNotFoundError, match=r"no vectors file .* --vectors\.path"):
            load(path)


@pytest.mark.parametrize("break_lines", [True, False])
def test_word2vec_equals_text(write, plain, tmp_path, break_lines):
    content = word2vec(LINES, break_lines=break_lines)
    with zipfile.ZipFile(tmp_path / "v.zip", "w") as archive:
        archive.writestr("vectors.bin", content)
    packed = write(content, "v.bin"), write(gzip.compress(content), "v.bin.gz")
    for path in (*packed, tmp_path / "v.zip"):
        matrix, coverage = load(path)
        assert torch.equal(matrix, plain)
        assert (coverage.types_found, coverage.num_malformed) == (3, 0)


def test_tabs_and_headers_and_vec_in_a_zip(write, plain, tmp_path):
    tabbed = [line.replace(" ", "\t") for line in LINES]
    assert torch.equal(load(write(tabbed))[0], plain)
    assert torch.equal(load(write(["4 3", *LINES], "wiki.en.vec"))[0], plain)
    zipped = pack_zip(tmp_path, {"wiki.en.vec": ["4 3", *LINES], "wiki.en.bin": ["no vectors"]})
    assert torch.equal(load(zipped)[0], plain)


@given(data=st.data(), block_bytes=st.integers(200, 400))
@settings(max_examples=50, deadline=None)
def test_word2vec_of_any_words_and_blocks(tmp_path_factory, data, block_bytes):
    values = st.floats(width=32, allow_nan=False, allow_infinity=False)
    names = data.draw(st.lists(st.text("abñж", min_size=1, max_size=4), min_size=1, unique=True))
    # The first row decides which format it is: 0.1 is no text.
    rows = [[0.1, 0.1, 0.1]] + [data.draw(st.tuples(values, values, values)) for _ in names[1:]]
    lines = [" ".join([name, *map(repr, row)]) for name, row in zip(names, rows, strict=True)]
    path = write_text(tmp_path_factory.mktemp("vectors"), word2vec(lines), "v.bin")
    words = ["<pad>", "<unk>", *names]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vectors, "BLOCK_BYTES", block_bytes)
        matrix, _ = load(path, words=words, counts=[1] * len(words))
    assert torch.equal(matrix[2:], torch.tensor(rows))


def test_word2vec_that_ends_early_or_lies_is_refused(write):
    content = word2vec(LINES)
    for length in range(len(content) - 15, len(content) - 1):
        with pytest.raises(UserError, match=r"v\.bin is damaged or cut off in row 4 of 4: get it"):
            load(write(content[:length], "v.bin"))
    _, rest = content.split(b"\n", 1)
    with pytest.raises(UserError, match=r"cut off in row 5 of 9,999,999,999"):
        load(write(b"9999999999 3\n" + rest, "v.bin"))
    endless = write(b"9 3\nx " + struct.pack("<3f", 0.1, 0.1, 0.1) + b"y" * (5 << 20), "v.bin")
    with pytest.raises(UserError, match="cut off in row 2 of 9"):
        load(endless)


def test_rows_of_word2vec_that_are_not_finite_are_left_out_and_named(write):
    content = word2vec(["bad 0.1 2 3", "good nan 2 3", "film 1 inf 3"])
    matrix, coverage = load(write(content, "v.bin"))
    assert matrix[3].tolist() == pytest.approx([0.1, 2, 3])
    assert (coverage.types_found, coverage.malformed_lines) == (1, (2, 3))


@pytest.mark.parametrize("name", ["vectors.txt", "vectors.bin", "vectors.zip"])
def test_the_embedding_size_that_is_named_fits(write, tmp_path, name):
    content = word2vec(LINES) if name.endswith(".bin") else "".join(f"{line}\n" for line in LINES)
    path = write(content, name)
    if name == "vectors.zip":
        short = [line[: line.rindex(" ")] for line in LINES]
        path = pack_zip(tmp_path, {"g.3d.txt": LINES, "g.2d.txt": short})
    with pytest.raises(UserError) as refused:
        load(path, dimension=5)
    named = re.search(r"set --model\.embedding_size (?:to )?(\d+(?: or \d+)*)", str(refused.value))
    sizes = [int(size) for size in named[1].split(" or ")]
    assert sizes == ([2, 3] if name == "vectors.zip" else [3])
    for size in sizes:
        assert load(path, dimension=size)[1].types_found == 3


def test_prose_is_not_taken_for_vectors_of_another_dimension(write):
    with pytest.raises(UserError, match="none of the 4 words"):
        load(write(["it was good", "it was bad"] * 800), dimension=50)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("v.txt", "", r"v\.txt holds no vectors: it is empty"),
        ("v.txt", "\n\n", r"v\.txt holds no vectors: it is empty"),
        ("v.txt", "400000 3\n", r"v\.txt holds no vectors: it is empty"),
        ("v.txt", "<unk> 1 2 3\nodd\n", "none of the 4 words .* 2 lines .* left out: 1"),
        ("v.model", b"\x80\x04\x95gensim", "is a pickle, .* save_word2vec_format"),
        ("cc.en.300.bin", b"\xba\x16\x4f\x2f\x0c\0\0\0", "is a fastText model: give the .vec file"),
        ("array.npy", b"\x93NUMPY", "is a NumPy array, which holds no words: give a text file"),
    ],
)
def test_files_without_vectors_are_refused(write, name, content, message):
    with pytest.raises(UserError, match=message):
        load(write(content, name))


@pytest.mark.parametrize("ending", [".gz", ".zip"])
def test_a_packed_file_is_renamed_as_the_message_says(write, plain, tmp_path, ending):
    text = "\n".join(LINES).encode()
    packed = gzip.compress(text)
    if ending == ".zip":
        packed = pack_zip(tmp_path, {"v.txt": LINES}).read_bytes()
    path = write(packed, "vectors.txt")
    with pytest.raises(UserError, match=rf"rename it so that its name ends in \{ending}$"):
        load(path)
    assert torch.equal(load(path.rename(f"{path}{ending}"))[0], plain)


def test_packed_equals_plain(write, plain, tmp_path):
    text = "\n".join(LINES).encode()
    halves = gzip.compress(text[:20]) + gzip.compress(text[20:])  # two members are one text
    assert torch.equal(plain, load(write(halves, "vectors.txt.gz"))[0])
    assert torch.equal(plain, load(pack_zip(tmp_path, {"vectors.txt": LINES}))[0])
    assert torch.equal(plain, load(pack_zip(tmp_path, {"v.txt": LINES}, zipfile.ZIP_STORED))[0])
    # A single text is taken whatever dimension its name says.
    assert torch.equal(plain, load(pack_zip(tmp_path, {"glove.840B.300d.txt": LINES}))[0])


def test_zip_member_of_the_dimension(tmp_path):
    path = pack_zip(
        tmp_path,
        {
            "glove.6B.2d.txt": ["good 1 2"],
            "glove.6B.3d.txt": ["good 1 2 3"],
            "__MACOSX/._glove.6B.3d.txt": ["good 9 9 9"],
            "readme.md": ["good 9 9 9"],
        },
    )
    assert load(path)[0][2].tolist() == [1, 2, 3]
    assert load(path, dimension=2)[0][2].tolist() == [1, 2]
    with pytest.raises(ValueError, match=r"'glove\.6B\.2d\.txt', 'glove\.6B\.3d\.txt', but"):
        load(path, dimension=4)


@pytest.mark.parametrize(
    ("names", "compression", "message"),
    [
        (["vectors.md"], zipfile.ZIP_DEFLATED, r"holds no \.txt, \.vec or \.bin file"),
        (["a.3d.txt", "b.3d.txt"], zipfile.ZIP_DEFLATED, "not exactly one text"),
        (["vectors.txt"], zipfile.ZIP_BZIP2, "neither stored nor deflated"),
    ],
)
def test_unusable_zip_is_refused(tmp_path, names, compression, message):
    with pytest.raises(ValueError, match=message):
        load(pack_zip(tmp_path, dict.fromkeys(names, LINES), compression))


def test_encrypted_zip_is_refused(tmp_path):
    path = pack_zip(tmp_path, {"vectors.txt": LINES})
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x03\x04") + 6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"damaged, truncated or password-protected .*password"):
        load(path)


@pytest.mark.parametrize("name", ["vectors.gz", "vectors.zip"])
def test_any_cut_off_archive_is_named(write, tmp_path, name):
    lines = [f"{word} 1 2 3" for word in WORDS]
    whole = pack_zip(tmp_path, {"vectors.txt": lines}).read_bytes()
    if name == "vectors.gz":
        whole = gzip.compress("\n".join(lines).encode())
    for length in range(1, len(whole)):
        with pytest.raises(ValueError, match=rf"{name} is damaged, truncated"):
            load(write(whole[:length], name))


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
    environment = {**os.environ, "PYTHONPATH": str(Path(vectors.__file__).parents[2])}
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
