"""Packed vectors: the same as plain ones, or named as broken."""

from __future__ import annotations

import gzip
import io
import tempfile
import zipfile
from functools import partial
from pathlib import Path

import pytest
import torch
from helpers.vectors_files import LINES, WORDS, load, pack_zip, write_text
from hypothesis import given, settings
from hypothesis import strategies as st

from sentiment.data import vectors as archives


@pytest.fixture
def write(tmp_path: Path):
    return partial(write_text, tmp_path)


@pytest.fixture
def write_zip(tmp_path: Path):
    return partial(pack_zip, tmp_path)


class TestArchives:
    def test_packed_equals_plain(self, write, write_zip):
        plain, _ = load(write(LINES))
        text = "\n".join(LINES).encode()
        halves = gzip.compress(text[:20]) + gzip.compress(text[20:])  # two members are one text
        assert torch.equal(plain, load(write(halves, "vectors.txt.gz"))[0])
        assert torch.equal(plain, load(write_zip({"vectors.txt": LINES}))[0])
        assert torch.equal(plain, load(write_zip({"v.txt": LINES}, zipfile.ZIP_STORED))[0])
        # A single text is taken whatever dimension its name says.
        assert torch.equal(plain, load(write_zip({"glove.840B.300d.txt": LINES}))[0])

    def test_zip_member_of_the_dimension(self, write_zip):
        path = write_zip(
            {
                "glove.6B.2d.txt": ["good 1 2"],
                "glove.6B.3d.txt": ["good 1 2 3"],
                "__MACOSX/._glove.6B.3d.txt": ["good 9 9 9"],
                "readme.md": ["good 9 9 9"],
            }
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
    def test_unusable_zip_is_refused(self, write_zip, names, compression, message):
        with pytest.raises(ValueError, match=message):
            load(write_zip(dict.fromkeys(names, LINES), compression))

    def test_encrypted_zip_is_refused(self, write_zip):
        path = write_zip({"vectors.txt": LINES})
        content = bytearray(path.read_bytes())
        content[content.index(b"PK\x03\x04") + 6] |= 1
        content[content.index(b"PK\x01\x02") + 8] |= 1
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"damaged, cut off or locked .*password"):
            load(path)

    @pytest.mark.parametrize("name", ["vectors.gz", "vectors.zip"])
    def test_any_cut_off_archive_is_named(self, write, write_zip, name):
        lines = [f"{word} 1 2 3" for word in WORDS]
        whole = write_zip({"vectors.txt": lines}).read_bytes()
        if name == "vectors.gz":
            whole = gzip.compress("\n".join(lines).encode())
        for length in range(1, len(whole)):
            with pytest.raises(ValueError, match=rf"{name} is damaged, cut off"):
                load(write(whole[:length], name))

    @given(data=st.data())
    @settings(max_examples=150, deadline=None)
    def test_a_flipped_byte_gives_the_same_matrix_or_a_clear_error(self, data):
        lines = [f"{word} 1 2 3" for word in WORDS]
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("vectors.txt", "\n".join(lines))
        content = bytearray(packed.getvalue())
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "vectors.zip"
            path.write_bytes(content)
            try:
                matrix, _ = load(path)
            except ValueError as error:
                assert "vectors.zip" in str(error)
            else:
                assert matrix[1:].tolist() == [[1, 2, 3]] * 5


@given(
    content=st.text(alphabet="ab \t\r\n", max_size=60).map(str.encode),
    block_bytes=st.integers(1, 20),
    max_line_bytes=st.integers(1, 20),
)
@settings(max_examples=300, deadline=None)
def test_lines_keep_their_numbers_whatever_the_blocks(content, block_bytes, max_line_bytes):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(archives, "MAX_LINE_BYTES", max_line_bytes)
        blocks = iter(partial(io.BytesIO(content).read, block_bytes), b"")
        lines = list(archives.text_lines(blocks))
    raw_lines = content.split(b"\n") if content else []
    if raw_lines and not raw_lines[-1]:
        raw_lines.pop()  # what ends in a line's end has no line after it
    assert lines == [
        archives.TOO_LONG if len(raw) > max_line_bytes else raw.replace(b"\t", b" ").rstrip(b" \r")
        for raw in raw_lines
    ]
