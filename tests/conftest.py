"""What several tests share: where things lie, and a corpus small enough to train on in seconds."""

from __future__ import annotations

import csv
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from file_server import FileServer

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"

needs_imdb = pytest.mark.skipif(
    not (SHARED / "imdb" / "train.parquet").is_file(), reason="needs the IMDB reviews"
)

GOOD = ["great", "lovely", "moving", "funny"]
BAD = ["dull", "awful", "clumsy", "flat"]
FILLER = [
    "the",
    "a",
    "film",
    "plot",
    "camera",
    "and",
    "of",
    "in",
    "with",
    "it",
    "was",
    "scene",
    "actor",
    "music",
    "story",
]


def write_corpus(folder: Path, *, splits: dict[str, int], seed: int = 0) -> Path:
    """Reviews in CSV files whose class a single word decides; ``splits`` gives their numbers."""
    generator = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for split, count in splits.items():
        with (folder / f"{split}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "label"])
            for number in range(count):
                words = generator.choices(FILLER, k=generator.randint(3, 30))
                words.insert(
                    generator.randrange(len(words)), generator.choice((BAD, GOOD)[number % 2])
                )
                words.append(f"{split}{number}")  # no two reviews alike
                writer.writerow([" ".join(words), ("neg", "pos")[number % 2]])
    return folder


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
