"""One function for each kind of input: bytes into a file, read, and what came of it checked.

Each takes bytes and an empty folder, and tells whether there was a result. Results are held against
another reader, so that a wrong one is no better than a crash.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import shutil
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml

from sentiment.config.config import Config, DataConfig
from sentiment.config.parser import load_config
from sentiment.config.yaml import StrictLoader, read_mapping
from sentiment.data.readers import UNLABELLED_FOLDER
from sentiment.data.reviews import load_split
from sentiment.data.token_cache import tokenize_cached
from sentiment.data.tokenizer import Tokenizer
from sentiment.data.vectors import load_vectors
from sentiment.data.vocabulary import load_vocabulary, save_vocabulary
from sentiment.inference.formats import open_source
from sentiment.runs.run import load_run

from . import samples
from .contract import result_or_error

Target = Callable[[bytes, Path], bool]

_WORDS = ["<pad>", "<unk>", "good", "bad", "film", "zzz"]


def settings(data: bytes, folder: Path) -> bool:
    """A settings file, as load_config reads it."""
    path = folder / "config.yaml"
    path.write_bytes(data)
    config = result_or_error(lambda: load_config(path), path.name)
    if config is None:
        return False
    assert isinstance(config, Config)
    values = yaml.load(data, Loader=getattr(yaml, "CBaseLoader", yaml.BaseLoader))
    for key in ("output_dir", "device"):
        assert values.get(key, getattr(Config(), key)) == getattr(config, key)
    return True


def behaviour(data: bytes, folder: Path) -> bool:
    """A file of behaviour tests, as a mapping."""
    path = folder / "tests.yaml"
    path.write_bytes(data)
    mapping = result_or_error(lambda: read_mapping(path, "a: b"), path.name)
    assert mapping is None or repr(mapping) == repr(yaml.load(data, StrictLoader))
    return mapping is not None


def reviews(suffix: str) -> Target:
    """A file of reviews, as a split."""

    def target(data: bytes, folder: Path) -> bool:
        (folder / f"test{suffix}").write_bytes(data)
        config = DataConfig(path=str(folder))
        found = result_or_error(lambda: load_split(config, "test"), f"test{suffix}")
        if found is None:
            return False
        assert found.texts == _texts_of(data, suffix, "text")
        assert len(found.class_names) >= 2
        assert ((found.labels >= 0) & (found.labels < len(found.class_names))).all()
        for text in (*found.texts, *found.class_names):
            text.encode()
        return True

    return target


def predicted(suffix: str) -> Target:
    """A file of texts to predict, block by block."""

    def target(data: bytes, folder: Path) -> bool:
        path = folder / f"texts{suffix}"
        path.write_bytes(data)

        def read() -> list[str | None]:
            blocks = open_source(path, "text").blocks(7)
            return [text for block in blocks for text in block.texts]

        texts = result_or_error(read, path.name)
        if texts is None:
            return False
        for text in filter(None, texts):
            text.encode()
        if None not in texts:
            assert texts == _texts_of(data, suffix, "text")
        return True

    return target


def _texts_of(data: bytes, suffix: str, name: str) -> list[str]:
    """A column of a file by another way of reading: all at once."""
    if suffix.endswith(".gz"):
        data, suffix = gzip.decompress(data), suffix.removesuffix(".gz")
    if suffix == ".parquet":
        return pq.read_table(pa.BufferReader(data), columns=[name])[name].to_pylist()
    text = data.decode().removeprefix("\ufeff")
    if suffix == ".txt":
        return [line.rstrip("\r\n") for line in text.removesuffix("\n").split("\n") if text]
    if suffix == ".jsonl":
        return [json.loads(line)[name] for line in text.split("\n") if line.strip()]
    limit = csv.field_size_limit(2**31 - 1)
    try:
        lines = io.StringIO(text, newline="")
        header, *rows = filter(None, csv.reader(lines, delimiter="\t" if suffix == ".tsv" else ","))
    finally:
        csv.field_size_limit(limit)
    return [row[header.index(name)] for row in rows]


def text_folders(data: bytes, folder: Path) -> bool:
    """Names and contents of files by turns: folders of text files, as a split."""
    pieces = data.split(samples.SEPARATOR)
    for name, content in zip(pieces[::2], pieces[1::2], strict=False):
        _write_below(folder, name, content)
    test = folder / "test"
    config = DataConfig(path=str(folder))
    found = result_or_error(lambda: load_split(config, "test"), str(folder))
    if found is None:
        return False
    paths = [
        path
        for path in test.glob("*/*.txt")
        if path.parent.name != UNLABELLED_FOLDER and not path.parent.name.startswith(".")
    ]
    contents = [path.read_bytes().decode().removeprefix("\ufeff") for path in paths]
    assert sorted(found.texts) == sorted(contents)
    assert ((found.labels >= 0) & (found.labels < len(found.class_names))).all()
    return True


def _write_below(folder: Path, name: bytes, content: bytes) -> None:
    """Write a file of a name that may be absurd, or make a folder of it, but below a folder."""
    parts = [part[:200] for part in name.translate(None, b"\0\r\n").split(b"/")]
    parts = [part for part in parts if part not in (b"", b".", b"..")][:5]
    path = folder
    for part in parts:
        path /= part.decode("utf-8", "surrogateescape")
    try:
        if len(content) % 7 == 3:
            path.mkdir(parents=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    except OSError:
        pass  # there already, as something else


def vectors(suffix: str) -> Target:
    """Vectors of a small vocabulary."""

    def target(data: bytes, folder: Path) -> bool:
        path = folder / f"vectors{suffix}"
        path.write_bytes(data)

        def read() -> tuple[torch.Tensor, tuple[str, ...]]:
            generator = torch.Generator().manual_seed(7)
            matrix, coverage = load_vectors(
                path, _WORDS, [0, 0, 4, 3, 2, 1], dimension=3, generator=generator
            )
            return matrix, coverage.most_frequent_missed

        found = result_or_error(read, path.name)
        if found is None:
            return False
        matrix, missed = found
        assert matrix.shape == (6, 3)
        assert bool(matrix.isfinite().all()) and not bool(matrix[0].any())
        lines = _unpacked(data, suffix).split(b"\n")
        for row, word in enumerate(_WORDS[2:], start=2):
            if word not in missed:
                assert any(_is_of(line, word, matrix[row].tolist()) for line in lines), word
        return True

    return target


def _unpacked(data: bytes, suffix: str) -> bytes:
    if suffix == ".gz":
        return gzip.decompress(data)
    if suffix == ".zip":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            texts = [each for each in archive.infolist() if each.filename.endswith(".txt")]
            fitting = [each for each in texts if ".3d." in each.filename] or texts
            return archive.read(fitting[0])
    return data


def _is_of(line: bytes, word: str, values: list[float]) -> bool:
    name, *fields = line.rstrip(b" \r").split(b" ")
    try:
        return name == word.encode() and [float(np.float32(float(f))) for f in fields] == values
    except ValueError:
        return False


def vocabulary(data: bytes, folder: Path) -> bool:
    """A run's vocabulary: what is read is written again to the byte."""
    path = folder / "vocabulary.txt"
    path.write_bytes(data)
    found = result_or_error(lambda: load_vocabulary(path), path.name)
    if found is None:
        return False
    save_vocabulary(found, folder / "again.txt")
    again = (folder / "again.txt").read_bytes()
    assert again == _with_special_counts(data.removeprefix(b"\xef\xbb\xbf"))
    return True


def _with_special_counts(data: bytes) -> bytes:
    """Counts of the two special words are not read."""
    first, second, rest = data.split(b"\n", 2)
    names = (line.rpartition(b"\t")[0] for line in (first, second))
    return b"".join(name + b"\t0\n" for name in names) + rest


def token_cache(data: bytes, folder: Path) -> bool:
    """One file of an entry, its number in the first byte: tokens are right, whatever it holds."""
    fresh = Tokenizer()(samples.TEXTS)
    tokenize_cached(samples.TEXTS, folder)
    (entry,) = (folder / "tokens").iterdir()
    names = sorted(samples.cache_entry())
    (entry / names[data[0] % len(names) if data else 0]).write_bytes(data[1:])
    found = tokenize_cached(samples.TEXTS, folder)
    assert found.lexicon == fresh.lexicon
    assert found.tokens.tolist() == fresh.tokens.tolist()
    assert found.offsets.tolist() == fresh.offsets.tolist()
    return True


def run_folder(data: bytes, folder: Path) -> bool:
    """One file of a run, its number in the first byte: the run is right, or refused."""
    contents = samples.run_folder()
    names = read_of_a_run(contents)
    name = names[data[0] % len(names) if data else 0]
    run = folder / "run"
    for each in names:
        (run / each).parent.mkdir(parents=True, exist_ok=True)
        (run / each).write_bytes(data[1:] if each == name else contents[each])
    loaded = result_or_error(lambda: load_run(run), str(run), longest=100_000)
    if loaded is None:
        return False
    whole = _whole_run(folder)
    assert loaded.class_names == whole["classes"], name
    assert loaded.vocabulary.itos == whole["words"], name
    for key, value in loaded.model.state_dict().items():
        assert torch.equal(value, whole["weights"][key]), name
    return True


def read_of_a_run(contents: Sequence[str] | dict[str, bytes]) -> list[str]:
    """The files of a run that loading it reads."""
    return [name for name in contents if name.endswith((".yaml", ".json", ".txt", ".safetensors"))
            and "tensorboard" not in name and "last" not in name]  # fmt: skip


_whole: dict[str, object] = {}


def _whole_run(folder: Path) -> dict:
    if not _whole:
        for name, content in samples.run_folder().items():
            path = folder / "whole" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        run = load_run(folder / "whole")
        _whole.update(
            classes=run.class_names, words=run.vocabulary.itos, weights=run.model.state_dict()
        )
        shutil.rmtree(folder / "whole")
    return _whole


def numbered(contents: dict[str, bytes]) -> list[bytes]:
    """Files of a folder as inputs: each with its number before it."""
    return [bytes([number]) + contents[name] for number, name in enumerate(sorted(contents))]


def packed(data: list[bytes]) -> list[bytes]:
    return [gzip.compress(each, mtime=0) for each in data]


def weak(data: bytes) -> bytes:
    """A gzip file without checksums in the way: its stream of stored blocks can be damaged."""
    compressor = zlib.compressobj(0, zlib.DEFLATED, 31)
    return compressor.compress(data) + compressor.flush()
