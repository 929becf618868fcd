"""One target for each kind of file: write bytes to it, read it, check the result.

A target takes the bytes and an empty folder, and returns whether the file could be read. A result
is compared with that of another reader, so that a wrong one fails like a crash. For every input
there is a result or a one-line error of ours, soon and in little memory.
"""

import codecs
import csv
import functools
import gzip
import io
import json
import re
import signal
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml

from sentiment.config.config import Config, DataConfig
from sentiment.config.parser import load_config
from sentiment.config.yaml import StrictLoader, read_mapping
from sentiment.data.reviews import load_split
from sentiment.data.tokenizer import Tokenizer, tokenize_cached
from sentiment.data.vectors import load_vectors
from sentiment.data.vocabulary import load_vocabulary, save_vocabulary
from sentiment.readers.formats import open_source
from sentiment.runs.run import Run, load_run

from . import samples

Target = Callable[[bytes, Path], bool]
T = TypeVar("T")

SECONDS = 20  # far more than any input needs: the machine may be busy
MAX_MEMORY = 1_200 * 2**20  # of a process that has loaded torch, spaCy and all targets


def result_or_error(call: Callable[[], T], *names: str, longest: int = 3_000) -> T | None:
    """A call's result, or None if it ends in an error that may be shown to a user.

    The message must have fewer than ``longest`` characters, and contain one of ``names``, so that
    its reader knows the file.
    """
    try:
        return call()
    except (ValueError, OSError) as error:
        kind, message = type(error), str(error)
        is_ours = kind is ValueError or kind.__module__.startswith("sentiment.")
        assert is_ours or issubclass(kind, OSError), repr(error)
        assert message, f"an error without a message: {error!r}"
        assert "\n" not in message, f"more than one line: {message!r}"
        assert len(message) < longest, f"{len(message)} characters: {message[:300]!r}"
        assert any(name in message for name in names), f"{names} not in {message!r}"
        return None


@contextmanager
def within_time() -> Iterator[None]:
    """Fail if the block takes too long, even in an endless loop."""

    def stop(number: int, frame: object) -> None:
        raise AssertionError(f"not done after {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def check_memory() -> None:
    """Fail if this process has ever used too much memory."""
    # Not ru_maxrss, which a process inherits from the one that started it.
    status = Path("/proc/self/status")
    if not status.exists():
        return  # only Linux tells
    (kilobytes,) = re.findall(r"VmHWM:\s+(\d+) kB", status.read_text())
    peak = int(kilobytes) * 1024
    assert peak < MAX_MEMORY, f"{peak // 2**20:,} MiB"


_WORDS = ["<pad>", "<unk>", "good", "bad", "film", "zzz"]


def settings(data: bytes, folder: Path) -> bool:
    """A settings file."""
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
    """A file of behaviour tests."""
    path = folder / "tests.yaml"
    path.write_bytes(data)
    mapping = result_or_error(lambda: read_mapping(path, "a: b"), path.name)
    assert mapping is None or repr(mapping) == repr(yaml.load(data, StrictLoader))
    return mapping is not None


def reviews(suffix: str) -> Target:
    """A file of labelled reviews."""

    def target(data: bytes, folder: Path) -> bool:
        (folder / f"test{suffix}").write_bytes(data)
        config = DataConfig(path=str(folder), missing="skip")
        loaded = result_or_error(lambda: load_split(config, "test"), f"test{suffix}")
        if loaded is None:
            return False
        found = [
            [texts[row] for row in loaded.rows if row < len(texts)]
            for texts in _texts_of(data, suffix, "text")
        ]
        assert loaded.texts in found
        assert len(loaded.class_names) >= 2
        assert ((loaded.labels >= 0) & (loaded.labels < len(loaded.class_names))).all()
        for text in (*loaded.texts, *loaded.class_names):
            text.encode()
        return True

    return target


def predicted(suffix: str) -> Target:
    """A file of texts to predict, read in blocks."""

    def target(data: bytes, folder: Path) -> bool:
        path = folder / f"texts{suffix}"
        path.write_bytes(data)

        def read() -> list[str | None]:
            blocks = open_source(path).blocks(7)
            return [text for block in blocks for text in block.texts]

        texts = result_or_error(read, path.name)
        if texts is None:
            return False
        for text in filter(None, texts):
            text.encode()
        if None not in texts:
            assert texts in _texts_of(data, suffix, "text")
        return True

    return target


def _texts_of(data: bytes, suffix: str, name: str) -> list[list[str | None]]:
    """What another reader finds in a column of a file, read at once, with each delimiter."""
    if suffix.endswith(".gz"):
        data, suffix = gzip.decompress(data), suffix.removesuffix(".gz")
    if suffix == ".parquet":
        return [pq.read_table(pa.BufferReader(data), columns=[name])[name].to_pylist()]
    is_utf16 = data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    text = data.decode("utf-16" if is_utf16 else "utf-8").removeprefix("\ufeff")
    if suffix == ".txt":
        return [[line.rstrip("\r\n") for line in text.removesuffix("\n").split("\n") if text]]
    if suffix == ".jsonl":
        if text.lstrip().startswith("["):
            return [[record.get(name) for record in json.loads(text)]]
        return [[json.loads(line).get(name) for line in text.split("\n") if line.strip()]]
    limit = csv.field_size_limit(2**31 - 1)
    try:
        return [_column_of(text, name, delimiter) for delimiter in ",\t;|"]
    finally:
        csv.field_size_limit(limit)


def _column_of(text: str, name: str, delimiter: str) -> list[str]:
    header, *rows = filter(None, csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
    letters = ["".join(filter(str.isalnum, cell)).lower() for cell in header]  # as are recognized
    names = header if name in header else letters
    index = names.index(name) if name in names else 0
    return [row[index] if index < len(row) else "" for row in rows]


def vectors(suffix: str) -> Target:
    """A file of vectors, read for a small vocabulary."""

    def target(data: bytes, folder: Path) -> bool:
        path = folder / f"vectors{suffix}"
        path.write_bytes(data)

        def read() -> tuple[torch.Tensor, tuple[str, ...]]:
            generator = torch.Generator().manual_seed(7)
            matrix, coverage = load_vectors(
                path, _WORDS, [0, 0, 4, 3, 2, 1], dimension=3, generator=generator
            )
            return matrix, coverage.most_frequent_missed

        loaded = result_or_error(read, path.name)
        if loaded is None:
            return False
        matrix, missed = loaded
        assert matrix.shape == (6, 3)
        assert bool(matrix.isfinite().all()) and not bool(matrix[0].any())
        lines = _unpacked(data, suffix).split(b"\n")
        for row, word in enumerate(_WORDS[2:], start=2):
            if word not in missed:
                assert any(_has_vector(line, word, matrix[row].tolist()) for line in lines), word
        return True

    return target


def _unpacked(data: bytes, suffix: str) -> bytes:
    if suffix == ".gz":
        return gzip.decompress(data)
    if suffix == ".zip":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            texts = [info for info in archive.infolist() if info.filename.endswith(".txt")]
            fitting = [info for info in texts if ".3d." in info.filename] or texts
            return archive.read(fitting[0])
    return data


def _has_vector(line: bytes, word: str, values: list[float]) -> bool:
    name, *fields = line.rstrip(b" \r").split(b" ")
    try:
        return name == word.encode() and [float(np.float32(float(f))) for f in fields] == values
    except ValueError:
        return False


def vocabulary(data: bytes, folder: Path) -> bool:
    """A run's vocabulary, which is written again to the same bytes."""
    path = folder / "vocabulary.txt"
    path.write_bytes(data)
    loaded = result_or_error(lambda: load_vocabulary(path), path.name)
    if loaded is None:
        return False
    save_vocabulary(loaded, folder / "again.txt")
    again = (folder / "again.txt").read_bytes()
    assert again == _with_special_counts(data.removeprefix(b"\xef\xbb\xbf"))
    return True


def _with_special_counts(data: bytes) -> bytes:
    """The counts of the two special words are ignored."""
    first, second, rest = data.split(b"\n", 2)
    names = (line.rpartition(b"\t")[0] for line in (first, second))
    return b"".join(name + b"\t0\n" for name in names) + rest


def token_cache(data: bytes, folder: Path) -> bool:
    """One file of a cache entry, chosen by the first byte: whatever it holds, tokens are right."""
    fresh = Tokenizer()(samples.TEXTS)
    tokenize_cached(samples.TEXTS, folder)
    (entry,) = (folder / "tokens").iterdir()
    names = sorted(samples.cache_entry())
    (entry / names[data[0] % len(names) if data else 0]).write_bytes(data[1:])
    cached = tokenize_cached(samples.TEXTS, folder)
    assert cached.lexicon == fresh.lexicon
    assert cached.tokens.tolist() == fresh.tokens.tolist()
    assert cached.offsets.tolist() == fresh.offsets.tolist()
    return True


def run_folder(data: bytes, folder: Path) -> bool:
    """One file of a run, chosen by the first byte: the run is loaded right, or refused."""
    contents = samples.run_folder()
    names = read_of_a_run(contents)
    name = names[data[0] % len(names) if data else 0]
    run = folder / "run"
    for other in names:
        (run / other).parent.mkdir(parents=True, exist_ok=True)
        (run / other).write_bytes(data[1:] if other == name else contents[other])
    loaded = result_or_error(lambda: load_run(run), str(run), longest=100_000)
    if loaded is None:
        return False
    intact = _intact_run()
    assert loaded.class_names == intact.class_names, name
    assert loaded.vocabulary.itos == intact.vocabulary.itos, name
    weights = intact.model.state_dict()
    for key, value in loaded.model.state_dict().items():
        assert torch.equal(value, weights[key]), name
    return True


def read_of_a_run(contents: Sequence[str] | dict[str, bytes]) -> list[str]:
    """The files that loading a run reads."""
    return [name for name in contents if name.endswith((".yaml", ".json", ".txt", ".safetensors"))
            and "tensorboard" not in name and "last" not in name]  # fmt: skip


@functools.cache
def _intact_run() -> Run:
    with tempfile.TemporaryDirectory() as folder:
        for name, content in samples.run_folder().items():
            path = Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return load_run(Path(folder))


def numbered(contents: dict[str, bytes]) -> list[bytes]:
    """Files of a folder as inputs, each after a byte with its number."""
    return [bytes([number]) + contents[name] for number, name in enumerate(sorted(contents))]


def packed(data: list[bytes]) -> list[bytes]:
    return [gzip.compress(each, mtime=0) for each in data]
