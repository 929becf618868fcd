"""Fixtures of the tests of vectors."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from helpers.vectors_files import write_text


@pytest.fixture
def write(tmp_path: Path):
    """Writes a file of vectors: content, and its name."""
    return partial(write_text, tmp_path)
