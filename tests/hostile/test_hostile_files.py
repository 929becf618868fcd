"""Files that fill memory, hang their reader, or lead out of their folder."""

import gzip
import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.processes import Processes
from helpers.review_files import read_file as rows
from helpers.trainings import ended
from helpers.vectors_files import LINES, load

from sentiment.config.config import DataConfig
from sentiment.config.parser import load_config
from sentiment.config.yaml import read_yaml
from sentiment.data.reviews import load_split
from sentiment.data.tokenizer import Tokenizer, tokenize_cached
from sentiment.data.vocabulary import load_vocabulary
from sentiment.readers import arrow_formats
from sentiment.readers.formats import open_source
from sentiment.runtime import files
from sentiment.runtime.files import DecompressionBomb

MILLION = 1_000_000


def texts(path: Path) -> object:
    return [text for block in open_source(path).blocks(100) for text in block.texts]


READERS = {
    ".csv": [rows, texts],
    ".tsv": [rows, texts],
    ".jsonl": [rows, texts],
    ".parquet": [rows, texts],
    ".txt": [load, load_vocabulary, texts],
    ".gz": [load],
    ".zip": [load],
    ".yaml": [load_config, read_yaml],
}
SUFFIXES_AND_READERS = [(suffix, read) for suffix, reads in READERS.items() for read in reads]


@pytest.mark.parametrize(("suffix", "read"), SUFFIXES_AND_READERS)
def test_pipes_devices_loops_and_folders_are_refused(tmp_path, suffix, read):
    path = tmp_path / f"file{suffix}"
    for make in (
        lambda: os.mkfifo(path),
        lambda: path.symlink_to("/dev/zero"),
        lambda: path.symlink_to(path),
        path.mkdir,
    ):
        make()
        with pytest.raises((ValueError, OSError), match=path.name) as caught:
            read(path)
        assert "\n" not in str(caught.value)
        path.rmdir() if path.is_dir() else path.unlink()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize(("suffix", "read"), SUFFIXES_AND_READERS)
def test_missing_permission_is_reported(tmp_path, suffix, read):
    path = tmp_path / f"file{suffix}"
    path.write_bytes(b"")
    path.chmod(0)
    with pytest.raises(OSError, match="denied"):
        read(path)


@pytest.fixture
def low_limit(monkeypatch):
    """A lower limit of what may always be decompressed, so that bombs are made quickly."""
    monkeypatch.setattr(files, "_MIN_LIMIT", 4 * 2**20)


def parquet(path: Path, texts: object, **options: object) -> Path:
    table = pa.table({"text": texts, "label": pa.array([0] * len(texts), pa.int8())})
    pq.write_table(table, path, **options)
    return path


@pytest.mark.parametrize("read", [rows, texts])
@pytest.mark.parametrize("kind", ["page", "dictionary", "repeated", "nulls", "prefixes"])
def test_parquet_bombs(tmp_path, kind, read, low_limit):
    path = tmp_path / "test.parquet"
    if kind == "page":
        parquet(path, ["x" * 5 * MILLION], compression="zstd", use_dictionary=False)
    elif kind == "prefixes":
        options = {"column_encoding": {"text": "DELTA_BYTE_ARRAY", "label": "PLAIN"}}
        values = ["x" * 50_000] * 500
        parquet(path, values, compression="zstd", use_dictionary=False, **options)
    elif kind == "nulls":
        parquet(path, pa.nulls(MILLION, pa.string()), compression="zstd")
    else:
        keys = pa.array(np.zeros(20_000, np.int32))
        values = pa.DictionaryArray.from_arrays(keys, pa.array(["x" * 1_000]))
        parquet(path, values, compression="zstd", store_schema=kind == "dictionary")
    assert path.stat().st_size < 30_000
    with pytest.raises(DecompressionBomb, match="times its size"):
        read(path)


def test_a_page_larger_than_the_footer_says_is_refused(tmp_path):
    path = parquet(tmp_path / "a.parquet", ["x" * 100] * 50, compression="none")
    data = path.read_bytes()
    file = pq.ParquetFile(path)
    start = file.metadata.row_group(0).column(0).dictionary_page_offset
    # The first page's header: field 1 is its kind, field 2 its size, a number of two bytes.
    assert data[start] == 0x15 and data[start + 2] == 0x15
    bomb = data[: start + 3] + b"\xfe\xff" + data[start + 5 :]  # goes on into the next field
    path.write_bytes(bomb)
    with pytest.raises(ValueError, match="not a complete Parquet file"):
        rows(path)


def test_batches_are_small_where_one_value_is_large(tmp_path, low_limit):
    """A row group of a megabyte may hold one value that a batch repeats in each row."""
    path = parquet(tmp_path / "a.parquet", ["x" * 1_000_000, *"ab" * 500], compression="none")
    sizes = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrow_formats, "_num_bytes", lambda batch: sizes.append(len(batch)) or 0)
        assert len(rows(path).texts) == 1_001
    assert max(sizes) == 100  # times the file's size may be decompressed at once


def test_an_honest_archive_is_read_at_any_compression_ratio(tmp_path):
    path = tmp_path / "vectors.gz"
    path.write_bytes(gzip.compress(("\n".join(LINES) + "\n").encode() * 50_000))
    assert load(path)[1].types_found == 3


def test_a_zip_with_paths_that_lead_elsewhere_writes_nothing(tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    path = inside / "vectors.zip"
    for name in ("../v.3d.txt", f"{tmp_path}/v.3d.txt", "a/../../v.3d.txt", "C:\\v.3d.txt"):
        with zipfile.ZipFile(path, "w") as archive:
            link = zipfile.ZipInfo(name)
            link.external_attr = 0o120777 << 16  # a symbolic link
            archive.writestr(link, "\n".join(LINES))
        assert load(path)[1].types_found == 3
        assert sorted(tmp_path.rglob("*")) == [inside, path]


ALIASES = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize("read", [load_config, read_yaml])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (ALIASES, "its aliases repeat over 1,000,000 values"),
        ("seed: " + "[" * 100_000 + "]" * 100_000, "line 1 is nested too deeply"),
        ("seed: " + "{a: " * 100_000 + "}" * 100_000, "line 1 is nested too deeply"),
        ("seed: &a {b: *a}", "refers to no earlier value"),
        ("seed: " + "9" * 5_000, "4300 digits"),
        ("seed: !!int ''", "a value does not fit its tag"),
        ("seed: 1\nseed: 2", "line 2: not YAML: the key 'seed' occurs twice"),
        ("a: " + "x" * 2_000_000, "bytes, but at most"),
    ],
)
def test_yaml_bombs(tmp_path, read, content, message):
    path = tmp_path / "a.yaml"
    path.write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        read(path)
    assert str(caught.value).count("a.yaml") == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"text": "a", "label": ' + "[" * 100_000, "row 1: nested too deeply"),
        ('{"text": "a", "label": ' + "9" * 5_000 + "}", "row 1: Exceeds the limit"),
        ('{"text": "a", "label": "\\ud800"}', "row 1: the label holds a lone surrogate"),
        ('{"text": "a", "label": "' + "x" * 2_000 + '"}', "row 1: a label of 2,000 characters"),
        ("{" + ", ".join(f'"k{n}": 0' for n in range(9_999)) + "}", "'k19' and 9979 more"),
    ],
)
def test_absurd_json(tmp_path, content, message):
    (tmp_path / "a.jsonl").write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        rows(tmp_path / "a.jsonl")
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".txt", ".vocabulary"])
def test_an_endless_line_is_reported(tmp_path, suffix, monkeypatch):
    monkeypatch.setattr(files, "LONGEST_LINE", 10_000)
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"x" * 20_000)
    reads = {".vocabulary": [load_vocabulary], ".txt": [texts]}.get(suffix, READERS.get(suffix))
    for read in reads:
        with pytest.raises(ValueError, match="line 1 has more than 10,000 characters"):
            read(path)


def peak_kilobytes() -> int:
    return int(re.findall(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[0])


def refuse_in_little_memory(read: Callable[[Path], object], path: Path) -> int:
    before = peak_kilobytes()
    with pytest.raises(ValueError, match=path.name):
        read(path)
    return int(peak_kilobytes() - before > 700_000)


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells peaks")
@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("a.csv", rows), ("a.jsonl", rows), ("a.txt", load), ("vocabulary.txt", load_vocabulary),
        ("test.txt", files.read_text),
    ],
)  # fmt: skip
def test_a_gigabyte_without_a_line_break(tmp_path, name, read):
    """1 GB of NULs, in a sparse file; a process of its own reads it, for its peak memory."""
    path = tmp_path / name
    with path.open("wb") as file:
        file.write(b"x")
        file.truncate(10**9)
    ended(Processes(refuse_in_little_memory, read, path))


@pytest.mark.parametrize("name", ["tokens.npy", "offsets.npy", "lexicon.txt", "sha256"])
def test_a_cache_entry_with_an_absurd_file_is_rebuilt(tmp_path, name):
    fresh = Tokenizer()(["a b", "c"])
    tokenize_cached(["a b", "c"], tmp_path)
    (entry,) = (tmp_path / "tokens").iterdir()
    header = "{'descr': '<i4', 'fortran_order': False, 'shape': (%s,), }"
    for shape in (10**18, -1, "10**9", 2**63):
        text = (header % shape).ljust(117) + "\n"
        (entry / name).write_bytes(b"\x93NUMPY\x01\x00\x76\x00" + text.encode())
        assert tokenize_cached(["a b", "c"], tmp_path).tokens.tolist() == fresh.tokens.tolist()
    for make in (os.mkfifo, os.mkdir):
        (entry / name).unlink()
        make(entry / name)
        rebuilt = tokenize_cached(["a b", "c"], tmp_path)
        assert rebuilt.lexicon == fresh.lexicon
        assert (entry / name).is_file()


def test_cached_tokens_of_other_texts_are_replaced(tmp_path):
    tokens = tokenize_cached(["good bad", "bad"], tmp_path).tokens.tolist()
    (entry,) = (tmp_path / "tokens").iterdir()
    np.save(entry / "tokens.npy", np.array([1, 0, 1], np.int32))
    assert tokenize_cached(["good bad", "bad"], tmp_path).tokens.tolist() == tokens


def test_a_cache_entry_that_is_a_link_is_replaced(tmp_path):
    tokenize_cached(["a b"], tmp_path / "cache")
    (entry,) = (tmp_path / "cache" / "tokens").iterdir()
    elsewhere = tmp_path / "elsewhere"
    entry.rename(elsewhere)
    (elsewhere / "sha256").write_text("another")
    before = sorted(path.stat().st_mtime_ns for path in elsewhere.iterdir())
    entry.symlink_to(elsewhere)
    tokenize_cached(["a b"], tmp_path / "cache")
    assert not entry.is_symlink()
    assert sorted(path.stat().st_mtime_ns for path in elsewhere.iterdir()) == before


def test_folders_with_absurd_names(tmp_path):
    data = DataConfig(path=str(tmp_path))
    for folder in ("pos", "neg"):
        (tmp_path / "test" / folder).mkdir(parents=True)
        (tmp_path / "test" / folder / "0_1.txt").write_text(folder)
    assert load_split(data, "test").class_names == ("neg", "pos")
    (tmp_path / "test" / "pos" / "x.txt").mkdir()
    with pytest.raises(ValueError, match="x.txt is a folder, where a file was expected"):
        load_split(data, "test")
    (tmp_path / "test" / "pos" / "x.txt").rmdir()
    os.mkdir(os.fsencode(tmp_path / "test") + b"/\xff")
    (tmp_path / "test" / "\udcff" / "0_1.txt").write_text("a")
    with pytest.raises(ValueError, match="is not UTF-8"):
        load_split(data, "test")
