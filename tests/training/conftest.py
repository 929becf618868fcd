"""Reviews with and without labels, for trainings that use both."""

from pathlib import Path

import pytest
from helpers.corpus import write_corpus
from helpers.trainings import SPLITS


@pytest.fixture(scope="session")
def reviews(tmp_path_factory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("reviews"), splits=SPLITS)
