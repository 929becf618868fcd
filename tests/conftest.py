"""Fixtures that several tests share."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.corpus import write_corpus
from helpers.file_server import FileServer


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 240 training, 60 validation and 60 test reviews."""
    folder = tmp_path_factory.mktemp("corpus")
    return write_corpus(folder, splits={"train": 240, "validation": 60, "test": 60})


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or fills the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
        yield


@pytest.fixture(autouse=True)
def denormals() -> Iterator[None]:
    """A command that a test calls takes denormal numbers for zero: the next test has them again."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """A file server on this machine, reached past any proxy."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = FileServer()
    yield server
    server.close()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Where a download is to end up."""
    return tmp_path / "cache" / "vectors.zip"
