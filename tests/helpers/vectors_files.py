"""Small files of vectors, and the vocabulary that the tests look up in them."""

import struct
import zipfile
from pathlib import Path

import torch

from sentiment.data.vectors import Coverage, load_vectors

WORDS = ["<pad>", "<unk>", "good", "bad", "film", "zzz"]
COUNTS = [0, 0, 40, 30, 20, 10]
LINES = ["the 0.5 0.5 0.5", "good 1 2 3", "film -1e-1 .5 4", "bad 4 5 6"]


def load(
    path: Path, *, words: list[str] = WORDS, counts: list[int] = COUNTS, dimension: int = 3
) -> tuple[torch.Tensor, Coverage]:
    generator = torch.Generator().manual_seed(7)
    return load_vectors(path, words, counts, dimension=dimension, generator=generator)


def write_text(folder: Path, content: str | bytes | list[str], name: str = "vectors.txt") -> Path:
    if isinstance(content, list):
        content = "".join(f"{line}\n" for line in content)
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def pack_zip(
    folder: Path, members: dict[str, list[str]], compression: int = zipfile.ZIP_DEFLATED
) -> Path:
    path = folder / "vectors.zip"
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, lines in members.items():
            archive.writestr(name, "\n".join(lines) + "\n")
    return path


def word2vec(lines: list[str], *, break_lines: bool = True) -> bytes:
    """The content of a file in word2vec's binary format with these lines' vectors."""
    rows = [line.split(" ") for line in lines]
    content = f"{len(rows)} {len(rows[0]) - 1}\n".encode()
    for word, *values in rows:
        content += word.encode() + b" " + struct.pack(f"<{len(values)}f", *map(float, values))
        content += b"\n" * break_lines
    return content
