"""Reviews, and a pre-training on them."""

import shutil
from pathlib import Path

import pytest
from helpers.corpus import write_corpus
from helpers.pretraining import options, pretrain


@pytest.fixture(scope="session")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Path:
    splits = {"train": 60, "validation": 16, "unsupervised": 40}
    return write_corpus(tmp_path_factory.mktemp("reviews"), splits=splits)


@pytest.fixture(scope="session")
def made(reviews: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("made") / "model"
    assert pretrain(*options(reviews, path)) == 0
    return path


@pytest.fixture
def finished(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(made, tmp_path / "finished"))
