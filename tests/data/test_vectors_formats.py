"""Formats and archives of vectors, and the mends that messages name, done literally."""

from __future__ import annotations

import gzip
import re
import struct
import zipfile

import pytest
import torch
from helpers.vectors_files import LINES, WORDS, load, pack_zip, word2vec, write_text
from hypothesis import given, settings
from hypothesis import strategies as st

from sentiment.data import vectors
from sentiment.runtime.errors import UserError


@pytest.fixture
def plain(write):
    return load(write(LINES, "plain.txt"))[0]


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


def embedding_sizes(error: UserError) -> list[int]:
    named = re.search(r"set --model\.embedding_size (?:to )?(\d+(?: or \d+)*)", str(error))
    assert named is not None
    return [int(size) for size in named[1].split(" or ")]


@pytest.mark.parametrize("name", ["vectors.txt", "vectors.bin", "vectors.zip"])
def test_the_embedding_size_that_is_named_fits(write, tmp_path, name):
    content = word2vec(LINES) if name.endswith(".bin") else "".join(f"{line}\n" for line in LINES)
    path = write(content, name)
    if name == "vectors.zip":
        short = [line[: line.rindex(" ")] for line in LINES]
        path = pack_zip(tmp_path, {"g.3d.txt": LINES, "g.2d.txt": short})
    with pytest.raises(UserError) as refused:
        load(path, dimension=5)
    sizes = embedding_sizes(refused.value)
    assert sizes == ([2, 3] if name == "vectors.zip" else [3])
    for size in sizes:
        assert load(path, dimension=size)[1].types_found == 3


def test_prose_is_not_taken_for_vectors_of_another_dimension(write):
    with pytest.raises(UserError, match="none of the 4 words"):
        load(write(["it was good", "it was bad"] * 800), dimension=50)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("v.model", b"\x80\x04\x95gensim", "is a pickle, .* save_word2vec_format"),
        ("cc.en.300.bin", b"\xba\x16\x4f\x2f\x0c\0\0\0", "is a fastText model: give the .vec file"),
        ("array.npy", b"\x93NUMPY", "is a NumPy array, which holds no words: give a text file"),
    ],
)
def test_other_formats_are_refused_by_name(write, name, content, message):
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
