"""Reviews with and without labels, for trainings that use both."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.corpus import write_corpus


@pytest.fixture(scope="module")
def reviews(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("reviews")
    return write_corpus(folder, splits={"train": 120, "validation": 30, "unsupervised": 70})
