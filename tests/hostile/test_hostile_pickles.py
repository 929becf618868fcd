"""Pickles that would write a file, instead of every file that is read: none is unpickled."""

import contextlib
import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from helpers.review_files import read_file as rows

from sentiment import load
from sentiment.cli.main import main
from sentiment.config.parser import load_config
from sentiment.data.tokenizer import tokenize_cached
from sentiment.data.vectors import load_vectors
from sentiment.data.vocabulary import load_vocabulary
from sentiment.readers.formats import open_source
from tests.fuzz import samples
from tests.fuzz.targets import read_of_a_run


class Malicious:
    """Creates the marker file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self):
        return Path.touch, (self._marker,)


@pytest.fixture
def marker(tmp_path):
    return tmp_path / "marker"


def malicious_files(marker: Path) -> dict[str, bytes]:
    """The pickle in the formats of several programs."""
    array = np.empty(1, dtype=object)
    array[0] = Malicious(marker)
    npy, zipped, saved = io.BytesIO(), io.BytesIO(), io.BytesIO()
    np.save(npy, array, allow_pickle=True)
    np.savez(zipped, tokens=array)
    torch.save(Malicious(marker), saved)
    return {
        "pickle": pickle.dumps(Malicious(marker)),
        "old pickle": pickle.dumps(Malicious(marker), protocol=0),
        "npy": npy.getvalue(),
        "npz": zipped.getvalue(),
        "torch": saved.getvalue(),
        "yaml": f"seed: !!python/object/apply:pathlib.Path.touch [{marker}]".encode(),
    }


def test_the_pickles_are_malicious(marker):
    files = malicious_files(marker)
    for read in (
        lambda: pickle.loads(files["pickle"]),
        lambda: pickle.loads(files["old pickle"]),
        lambda: np.load(io.BytesIO(files["npy"]), allow_pickle=True),
        lambda: np.load(io.BytesIO(files["npz"]), allow_pickle=True)["tokens"],
        lambda: torch.load(io.BytesIO(files["torch"]), weights_only=False),
    ):
        read()
        assert marker.exists()
        marker.unlink()


def attempt(read):
    with contextlib.suppress(ValueError, OSError):
        read()


def test_files_of_a_run(tmp_path, marker):
    run, contents = tmp_path / "run", samples.run_folder()
    for name, content in contents.items():
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_bytes(content)
    names = read_of_a_run(contents)
    assert any(name.endswith(".safetensors") for name in names)
    for name in names:
        for content in malicious_files(marker).values():
            (run / name).write_bytes(content)
            attempt(lambda: load(run, device="cpu"))
            assert not marker.exists(), name
        (run / name).write_bytes(contents[name])
    assert load(run, device="cpu")


def test_files_of_a_cache_entry(tmp_path, marker):
    fresh = tokenize_cached(samples.TEXTS, tmp_path / "cache")
    (entry,) = (tmp_path / "cache" / "tokens").iterdir()
    for path in sorted(entry.iterdir()):
        for content in malicious_files(marker).values():
            path.write_bytes(content)
            cached = tokenize_cached(samples.TEXTS, tmp_path / "cache")
            assert cached.tokens.tolist() == fresh.tokens.tolist()
            assert not marker.exists(), path.name


def test_other_files(tmp_path, marker):
    def vectors(path: Path) -> None:
        generator = torch.Generator()
        load_vectors(path, ["<pad>", "<unk>", "a"], [0, 0, 1], dimension=2, generator=generator)

    def texts(path: Path) -> None:
        list(open_source(path).blocks(10))

    for content in malicious_files(marker).values():
        for suffix, reads in {
            ".txt": (vectors, texts), ".gz": (vectors,), ".zip": (vectors,), ".csv": (rows, texts),
            ".tsv": (rows, texts), ".jsonl": (rows, texts), ".parquet": (rows, texts),
            ".yaml": (load_config, load_vocabulary),
        }.items():  # fmt: skip
            path = tmp_path / f"file{suffix}"
            path.write_bytes(content)
            for read in reads:
                attempt(lambda: read(path))  # noqa: B023
        with zipfile.ZipFile(tmp_path / "packed.zip", "w") as archive:
            archive.writestr("v.2d.txt", content)
        attempt(lambda: vectors(tmp_path / "packed.zip"))
        assert not marker.exists()


def test_a_parquet_extension_type_is_not_unpickled(tmp_path, marker):
    """pyarrow before 14.0.1 unpickled types named in a file (CVE-2023-47248)."""
    table = pa.table({"text": ["a", "b"], "label": [0, 1]})
    metadata = {
        b"ARROW:extension:name": b"arrow.py_extension_type",
        b"ARROW:extension:metadata": pickle.dumps(Malicious(marker)),
    }
    field = table.schema.field("text").with_metadata(metadata)
    path = tmp_path / "test.parquet"
    pq.write_table(table.cast(pa.schema([field, table.schema.field("label")])), path)
    assert rows(path).texts == ["a", "b"]
    assert [text for block in open_source(path).blocks(9) for text in block.texts]
    assert not marker.exists()


def test_a_settings_file_runs_no_module(tmp_path, marker, monkeypatch):
    (tmp_path / "evil.py").write_text(f"import pathlib; pathlib.Path({str(marker)!r}).touch()")
    monkeypatch.syspath_prepend(tmp_path)
    for content in (
        "model: {class_path: evil.Evil}", "model.class_path: evil.Evil", "model: evil.Evil",
        "data: {class_names: [{class_path: evil.Evil}, b]}", "__default_config__: evil.Evil",
        "class_path: evil.Evil", "<<: {model: {class_path: evil.Evil}}",
    ):  # fmt: skip
        (tmp_path / "config.yaml").write_text(content)
        with pytest.raises(ValueError, match="not a valid settings file"):
            load_config(tmp_path / "config.yaml")
        with pytest.raises(SystemExit):
            main(["train", "--config", str(tmp_path / "config.yaml")])
    assert not marker.exists()
